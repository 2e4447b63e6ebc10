package httpd

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// logAccess writes one record per request. The query string is left out, since it may hold
// documents and variables.
func (s *Server) logAccess(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, rec := time.Now(), &statusRecorder{ResponseWriter: w}
		ctx, noted := requestlog.CollectFields(r.Context())
		defer func() {
			attrs := append([]slog.Attr{
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", rec.Status()),
				slog.Int64("bytes", rec.bytes), slog.Duration("duration", time.Since(start)), slog.String("client", auth.ClientFrom(ctx).Address),
			}, noted()...)
			s.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

// noteOperation adds the operation to the access log record of its request.
func noteOperation(ctx context.Context, op *executor.Operation) {
	requestlog.AddFields(ctx, slog.String("operation", string(op.Kind())), slog.String("name", op.Name()), slog.Int("cost", op.Cost()))
}

// statusRecorder records the status and the size of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Status returns the status sent, which is 200 if none was.
func (r *statusRecorder) Status() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// WriteHeader implements http.ResponseWriter.
func (r *statusRecorder) WriteHeader(code int) {
	if r.status == 0 && (code >= http.StatusOK || code == http.StatusSwitchingProtocols) {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *statusRecorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
