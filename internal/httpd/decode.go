package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
	"unicode/utf8"

	"backplane/internal/fault"
	"backplane/internal/operation"
)

// asked is what an HTTP request asks for: one operation, or an array of them.
type asked struct {
	requests []operation.Request
	batch    bool
}

// read returns the operations that the request asks for. A body is read up to
// its limits of size and time, and no further.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (asked, error) {
	switch r.Method {
	case http.MethodGet:
		req, err := decodeURL(r.URL)
		return asked{requests: []operation.Request{req}}, err
	case http.MethodPost:
		if err := checkContentType(r); err != nil {
			return asked{}, err
		}
		text, err := s.readBody(w, r)
		if err != nil {
			return asked{}, err
		}
		return decodeBody(text, s.cfg.Batch)
	}
	return asked{}, errMethod("GraphQL is served by GET and POST.", "GET, POST")
}

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > s.cfg.BodyBytes {
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		return nil, s.errTooLarge()
	}
	ctl := http.NewResponseController(w)
	// A writer that has no deadlines, as in tests, has no slow sender either.
	_ = ctl.SetReadDeadline(time.Now().Add(s.cfg.BodyTime))
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.BodyBytes))
	if err == nil {
		_ = ctl.SetReadDeadline(time.Time{}) // else the connection would count as lost while we work
		return text, nil
	}
	w.Header().Set("Connection", "close")
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, s.errTooLarge()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, httpError{http.StatusRequestTimeout, fault.New(fault.Timeout, fault.RequestTimeout,
			"The request body did not arrive within %s.", s.cfg.BodyTime), nil}
	}
	return nil, errBad("The request body could not be read to its end.")
}

func (s *Server) errTooLarge() error {
	return httpError{http.StatusRequestEntityTooLarge, fault.New(fault.Invalid, fault.BodyTooLarge,
		"The request body is larger than %d bytes.", s.cfg.BodyBytes), nil}
}

func errBad(message string) error { return fault.New(fault.Invalid, fault.BadRequest, "%s", message) }

func decodeURL(u *url.URL) (req operation.Request, err error) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return req, errBad("The query string is malformed.")
	}
	for _, name := range []string{"query", "operationName", "variables", "extensions"} {
		if len(values[name]) > 1 || !utf8.ValidString(values.Get(name)) {
			return req, errBad("The parameter " + name + " must be given once, in UTF-8.")
		}
	}
	req.Query, req.OperationName = values.Get("query"), values.Get("operationName")
	if req.Variables, err = decodeParameter(values, "variables"); err != nil {
		return req, err
	}
	req.Extensions, err = decodeParameter(values, "extensions")
	return req, err
}

func decodeParameter(values url.Values, name string) (map[string]any, error) {
	if values.Get(name) == "" {
		return nil, nil
	}
	v, err := decodeJSON([]byte(values.Get(name)))
	if err != nil {
		return nil, err
	}
	return objectOrNull(v, name)
}

// decodeBody reads one request, or an array of at most batch.
func decodeBody(text []byte, batch int) (asked, error) {
	v, err := decodeJSON(text)
	if err != nil {
		return asked{}, err
	}
	items, isArray := v.([]any)
	switch {
	case !isArray:
		req, err := toRequest(v)
		return asked{requests: []operation.Request{req}}, err
	case batch == 0:
		return asked{}, errBad("Arrays of operations are switched off; send one at a time.")
	case len(items) == 0 || len(items) > batch:
		return asked{}, fault.New(fault.Invalid, fault.BadRequest, "An array must have 1 to %d operations.", batch)
	}
	reqs := make([]operation.Request, len(items))
	for i, item := range items {
		if reqs[i], err = toRequest(item); err != nil {
			return asked{}, err
		}
	}
	return asked{reqs, true}, nil
}

func toRequest(v any) (req operation.Request, err error) {
	params, ok := v.(map[string]any)
	if !ok {
		return req, errBad("The request must be a JSON object.")
	}
	if req.Query, err = textOrNull(params["query"], "query"); err != nil {
		return req, err
	}
	if req.OperationName, err = textOrNull(params["operationName"], "operationName"); err != nil {
		return req, err
	}
	if req.Variables, err = objectOrNull(params["variables"], "variables"); err != nil {
		return req, err
	}
	req.Extensions, err = objectOrNull(params["extensions"], "extensions")
	return req, err
}

func textOrNull(v any, name string) (string, error) {
	s, ok := v.(string)
	if !ok && v != nil {
		return "", errBad("The parameter " + name + " must be text.")
	}
	return s, nil
}

func objectOrNull(v any, name string) (map[string]any, error) {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		return nil, errBad("The parameter " + name + " must be a JSON object.")
	}
	return m, nil
}

// maxJSONDepth bounds the nesting of a request's JSON.
const maxJSONDepth = 100

// decodeJSON reads exactly one JSON value, more strictly than encoding/json: in
// valid UTF-8, with bounded nesting and no name twice in an object, so that no
// two readers of one body can understand different things. Numbers keep their
// text. Its errors do not repeat the input.
func decodeJSON(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, errBad("The request is not valid UTF-8.")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errBad("The request has something behind its JSON value.")
	}
	return v, nil
}

func errSyntax() error { return errBad("The request is not valid JSON.") }

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, errSyntax()
	}
	if depth > maxJSONDepth {
		return nil, errBad("The request's JSON is nested too deeply.")
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
			return nil, errBad("The request's JSON has an object with the same name twice.")
		}
		if obj[name], err = decodeValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	return obj, closed(dec)
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
	return items, closed(dec)
}

func closed(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return errSyntax()
	}
	return nil
}
