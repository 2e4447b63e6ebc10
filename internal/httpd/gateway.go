package httpd

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Gateway passes requests on to services.
type Gateway interface {
	// ServeHTTP answers a request whose path begins with /gateway/. Its context says
	// who is calling; X-Forwarded-* headers are those of trusted proxies.
	http.Handler
	// Drain waits until no request is passed on, upgraded connections included. Its error is
	// that of ctx.
	Drain(ctx context.Context) error
}

// gatewayPrefix is where the paths of the gateway begin.
const gatewayPrefix = "/gateway/"

// passed hands what is for the gateway to it: past compression, as answers are the services', and past
// the mux, which would clean paths that are theirs.
func (s *Server) passed(next http.Handler) http.Handler {
	if s.deps.Gateway == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, gatewayPrefix) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, err := s.authenticate(r)
		if err != nil {
			s.problem(w, r, err)
			return
		}
		s.believe(r)
		s.deps.Gateway.ServeHTTP(w, r.WithContext(ctx))
	})
}

// believe takes out of the request's header what only a trusted proxy may say, if none has said it.
func (s *Server) believe(r *http.Request) {
	way := s.way(r)
	if len(way) == 0 || !s.trusted(way[0]) {
		for name := range r.Header {
			if isForwarding(name) {
				delete(r.Header, name)
			}
		}
		return
	}
	r.Header.Del("X-Forwarded-For")
	if hops := way[1:]; len(hops) > 0 {
		r.Header.Set("X-Forwarded-For", chain(hops))
	}
}

// isForwarding reports whether a header says for whom a request is. To many servers X_Real_IP is
// the same as X-Real-IP.
func isForwarding(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return name == "Forwarded" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-")
}

// chain writes hops as X-Forwarded-For has them, the client first.
func chain(hops []netip.Addr) string {
	text := make([]string, 0, len(hops))
	for _, addr := range slices.Backward(hops) {
		text = append(text, addr.String())
	}
	return strings.Join(text, ", ")
}
