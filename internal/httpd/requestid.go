package httpd

import (
	"net/http"

	"github.com/backplane-dev/backplane/internal/requestlog"
)

// assignRequestID gives the request an id, the client's X-Request-Id if that is valid, and
// puts the id and the client into the context.
func (s *Server) assignRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !requestlog.ValidRequestID(id) {
			id = requestlog.NewRequestID()
		}
		w.Header().Set("X-Request-Id", id)
		ctx := requestlog.WithRequestID(r.Context(), id)
		next.ServeHTTP(w, r.WithContext(s.withClient(ctx, r)))
	})
}
