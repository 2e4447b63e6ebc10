package httpd

import (
	"net/http"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// refuseHTTP2 refuses HTTP/2 without TLS (h2c), whose clients begin with a preface that HTTP/1.1 reads as
// the request PRI *. Clients of HTTP/2 cannot read the answer, so the log has it, too.
func (s *Server) refuseHTTP2(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "PRI" || r.RequestURI != "*" {
			next.ServeHTTP(w, r)
			return
		}
		s.log.WarnContext(r.Context(), "a client or proxy speaks HTTP/2 without TLS (h2c), which is not served: set it to HTTP/1.1")
		w.Header().Set("Connection", "close")
		s.writeError(w, r, formatProblem, problem.New(http.StatusHTTPVersionNotSupported, fault.New(fault.BadRequest,
			"HTTP/2 without TLS (h2c) is not served: use HTTP/1.1, as a proxy in front of the server should.")))
	})
}
