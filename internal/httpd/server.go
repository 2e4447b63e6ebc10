// Package httpd serves the API over HTTP: the middleware chain and the mux, GraphQL over HTTP,
// GraphiQL, health checks, and the graceful shutdown of a server.
//
// Every request passes the middleware listed in middleware.go, in that order, before it
// reaches its handler. Handlers return their errors; writeError is the one place that answers
// with them, as GraphQL errors or as a problem document. Body size, the time that a client may
// take and the number of operations at once (slots, a semaphore) are bounded here.
//
// It leaves to others: long-lived connections to packages connection, websocket and sse; legacy
// REST routes to a RESTHandler; upstream services to a Gateway; what a GraphQL document may ask
// for to package executor. No cookie is ever read or set. The package has more than 20 files
// because each middleware has one, named after it.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/connlimit"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/sse"
	"github.com/backplane-dev/backplane/internal/httpd/websocket"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/static"
)

// Deps are what a Server calls. A nil field means: no caller can authenticate, no tickets, no
// legacy REST routes, no gateway, always ready, no schema, no keys to publish, no limit of memory, no reports.
type Deps struct {
	Auth      Authenticator // may be an Expirer and a LastKnownAuthenticator
	Tickets   TicketAuthenticator
	REST      RESTHandler
	Gateway   Gateway
	Ready     func(ctx context.Context) error                             // its error says what is missing, for an operator
	Schema    []byte                                                      // the schema as text; nil if it is hidden
	JWKS      func() []byte                                               // the public keys as a JSON Web Key Set
	Targets   func(ctx context.Context, service string) ([]Target, error) // of the service discovery; nil for none
	Callback  func(ctx context.Context, h http.Header, body []byte) error // takes a signed message of a payment provider; nil for none
	Memory    *membudget.Budget                                           // for request bodies and responses
	OnError   func(context.Context, error)                                // called with errors of requests that the executor does not report
	OnUnknown func(ctx context.Context, method, path string)              // called for each call of a path that is not served; may be nil
}

// Server serves the API. Make one with New.
type Server struct {
	cfg             Config
	deps            Deps
	exec            *executor.Executor
	log             *slog.Logger
	operations      *slots // one for each operation that runs
	authentications *slots // one for each credential that is checked: a check may wait for the database
	connections     *connection.Manager
	websockets      *websocket.Server
	events          *sse.Server
	graphiql        static.Files
	draining        atomic.Bool
	proxyWarned     atomic.Bool
	handler         http.Handler
}

// New returns a Server that serves nothing until Run is called.
func New(cfg Config, exec *executor.Executor, deps Deps, log *slog.Logger) (*Server, error) {
	if exec == nil || log == nil {
		return nil, errors.New("httpd: executor and log are required")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, deps: deps, exec: exec, log: log,
		operations:      newSlots(cfg.Operations, cfg.Operations/callerPart, cfg.QueueTime),
		authentications: newSlots(cfg.Operations, 0, cfg.QueueTime), // many users may come from one address
	}
	if s.graphiql, err = static.Load(graphiqlFiles, "graphiql"); err != nil {
		return nil, err
	}
	if s.connections, err = s.newConnections(); err != nil {
		return nil, err
	}
	s.websockets, s.events = websocket.New(s.connections), sse.New(s.connections)
	chain, err := s.middleware()
	if err != nil {
		return nil, err
	}
	s.handler = wrap(chain, s.mux())
	return s, nil
}

func (s *Server) newConnections() (*connection.Manager, error) {
	cfg, deps := s.cfg.Streams, connection.Deps{Authenticate: s.authenticateMessage, AcquireSlot: s.operations.acquire, Memory: s.deps.Memory, OnError: s.deps.OnError}
	if a, ok := s.deps.Auth.(RevocationFollower); ok {
		deps.AwaitRevocations = a.AwaitRevocations
	}
	return connection.New(cfg, s.exec, deps, s.log)
}

// Recheck makes the WebSockets, event streams and gateway calls that the revocation concerns
// check their credentials at once. It does not block.
func (s *Server) Recheck(r auth.Revocation) { s.connections.Recheck(r) }

// Handler returns the handler of all requests, for a server of the caller's own.
func (s *Server) Handler() http.Handler { return s.handler }

// handlers returns the handlers of this package, by pattern.
func (s *Server) handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/graphql":                   s.handleErrors(s.serveGraphQL, graphQLErrorFormat),
		"GET /healthz":               s.handleErrors(s.serveHealth, problemFormat),
		"GET /readyz":                s.handleErrors(s.serveReady, problemFormat),
		"GET /.well-known/jwks.json": s.handleErrors(s.serveJWKS, problemFormat),
		schemaPage:                   s.handleErrors(s.serveSchema, problemFormat),
		securityPage:                 s.handleErrors(s.serveSecurityTxt, problemFormat),
		discoveryPage:                s.handleErrors(s.serveDiscovery, problemFormat),
		CallbackPath:                 s.handleErrors(s.serveCallback, problemFormat),
		graphiqlPage:                 s.handleErrors(s.serveGraphiQL, problemFormat),
		graphiqlFile:                 s.handleErrors(s.serveGraphiQLFile, problemFormat),
		"/":                          s.handleErrors(s.serveNotFound, problemFormat),
	}
}

// Reserved returns the patterns of net/http that legacy REST routes may not have.
func Reserved() []string {
	return append(slices.Collect(maps.Keys((*Server)(nil).handlers())), gatewayPrefix)
}

func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range s.handlers() {
		if !s.cfg.HideDocs || !isDocs(pattern) {
			mux.HandleFunc(pattern, serve)
		}
	}
	if s.deps.REST == nil {
		return mux
	}
	for _, pattern := range s.deps.REST.Patterns() {
		mux.HandleFunc(pattern, s.handleErrors(s.serveREST, problemFormat))
	}
	if s.cfg.HideDocs {
		return mux
	}
	for _, pattern := range s.deps.REST.Pages() {
		mux.HandleFunc(pattern, s.deps.REST.ServePage)
	}
	return mux
}

// isDocs reports whether the handler of the pattern serves GraphiQL.
func isDocs(pattern string) bool { return pattern == graphiqlPage || pattern == graphiqlFile }

// Run serves connections from the listener, which it closes, until ctx is cancelled; then it
// closes WebSockets and event streams over the DrainWindow, lets the requests in flight
// finish, for at most DrainTime in all, and returns nil. It returns an error if it can no
// longer accept connections.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx)) // requests outlive ctx by the drain time
	defer cancel()
	limiter := connlimit.New(s.cfg.OpenConnections, s.cfg.AddressConnections, s.isTrustedProxy)
	go s.reportRefusals(base, limiter)
	go s.connections.Monitor(base)
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.cfg.HeaderTime,
		IdleTimeout:       s.cfg.IdleTime,
		MaxHeaderBytes:    2 * s.cfg.HeaderBytes, // limitHeaderBytes answers before
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState:         limiter.ConnState,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	return s.drain(base, srv)
}

func (s *Server) drain(base context.Context, srv *http.Server) error {
	s.AnnounceStop()
	ctx, cancel := context.WithTimeout(base, s.cfg.DrainTime)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		if err := s.connections.Drain(ctx, s.cfg.DrainWindow); err != nil {
			s.log.WarnContext(base, "drain time is over: websockets and event streams were cut", "error", err)
			s.connections.Close()
		}
	}()
	defer func() { <-drained }()
	if err := srv.Shutdown(ctx); err != nil {
		s.log.WarnContext(base, "drain time is over: requests were cut", "error", err)
		_ = srv.Close() // its listener is closed already; the connections that may fail to close are those we cut
	}
	if s.deps.Gateway == nil {
		return nil
	}
	if err := s.deps.Gateway.Drain(ctx); err != nil { // upgraded connections are no requests any more
		s.log.WarnContext(base, "drain time is over: gateway calls were cut", "error", err)
	}
	return nil
}

// refusalInterval is the time between two log records of refused connections.
const refusalInterval = 10 * time.Second

// reportRefusals logs how many connections the limiter refused, until ctx ends.
func (s *Server) reportRefusals(ctx context.Context, limiter *connlimit.Limiter) {
	tick := time.NewTicker(refusalInterval)
	defer tick.Stop()
	var reported uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n := limiter.Refused(); n > reported {
			s.log.WarnContext(ctx, "connections refused or closed while idle: the server or an address has too many open (BACKPLANE_LIMIT_OPEN_CONNECTIONS, BACKPLANE_LIMIT_ADDRESS_CONNECTIONS)", "connections", n-reported)
			reported = n
		}
	}
}
