package httpd

import (
	"bytes"
	"context"
	"net/http"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// handlerFunc serves a request, or returns an error before it has answered anything.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// handleErrors returns the handler with its errors answered in the format for the request.
func (s *Server) handleErrors(serve handlerFunc, format func(*http.Request) errorFormat) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			s.writeError(w, r, format(r), err)
		}
	}
}

// errorFormat is how an error is answered: formatProblem, or the media type of GraphQL errors.
type errorFormat = mediaType

const formatProblem errorFormat = problem.MediaType

func problemFormat(*http.Request) errorFormat { return formatProblem }

// graphQLErrorFormat is the media type that the client prefers for GraphQL responses, and JSON
// for a request of a stream or of a media type that we do not have.
func graphQLErrorFormat(r *http.Request) errorFormat {
	if isStreamRequest(r) {
		return mediaJSON
	}
	media, err := negotiate(r)
	if err != nil {
		return mediaJSON
	}
	return media
}

// writeError reports the error to the log, if it is internal, and answers with it.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, format errorFormat, err error) {
	s.reportError(r.Context(), err)
	if format == formatProblem {
		problem.Write(w, r, s.log, err)
		return
	}
	refusal := executor.NewRefusal(err)
	f := fault.From(err)
	f.Report(r.Context(), s.log, "method", r.Method, "path", r.URL.Path)
	if f.Kind() == fault.KindInternal {
		refusal.Errors[0].Extensions["requestId"] = requestlog.RequestID(r.Context())
	}
	s.writeJSON(w, r, problem.SetHeaders(w.Header(), r, err), format, errorBody{refusal.Errors})
}

// reportError reports an error that a client is answered with.
func (s *Server) reportError(ctx context.Context, err error) {
	if s.deps.OnError != nil {
		s.deps.OnError(ctx, err)
	}
}

// errorBody is a GraphQL response that has no data entry, since nothing ran.
type errorBody struct {
	Errors gqlerror.List `json:"errors"`
}

// writeJSON answers with v as JSON.
func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, code int, media mediaType, v any) {
	h := w.Header()
	h.Set("Content-Type", string(media)+"; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept")
	var out bytes.Buffer
	if err := jsoncodec.Encode(&out, v); err != nil {
		s.log.ErrorContext(r.Context(), "a GraphQL response could not be encoded", "error", err)
		code = http.StatusInternalServerError
		out.Reset()
		out.WriteString(`{"errors":[{"message":"Something went wrong on our side.","extensions":{"code":"INTERNAL"}}]}`)
	}
	out.WriteByte('\n')
	w.WriteHeader(code)
	_, _ = w.Write(out.Bytes()) // fails only with the connection
}

func errBadRequest(message string) error {
	return fault.New(fault.BadRequest, "%s", message)
}

func errMethodNotAllowed(message, allow string) error {
	return &problem.Error{Status: http.StatusMethodNotAllowed, Fault: fault.New(fault.BadRequest, "%s", message), Allow: allow}
}
