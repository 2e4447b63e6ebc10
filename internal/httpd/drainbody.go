package httpd

import (
	"io"
	"net/http"
)

// drainBody reads and discards the body of a request whose method has no use for one. Without
// that, net/http would wait for it before it sends the answer.
func (s *Server) drainBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 && isSafe(r.Method) {
			if err := s.copyBody(io.Discard, http.MaxBytesReader(w, r.Body, s.cfg.BodyBytes), w, r); err != nil {
				s.writeError(w, r, formatProblem, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// isSafe reports whether requests of the method change nothing (RFC 9110). None of ours has a
// body.
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}
