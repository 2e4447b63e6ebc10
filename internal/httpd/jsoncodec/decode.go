// Package jsoncodec decodes GraphQL requests from JSON and encodes responses to JSON, for every
// transport. Decoding is stricter than encoding/json, see Decode.
package jsoncodec

import (
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

func errBadRequest(message string) error {
	return fault.New(fault.BadRequest, "%s", message)
}

// DecodeRequest reads the parameters of a GraphQL request from a decoded JSON object.
// Unknown parameters are ignored. Its error is BAD_REQUEST.
func DecodeRequest(v any) (req executor.Request, err error) {
	params, ok := v.(map[string]any)
	if !ok {
		return req, errBadRequest("The request must be a JSON object.")
	}
	if req.Query, err = asText(params["query"], "query"); err != nil {
		return req, err
	}
	if req.OperationName, err = asText(params["operationName"], "operationName"); err != nil {
		return req, err
	}
	if req.Variables, err = AsObject(params["variables"], "variables"); err != nil {
		return req, err
	}
	req.Extensions, err = AsObject(params["extensions"], "extensions")
	return req, err
}

func asText(v any, name string) (string, error) {
	s, ok := v.(string)
	if !ok && v != nil {
		return "", errBadRequest("The parameter " + name + " must be text.")
	}
	return s, nil
}

// AsObject returns v as an object, nil for null. Its error is BAD_REQUEST and names
// the parameter.
func AsObject(v any, name string) (map[string]any, error) {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		return nil, errBadRequest("The parameter " + name + " must be a JSON object.")
	}
	return m, nil
}

// maxJSONDepth bounds the nesting of a request's JSON.
const maxJSONDepth = 100

// Decode reads exactly one JSON value, more strictly than encoding/json: in
// valid UTF-8, with bounded nesting and no name twice in an object, so that no
// two parsers can read one text differently. Numbers keep their
// text. Its error is BAD_REQUEST and does not repeat the input.
func Decode(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errBadRequest("The request is not valid UTF-8.")
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	dec := json.NewDecoder(bytes.NewReader(replaceHalfSurrogates(data)))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errBadRequest("The request has something behind its JSON value.")
	}
	return v, nil
}

// replaceHalfSurrogates writes escapes of half a surrogate pair as those of the null character.
// It leaves the data as it is if there are none.
func replaceHalfSurrogates(data []byte) []byte {
	replaced := false
	for i := 0; i < len(data); {
		if data[i] != '\\' {
			i++
			continue
		}
		n, half := validate.EscapedSurrogate(data, i)
		if half {
			if !replaced {
				data, replaced = bytes.Clone(data), true
			}
			copy(data[i+2:], "0000")
		}
		i += n
	}
	return data
}

func errSyntax() error { return errBadRequest("The request is not valid JSON.") }

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, errSyntax()
	}
	if depth > maxJSONDepth {
		return nil, errBadRequest("The request's JSON is nested too deeply.")
	}
	switch tok {
	case json.Delim('{'):
		return decodeObject(dec, depth)
	case json.Delim('['):
		return decodeArray(dec, depth)
	}
	return tok, nil
}

func decodeObject(dec *json.Decoder, depth int) (any, error) {
	obj := map[string]any{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, errSyntax()
		}
		if _, twice := obj[name]; twice {
			return nil, errBadRequest("The request's JSON has an object with the same name twice.")
		}
		if obj[name], err = decodeValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	return obj, readEnd(dec)
}

func decodeArray(dec *json.Decoder, depth int) (any, error) {
	items := []any{}
	for dec.More() {
		v, err := decodeValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, readEnd(dec)
}

// readEnd reads the delimiter that ends an object or an array.
func readEnd(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return errSyntax()
	}
	return nil
}
