package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"backplane/internal/fault"
	"backplane/internal/httpd/wire"
	"backplane/internal/operation"
	"backplane/internal/telemetry"
)

// httpError is an error with a status that its kind alone does not tell.
type httpError struct {
	status int
	fault  *fault.Error
	allow  []string // methods, of a 405
}

func (e httpError) Error() string { return e.fault.Error() }
func (e httpError) Unwrap() error { return e.fault }

func errMethod(message, allow string) error {
	return httpError{http.StatusMethodNotAllowed, fault.New(fault.Invalid, fault.BadRequest, "%s", message), []string{allow}}
}

// status is what each kind of error is in HTTP.
func status(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Exhausted:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Timeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// headersOf sets the headers that belong to an error and returns its status.
func headersOf(w http.ResponseWriter, err error) int {
	f := fault.From(err)
	code := status(f.Kind)
	if e, ok := errors.AsType[httpError](err); ok {
		code = e.status
		if len(e.allow) > 0 {
			w.Header()["Allow"] = e.allow
		}
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="backplane", error="invalid_token"`)
	}
	return code
}

// body is a GraphQL response that has no data entry, since nothing ran.
type body struct {
	Errors gqlerror.List `json:"errors"`
}

// refuse answers a request for GraphQL that was not run.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, media mediaType, err error) {
	refusal := operation.Refuse(err)
	f := fault.From(err)
	f.Report(r.Context(), s.log, "method", r.Method, "path", r.URL.Path)
	if f.Kind == fault.Internal {
		refusal.Errors[0].Extensions["requestId"] = telemetry.RequestID(r.Context())
	}
	s.write(w, r, headersOf(w, err), media, body{Errors: refusal.Errors})
}

// write sends v as JSON. A client that reads too slowly is cut.
func (s *Server) write(w http.ResponseWriter, r *http.Request, code int, media mediaType, v any) {
	h := w.Header()
	h.Set("Content-Type", string(media)+"; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept")
	var out bytes.Buffer
	if err := wire.Encode(&out, v); err != nil {
		s.log.ErrorContext(r.Context(), "an answer could not be encoded", "error", err)
		code = http.StatusInternalServerError
		out.Reset()
		out.WriteString(`{"errors":[{"message":"Something went wrong on our side.","extensions":{"code":"INTERNAL"}}]}`)
	}
	out.WriteByte('\n')
	// A writer without deadlines, as in tests, has no slow reader either.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.WriteTime))
	w.WriteHeader(code)
	_, _ = w.Write(out.Bytes()) // what fails here is the connection
}

// problem answers with an RFC 9457 problem document.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	f.Report(r.Context(), s.log, "method", r.Method, "path", r.URL.Path)
	code := headersOf(w, err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "about:blank", "title": http.StatusText(code), "status": code, "detail": f.Message, "code": f.Code,
	})
}
