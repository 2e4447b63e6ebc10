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
	if s.draining.Load() {
		return errNotReady("The server is stopping.")
	}
	if s.deps.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := s.deps.Ready(ctx); err != nil {
			s.log.WarnContext(ctx, "readiness check failed", "error", err)
			message := "The server is not ready; its log says why."
			if f := fault.From(err); f.Kind() != fault.KindInternal {
				message = f.Message
			}
			return errNotReady(message)
		}
	}
	writePlain(w, "ready\n")
	return nil
}

func errNotReady(message string) error {
	return fault.New(fault.Unavailable, "%s", message)
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

// serveNotFound answers a path that no pattern matches.
func (s *Server) serveNotFound(http.ResponseWriter, *http.Request) error { return errPathNotFound() }

func errPathNotFound() error {
	return problem.New(http.StatusNotFound, fault.New(fault.NotFound, "There is nothing at this path."))
}

func writePlain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text) // fails only with the connection
}
