package jsoncodec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Response is a GraphQL response of an operation that ran. Its data is JSON already
// and can be long, so it is copied and not, as encoding/json would, read again.
type Response struct {
	Errors     gqlerror.List
	Data       []byte
	Extensions map[string]any
	OmitData   bool // for an operation that failed as a whole; there are errors then
}

// NewResponse returns the response of an operation that ran.
func NewResponse(r *graphql.Response) Response {
	return Response{Errors: r.Errors, Data: r.Data, Extensions: r.Extensions}
}

// EncodeTo implements Encoder: errors first, where people look for them in a log.
func (r Response) EncodeTo(out *bytes.Buffer) error {
	out.WriteByte('{')
	if len(r.Errors) > 0 {
		out.WriteString(`"errors":`)
		if err := Encode(out, r.Errors); err != nil {
			return err
		}
	}
	if !r.OmitData {
		if len(r.Errors) > 0 {
			out.WriteByte(',')
		}
		out.WriteString(`"data":`)
		if len(r.Data) == 0 {
			out.WriteString("null")
		}
		out.Write(r.Data)
	}
	if len(r.Extensions) > 0 {
		out.WriteString(`,"extensions":`)
		if err := Encode(out, r.Extensions); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

// Encoder is implemented by values that encode themselves as JSON.
type Encoder interface {
	EncodeTo(out *bytes.Buffer) error
}

// Encode writes v as JSON, in which <, > and & need no escapes.
func Encode(out *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case Encoder:
		return v.EncodeTo(out)
	case []any:
		return encodeAll(out, v)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	out.Truncate(out.Len() - 1) // the encoder ends with a new line
	return nil
}

func encodeAll(out *bytes.Buffer, items []any) error {
	for i, item := range items {
		out.WriteByte("[,"[min(i, 1)])
		if err := Encode(out, item); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	return nil
}
