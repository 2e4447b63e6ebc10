package httpd

import (
	"context"
	"net/http"
	"strings"
)

// Gateway forwards requests to upstream services.
type Gateway interface {
	// ServeHTTP answers a request whose path begins with /gateway/. Its context carries the
	// principal, and ends with a fault as its cause once the caller's credential is no longer
	// valid; upgraded connections end with it, too. Its buffers take their memory from the grant of
	// the context. Its X-Forwarded-* headers are those of trusted proxies.
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
	ctx, caller, err := s.authenticateCaller(r)
	if err != nil {
		return err
	}
	ctx, end := s.connections.Watch(ctx, caller)
	defer end()
	ctx, grant := s.openMemory(ctx)
	defer grant.Release() // once the call has ended, as it may be sent again until then
	s.stripUntrustedForwarded(r)
	s.deps.Gateway.ServeHTTP(w, r.WithContext(ctx))
	return nil
}
