package executor

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
)

// packed is what Pack keeps of a request. An absent entry takes no room.
type packed struct {
	Query         string         `json:"q"`
	OperationName string         `json:"n,omitempty"`
	Variables     map[string]any `json:"v,omitempty"`
}

// canonical returns document, name and variables in the one way in which equal
// ones are written.
func (r Request) canonical() ([]byte, error) {
	text, err := json.Marshal(packed{r.Query, r.OperationName, r.Variables})
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return text, nil
}

// Pack returns document, name and variables of the request in few bytes, for
// Unpack to read on any node. Extensions are left out.
func Pack(r Request) ([]byte, error) {
	text, err := r.canonical()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression) // fails only for a level that does not exist
	_, _ = w.Write(text)                                 // a buffer takes everything
	_ = w.Close()
	return out.Bytes(), nil
}

// maxPacked bounds what Unpack reads, in bytes: more than a request can have.
const maxPacked = 4 << 20

// Unpack returns the request that Pack was given.
func Unpack(b []byte) (Request, error) {
	dec := json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxPacked))
	dec.UseNumber()
	var p packed
	if err := dec.Decode(&p); err != nil {
		return Request{}, fmt.Errorf("decode packed request: %w", err)
	}
	return Request{Query: p.Query, OperationName: p.OperationName, Variables: p.Variables}, nil
}

// Same reports whether two requests ask for the same: by the text of their
// documents, their names and their variables, and without extensions.
func (r Request) Same(as Request) bool {
	a, err := r.canonical()
	b, err2 := as.canonical()
	return err == nil && err2 == nil && len(r.Extensions)+len(as.Extensions) == 0 && bytes.Equal(a, b)
}

// IsZero reports whether the request asks for nothing at all.
func (r Request) IsZero() bool {
	return r.Query == "" && r.OperationName == "" && len(r.Variables)+len(r.Extensions) == 0
}
