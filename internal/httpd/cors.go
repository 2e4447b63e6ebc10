package httpd

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/rs/cors"
)

// preflightAge is how many seconds a browser may cache the answer to a preflight.
const preflightAge = 7200

// The headers that the API itself has, which pages may always send and read.
var (
	requestHeaders = []string{"Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "Prefer", "X-GraphQL-Event-Stream-Token", "X-Request-Id"}
	exposedHeaders = []string{"Allow", "Deprecation", "ETag", "Link", "Location", "Preference-Applied", "Retry-After", "Sunset", "WWW-Authenticate", "X-Request-Id", "X-Total-Count"}
)

// allowOrigins lets pages of the allowed origins call (CORS) and answers their preflights. No
// caller is authenticated by a cookie, so credentials are never allowed. A preflight that is
// refused goes on to the handlers, which answer without what the browser looks for. While no origin
// is allowed, answers do not vary by it.
func (s *Server) allowOrigins(next http.Handler) http.Handler {
	answer := s.answerPreflights(next)
	if len(s.cfg.AllowedOrigins) == 0 && !s.cfg.AllowLocalOrigins {
		return answer
	}
	return cors.New(cors.Options{
		AllowOriginFunc:    s.allowsOrigin,
		AllowedMethods:     []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowedHeaders:     slices.Concat(requestHeaders, s.cfg.CORSHeaders),
		ExposedHeaders:     slices.Concat(exposedHeaders, s.cfg.CORSExposedHeaders),
		MaxAge:             preflightAge,
		OptionsPassthrough: true,
	}).Handler(answer)
}

// answerPreflights ends the preflights that were allowed, and logs the others.
func (s *Server) answerPreflights(next http.Handler) http.Handler {
	refused := &refusedPreflights{logged: map[string]bool{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" || r.Header.Get("Origin") == "" {
			next.ServeHTTP(w, r)
			return
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		s.logRefusedPreflight(r, refused)
		next.ServeHTTP(w, r)
	})
}

// allowsOrigin reports whether pages of the origin may call.
func (s *Server) allowsOrigin(origin string) bool {
	return slices.Contains(s.cfg.AllowedOrigins, "*") || slices.Contains(s.cfg.AllowedOrigins, strings.ToLower(origin)) ||
		s.cfg.AllowLocalOrigins && isLocalOrigin(origin)
}

// isLocalOrigin reports whether the origin is a server on the machine of the browser, at any port.
func isLocalOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

// maxRefusedOrigins bounds the log of refused preflights: any page may send them.
const maxRefusedOrigins = 100

// refusedPreflights remembers what has been logged, at most maxRefusedOrigins lines.
type refusedPreflights struct {
	mu     sync.Mutex
	logged map[string]bool
}

func (p *refusedPreflights) isNew(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logged[what] || len(p.logged) >= maxRefusedOrigins {
		return false
	}
	p.logged[what] = true
	return true
}

// logRefusedPreflight logs once for each origin why its pages cannot call, with the setting that
// changes it: the browser shows them nothing.
func (s *Server) logRefusedPreflight(r *http.Request, refused *refusedPreflights) {
	origin := r.Header.Get("Origin")
	switch allowed := s.allowsOrigin(origin); {
	case len(origin) > 300 || !refused.isNew(origin):
	case !allowed:
		s.log.WarnContext(r.Context(), "a page of another origin may not call: if it should, name the origin in BACKPLANE_CORS_ORIGINS", "origin", origin)
	default:
		s.log.WarnContext(r.Context(), "a page may not send these request headers or this method: if it should, name the headers in BACKPLANE_CORS_HEADERS", "origin", origin,
			"headers", strings.Join(r.Header.Values("Access-Control-Request-Headers"), ","), "method", r.Header.Get("Access-Control-Request-Method"))
	}
}
