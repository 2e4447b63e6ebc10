package httpd

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// readyTimeout bounds the check behind /readyz.
const readyTimeout = 2 * time.Second

// serveHealth answers the liveness check: the process runs.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) error {
	writePlain(w, "ok\n")
	return nil
}

// serveReady answers the readiness check: whether a load balancer should send requests here.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		s.log.WarnContext(ctx, "readiness check failed", "error", err)
		message := "The server is not ready; its log says why."
		if f := fault.From(err); f.Kind() != fault.KindInternal {
			message = f.Message
		}
		return fault.New(fault.Unavailable, "%s", message)
	}
	writePlain(w, "ready\n")
	return nil
}

// Ready returns an error while a load balancer should send no requests here: the server stops, or
// a dependency is missing.
func (s *Server) Ready(ctx context.Context) error {
	if s.draining.Load() {
		return fault.New(fault.Unavailable, "The server is stopping.")
	}
	if s.deps.Ready == nil {
		return nil
	}
	return s.deps.Ready(ctx)
}

// AnnounceStop makes the server not ready, and lets it end each keep-alive connection with the
// next answer, while it goes on serving. Idle connections stay open: a proxy may be about to use
// them.
func (s *Server) AnnounceStop() { s.draining.Store(true) }

// closeWhileStopping ends connections with their next answer once the server stops.
func (s *Server) closeWhileStopping(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// serveJWKS answers with the public keys of access tokens.
func (s *Server) serveJWKS(w http.ResponseWriter, r *http.Request) error {
	if s.deps.JWKS == nil {
		return errPathNotFound()
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(s.deps.JWKS()) // fails only with the connection
	return nil
}

// serveNotFound answers a path that no pattern matches. Clients of the former system may call it, so
// it is counted with its caller; one whose credential is refused counts as anonymous.
func (s *Server) serveNotFound(_ http.ResponseWriter, r *http.Request) error {
	if s.deps.OnUnknown != nil {
		ctx := r.Context()
		if caller, err := s.authenticateREST(r); err == nil {
			ctx = withPrincipal(ctx, caller)
		}
		s.deps.OnUnknown(ctx, r.Method, r.URL.Path)
	}
	return errPathNotFound()
}

func errPathNotFound() error {
	return problem.New(http.StatusNotFound, fault.New(fault.NotFound, "There is nothing at this path."))
}

func writePlain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text) // fails only with the connection
}
