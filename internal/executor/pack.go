package executor

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
)

// packedRequest is the encoding of Pack. Absent entries are left out.
type packedRequest struct {
	Query         string         `json:"q"`
	OperationName string         `json:"n,omitempty"`
	Variables     map[string]any `json:"v,omitempty"`
}

// encodeCanonical returns document, name and variables in JSON that is equal for equal
// requests.
func (r Request) encodeCanonical() ([]byte, error) {
	text, err := json.Marshal(packedRequest{r.Query, r.OperationName, r.Variables})
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return text, nil
}

// Pack returns document, name and variables of the request, compressed, for Unpack on
// any node. Extensions are left out.
func Pack(r Request) ([]byte, error) {
	text, err := r.encodeCanonical()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression) // fails only for a level that does not exist
	_, _ = w.Write(text)                                 // a buffer never fails
	_ = w.Close()
	return out.Bytes(), nil
}

// maxPacked bounds what Unpack reads, in bytes: more than a request can have.
const maxPacked = 4 << 20

// Unpack returns the request that was packed.
func Unpack(b []byte) (Request, error) {
	dec := json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxPacked))
	dec.UseNumber()
	var p packedRequest
	if err := dec.Decode(&p); err != nil {
		return Request{}, fmt.Errorf("decode packed request: %w", err)
	}
	return Request{Query: p.Query, OperationName: p.OperationName, Variables: p.Variables}, nil
}

// Same reports whether two requests are equal in the text of their documents, operation
// names and variables. Requests with extensions never are.
func (r Request) Same(as Request) bool {
	a, err := r.encodeCanonical()
	b, err2 := as.encodeCanonical()
	return err == nil && err2 == nil && len(r.Extensions)+len(as.Extensions) == 0 && bytes.Equal(a, b)
}

// IsZero reports whether the request is empty.
func (r Request) IsZero() bool {
	return r.Query == "" && r.OperationName == "" && len(r.Variables)+len(r.Extensions) == 0
}
