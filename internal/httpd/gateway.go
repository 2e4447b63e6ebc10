package httpd

import (
	"context"
	"net/http"
	"strings"
)

// Gateway forwards requests to upstream services.
type Gateway interface {
	// ServeHTTP answers a request whose path begins with /gateway/. Its context carries the
	// principal; its X-Forwarded-* headers are those of trusted proxies.
	http.Handler
	// Drain waits until no request is being forwarded, upgraded connections included. Its
	// error is that of ctx.
	Drain(ctx context.Context) error
}

// gatewayPrefix begins the paths of the gateway.
const gatewayPrefix = "/gateway/"

// routeGateway authenticates requests under gatewayPrefix and passes them to the gateway.
func (s *Server) routeGateway(next http.Handler) http.Handler {
	if s.deps.Gateway == nil {
		return next
	}
	forward := s.handleErrors(s.serveGateway, problemFormat)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, gatewayPrefix) {
			forward(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) serveGateway(w http.ResponseWriter, r *http.Request) error {
	ctx, err := s.authenticate(r)
	if err != nil {
		return err
	}
	s.stripUntrustedForwarded(r)
	s.deps.Gateway.ServeHTTP(w, r.WithContext(ctx))
	return nil
}
