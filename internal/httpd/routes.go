package httpd

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// RESTHandler are what answers requests that are no GraphQL.
type RESTHandler interface {
	// ServeHTTP answers a request that matches one of Patterns. Its context says who
	// is calling and carries the idempotency key of an unsafe method; its body is
	// read already and in memory. It has one of the server's slots until it begins to
	// answer.
	http.Handler
	// Patterns returns patterns of net/http without a method.
	Patterns() []string
	// Follow returns the subscription that a request asks for that wants an event
	// stream, and the events that stand for its responses.
	Follow(r *http.Request) (*executor.Operation, func(*graphql.Response) (name string, data []byte), error)
	// ServePage answers a request that matches one of Pages, to anybody.
	ServePage(w http.ResponseWriter, r *http.Request)
	// Pages returns patterns of net/http.
	Pages() []string
}

// serveRoute answers a request of a route.
func (s *Server) serveRoute(w http.ResponseWriter, r *http.Request) {
	if err := s.route(w, r); err != nil {
		s.problem(w, r, err)
	}
}

// route serves a route, or says why not before anything was answered.
func (s *Server) route(w http.ResponseWriter, r *http.Request) error {
	who, err := s.routeCaller(r)
	if err != nil {
		return err
	}
	r = r.WithContext(calledBy(r.Context(), who))
	if r.Method == http.MethodGet && wantsEvents(r) {
		op, show, err := s.deps.REST.Follow(r)
		if err != nil {
			return err
		}
		return s.streams.ServeFeed(w, r, who, op, show)
	}
	if r, err = s.readRoute(w, r); err != nil {
		return err
	}
	return s.inSlot(r.Context(), w, func(w http.ResponseWriter) { s.deps.REST.ServeHTTP(w, r) })
}

// calledBy returns the context of the caller, which may be a stranger.
func calledBy(ctx context.Context, who connection.Caller) context.Context {
	if who.Principal == nil {
		return ctx
	}
	return auth.With(ctx, who.Principal)
}

// readRoute returns the request with its body in memory and its idempotency key in
// the context.
func (s *Server) readRoute(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
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
