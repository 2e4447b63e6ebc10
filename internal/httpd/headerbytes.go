package httpd

import (
	"net/http"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// limitHeaderBytes refuses a request whose header is too long with HEADER_TOO_LARGE. net/http
// cuts off one of more than twice as much before it gets here.
func (s *Server) limitHeaderBytes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if headerBytes(r) <= s.cfg.HeaderBytes {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close")
		s.writeError(w, r, formatProblem, problem.New(http.StatusRequestHeaderFieldsTooLarge, fault.New(fault.HeaderTooLarge,
			"The request header is larger than %d bytes.", s.cfg.HeaderBytes)))
	})
}

// headerBytes returns about how long the request line and the header were.
func headerBytes(r *http.Request) int {
	const separators = len(": \r\n")
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + separators
		}
	}
	return n
}
