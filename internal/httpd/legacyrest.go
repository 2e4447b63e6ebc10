package httpd

import (
	"bytes"
	"io"
	"net/http"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/executor"
)

// RESTHandler serves legacy REST routes.
type RESTHandler interface {
	// ServeHTTP answers a request that matches one of Patterns. Its context carries the
	// principal and the idempotency key of an unsafe method; its body is in memory. It holds
	// one of the server's slots until it begins to answer.
	http.Handler
	// Patterns returns patterns of net/http without a method.
	Patterns() []string
	// Follow returns the subscription behind a request that wants an event stream, and the
	// encoder of its responses as events.
	Follow(r *http.Request) (*executor.Operation, func(*graphql.Response) (name string, data []byte), error)
	// ServePage answers a request that matches one of Pages, to any caller.
	ServePage(w http.ResponseWriter, r *http.Request)
	// Pages returns patterns of net/http.
	Pages() []string
}

// serveREST serves a legacy REST route.
func (s *Server) serveREST(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authenticateREST(r)
	ctx, follows := withPrincipal(r.Context(), caller), r.Method == http.MethodGet && wantsEventStream(r)
	if err != nil && !follows {
		ctx, err = s.passRefused(w, r, err)
	}
	if err != nil {
		return err
	}
	ctx, grant := s.openMemory(ctx)
	defer grant.Release() // once the response is written
	r = r.WithContext(ctx)
	if follows {
		op, encode, err := s.deps.REST.Follow(r)
		if err != nil {
			return err
		}
		return s.events.ServeEncoded(w, r, caller, op, encode)
	}
	if r, err = s.bufferRequest(w, r); err != nil {
		return err
	}
	return s.inSlot(r.Context(), w, func(w http.ResponseWriter) error {
		s.deps.REST.ServeHTTP(w, r)
		return nil
	})
}

// bufferRequest returns the request with its body in memory and its idempotency key in the
// context.
func (s *Server) bufferRequest(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if isSafe(r.Method) {
		return r, nil
	}
	key, err := idempotencyHeader(r)
	if err != nil {
		return nil, err
	}
	text, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	r = r.WithContext(executor.WithIdempotencyKey(r.Context(), key))
	r.Body = io.NopCloser(bytes.NewReader(text))
	return r, nil
}
