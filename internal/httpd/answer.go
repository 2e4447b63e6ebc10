package httpd

import (
	"bytes"
	"net/http"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

func errMethod(message, allow string) error {
	return &problem.Error{Status: http.StatusMethodNotAllowed, Fault: fault.New(fault.Invalid, fault.BadRequest, "%s", message), Allow: allow}
}

// body is a GraphQL response that has no data entry, since nothing ran.
type body struct {
	Errors gqlerror.List `json:"errors"`
}

// refuse answers a request for GraphQL that was not run.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, media mediaType, err error) {
	refusal := executor.Refuse(err)
	f := fault.From(err)
	f.Report(r.Context(), s.log, "method", r.Method, "path", r.URL.Path)
	if f.Kind == fault.Internal {
		refusal.Errors[0].Extensions["requestId"] = requestlog.RequestID(r.Context())
	}
	s.write(w, r, problem.SetHeaders(w.Header(), err), media, body{Errors: refusal.Errors})
}

// write sends v as JSON.
func (s *Server) write(w http.ResponseWriter, r *http.Request, code int, media mediaType, v any) {
	h := w.Header()
	h.Set("Content-Type", string(media)+"; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept")
	var out bytes.Buffer
	if err := jsoncodec.Encode(&out, v); err != nil {
		s.log.ErrorContext(r.Context(), "an answer could not be encoded", "error", err)
		code = http.StatusInternalServerError
		out.Reset()
		out.WriteString(`{"errors":[{"message":"Something went wrong on our side.","extensions":{"code":"INTERNAL"}}]}`)
	}
	out.WriteByte('\n')
	w.WriteHeader(code)
	_, _ = w.Write(out.Bytes()) // what fails here is the connection
}

// problem answers with a problem document.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	problem.Write(w, r, s.log, err)
}
