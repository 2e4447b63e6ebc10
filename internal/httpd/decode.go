package httpd

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/problem"
)

// graphQLBody is the content of a GraphQL request over HTTP: one operation, or an array of them.
type graphQLBody struct {
	requests []executor.Request
	batch    bool
}

// readRequests returns the operations of a GraphQL request. A body is read up to its limits of
// size and time, and no further.
func (s *Server) readRequests(w http.ResponseWriter, r *http.Request) (graphQLBody, error) {
	switch r.Method {
	case http.MethodGet:
		req, err := decodeURL(r.URL)
		return graphQLBody{requests: []executor.Request{req}}, err
	case http.MethodPost:
		if err := checkContentType(r); err != nil {
			return graphQLBody{}, err
		}
		text, err := s.readBody(w, r)
		if err != nil {
			return graphQLBody{}, err
		}
		return decodeBody(text, s.cfg.Batch)
	}
	return graphQLBody{}, errMethodNotAllowed("GraphQL is served by GET and POST.", "GET, POST")
}

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var text bytes.Buffer // grows with the bytes received, not with Content-Length
	body := http.MaxBytesReader(w, r.Body, s.cfg.BodyBytes)
	paid := membudget.GrantFrom(r.Context()).Reader(r.Context(), body, membudget.JSONFactor)
	if err := s.copyBody(&text, paid, w, r); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// copyBody copies the body of a request, within its limits. After an error the
// connection is closed: the rest of the body is not worth reading.
func (s *Server) copyBody(dst io.Writer, body io.Reader, w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > s.cfg.BodyBytes {
		w.Header().Set("Connection", "close")
		return problem.BodyTooLarge(s.cfg.BodyBytes)
	}
	s.setBodyDeadline(w)
	_, err := io.Copy(dst, body)
	if err == nil {
		clearBodyDeadline(w)
		return nil
	}
	w.Header().Set("Connection", "close")
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.BodyTooLarge(e.Limit)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err // no memory for it
	}
	return problem.BodyUnreadable(err, s.cfg.BodyTime)
}

func decodeURL(u *url.URL) (req executor.Request, err error) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return req, errBadRequest("The query string is malformed.")
	}
	for _, name := range []string{"query", "operationName", "variables", "extensions"} {
		if len(values[name]) > 1 || !utf8.ValidString(values.Get(name)) {
			return req, errBadRequest("The parameter " + name + " must be given once, in UTF-8.")
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
	v, err := jsoncodec.Decode([]byte(values.Get(name)))
	if err != nil {
		return nil, err
	}
	return jsoncodec.AsObject(v, name)
}

// decodeBody decodes one request, or an array of at most batch.
func decodeBody(text []byte, batch int) (graphQLBody, error) {
	v, err := jsoncodec.Decode(text)
	if err != nil {
		return graphQLBody{}, err
	}
	items, isArray := v.([]any)
	switch {
	case !isArray:
		req, err := jsoncodec.DecodeRequest(v)
		return graphQLBody{requests: []executor.Request{req}}, err
	case batch == 0:
		return graphQLBody{}, errBadRequest("Arrays of operations are switched off; send one at a time.")
	case len(items) == 0 || len(items) > batch:
		return graphQLBody{}, fault.New(fault.BadRequest, "An array must have 1 to %d operations.", batch)
	}
	reqs := make([]executor.Request, len(items))
	for i, item := range items {
		if reqs[i], err = jsoncodec.DecodeRequest(item); err != nil {
			return graphQLBody{}, err
		}
	}
	return graphQLBody{reqs, true}, nil
}
