package httpd

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// readyTime is how long the check behind /readyz may take.
const readyTime = 2 * time.Second

// serveHealth says that the process lives.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) { plain(w, "ok\n") }

// serveReady says whether requests should be sent here.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		s.problem(w, r, notReady("The server is stopping."))
		return
	}
	if s.deps.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), readyTime)
		defer cancel()
		if err := s.deps.Ready(ctx); err != nil {
			s.log.WarnContext(ctx, "not ready", "error", err)
			message := "The server is not ready; its log says why."
			if f := fault.From(err); f.Kind != fault.Internal {
				message = f.Message
			}
			s.problem(w, r, notReady(message))
			return
		}
	}
	plain(w, "ready\n")
}

func notReady(message string) error {
	return fault.New(fault.Unavailable, fault.ServiceUnavailable, "%s", message)
}

func (s *Server) serveJWKS(w http.ResponseWriter, r *http.Request) {
	if s.deps.JWKS == nil {
		s.serveNothing(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(s.deps.JWKS()) // what fails here is the connection
}

// serveNothing answers for whatever has no route.
func (s *Server) serveNothing(w http.ResponseWriter, r *http.Request) {
	s.problem(w, r, problem.New(http.StatusNotFound, fault.New(fault.NotFound, fault.PathNotFound, "There is nothing at this path.")))
}

func plain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text) // what fails here is the connection
}
