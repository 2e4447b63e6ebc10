package httpd

import (
	"net/http"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/hostcheck"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/security"
)

// checkHost refuses requests under a host name that is not ours (DNS rebinding) with 421.
func (s *Server) checkHost(next http.Handler) http.Handler {
	return hostcheck.New("", s.cfg.AllowedHosts).Middleware(next, func(w http.ResponseWriter, r *http.Request) {
		s.writeError(w, r, formatProblem, security.Refuse(security.HostRefused, "", problem.New(http.StatusMisdirectedRequest, fault.New(fault.BadRequest,
			"This server has no such host name. Its operator lists the names in BACKPLANE_ALLOWED_HOSTS."))))
	})
}

// refuseCrossOrigin refuses requests of pages of other origins that may change something
// (CSRF) with 403: no cookie is ours, but sign-ups, throttles and trusted networks go by
// the address of the visitor. Pages of the allowed origins pass.
func (s *Server) refuseCrossOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.writeError(w, r, formatProblem, security.Refuse(security.CrossOriginRefused, "", fault.New(fault.Forbidden, "Pages of this origin may not call this server. Its operator lists origins in BACKPLANE_CORS_ORIGINS.")))
	}))
	protected := protection.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" && s.allowsOrigin(origin) {
			next.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}
