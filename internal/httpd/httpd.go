// Package httpd owns what answers HTTP: the mux and its middleware, GraphQL
// over HTTP, GraphiQL, health, and the graceful end of a server. Sockets and
// event streams are found here and served by package connection.
//
// A request passes a request id, its deadlines, the access log, recovery from
// panics, headers and compression before it reaches its route. Its size, the time its sender
// may take and the number of operations at once are bounded here; what a
// GraphQL document may ask for is bounded by package operation. No cookie is
// ever read or set.
package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/static"
)

// Config tunes a Server. The zero value is ready to use.
type Config struct {
	BodyBytes       int64             // longest request body; default 1 MiB
	BodyTime        time.Duration     // to receive a body; default 10 s
	HeaderBytes     int               // longest request header; default 32 KiB
	HeaderTime      time.Duration     // to receive a header; default 5 s
	IdleTime        time.Duration     // between two requests of a connection; default 2 min
	WriteTime       time.Duration     // to send a response; default 30 s
	DrainTime       time.Duration     // for requests in flight once the server stops; default 10 s
	DrainWindow     time.Duration     // of it, over which sockets and event streams are closed; default half
	Operations      int               // GraphQL requests that run at once; default 256
	QueueTime       time.Duration     // that a request waits for its turn before SERVER_BUSY; default 1 s
	Batch           int               // operations in one array; default 0, no arrays
	AllowedOrigins  []string          // whose pages may call from a browser, "*" for all; default none but our own
	TrustedProxies  []netip.Prefix    // whose X-Forwarded-For counts; default none
	TrustedNetworks []TrustedNetwork  // whose programs need no credentials for routes; default none
	Streams         connection.Config // of sockets and event streams; their MessageTime defaults to BodyTime
}

func (c Config) withDefaults() (Config, error) {
	if c.BodyBytes < 0 || c.HeaderBytes < 0 || c.Operations < 0 || c.Batch < 0 {
		return c, fmt.Errorf("httpd config: sizes and counts must not be negative: %+v", c)
	}
	c.BodyBytes = cmp.Or(c.BodyBytes, 1<<20)
	c.HeaderBytes = cmp.Or(c.HeaderBytes, 32<<10)
	c.Operations = cmp.Or(c.Operations, 256)
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.BodyTime, 10 * time.Second},
		{&c.HeaderTime, 5 * time.Second},
		{&c.IdleTime, 2 * time.Minute},
		{&c.WriteTime, 30 * time.Second},
		{&c.DrainTime, 10 * time.Second},
		{&c.QueueTime, time.Second},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("httpd config: times must not be negative: %+v", c)
		}
		*d.value = cmp.Or(*d.value, d.fallback)
	}
	if c.DrainWindow = cmp.Or(c.DrainWindow, c.DrainTime/2); c.DrainWindow < 0 || c.DrainWindow > c.DrainTime {
		return c, fmt.Errorf("httpd config: the drain window must be within the drain time of %s, but is %s", c.DrainTime, c.DrainWindow)
	}
	c.Streams.MessageTime = cmp.Or(c.Streams.MessageTime, c.BodyTime)
	return c, nil
}

// Authenticator tells who presents a bearer token.
type Authenticator interface {
	// Authenticate returns the token's principal. An Unauthenticated error
	// means that the token is not good; other errors, that nobody can say.
	Authenticate(ctx context.Context, bearer string) (*auth.Principal, error)
}

// Expirer is an Authenticator that knows when tokens end. Streams then end with
// the words that the token has expired; without it they are ended as well, since
// Authenticate is asked again.
type Expirer interface {
	// Expiry returns when a token that Authenticate takes ends, zero if that is
	// not known.
	Expiry(bearer string) time.Time
}

// LastKnownAuthenticator tells of an Authenticator who presented a token when that could last
// be told, nil if nobody did. While Authenticate is UNAVAILABLE requests go on as
// auth.WithLastKnown: for the few things that need no database.
type LastKnownAuthenticator interface {
	LastKnown(bearer string) *auth.Principal
}

// TicketAuthenticator lets those open an event stream who cannot send headers,
// such as a browser's EventSource.
type TicketAuthenticator interface {
	// AuthenticateTicket returns what the ticket says. A ticket must work again
	// while it lives, since browsers reconnect with it. An Unauthenticated error
	// means that the ticket is not good.
	AuthenticateTicket(ctx context.Context, ticket string) (Ticket, error)
}

// Ticket is what a ticket says: for whom it was made, and for which request, the
// only one that it is good for.
type Ticket struct {
	Caller  connection.Caller
	Request executor.Request
}

// Deps are what a Server asks others. Nil means: nobody can sign in, there are
// no tickets, no routes, no gateway, always ready, no keys to publish.
type Deps struct {
	Auth    Authenticator // may be an Expirer
	Tickets TicketAuthenticator
	REST    RESTHandler
	Gateway Gateway
	Ready   func(ctx context.Context) error // an error says what is missing, in words for an operator
	JWKS    func() []byte                   // the public keys as a JSON Web Key Set
}

// Server serves the API. Make one with New.
type Server struct {
	cfg      Config
	deps     Deps
	exec     *executor.Executor
	log      *slog.Logger
	slots    chan struct{}
	streams  *connection.Server
	assets   static.Files // of GraphiQL
	draining atomic.Bool
	handler  http.Handler
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
	s := &Server{cfg: cfg, deps: deps, exec: exec, log: log, slots: make(chan struct{}, cfg.Operations)}
	if s.assets, err = static.Load(graphiqlFiles, "graphiql"); err != nil {
		return nil, err
	}
	if s.streams, err = connection.New(cfg.Streams, exec, connection.Deps{Authenticate: s.identify, AcquireSlot: s.acquire}, log); err != nil {
		return nil, err
	}
	if s.cfg.TrustedNetworks, err = orderNetworks(s.cfg.TrustedNetworks); err != nil {
		return nil, err
	}
	s.handler, err = s.middleware(s.routes())
	return s, err
}

// Recheck makes sockets and event streams look at their credentials at once, if
// their principals are concerned by what has happened, such as a revocation. It
// does not block.
func (s *Server) Recheck(concerns func(*auth.Principal) bool) { s.streams.Recheck(concerns) }

// Handler returns what answers all requests, for a server of the caller's own.
func (s *Server) Handler() http.Handler { return s.handler }

// own returns what this package serves, by pattern.
func (s *Server) own() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/graphql":                   s.serveGraphQL,
		"GET /healthz":               s.serveHealth,
		"GET /readyz":                s.serveReady,
		"GET /.well-known/jwks.json": s.serveJWKS,
		"GET /{$}":                   s.serveGraphiQL,
		"GET /graphiql/{file}":       s.serveAsset,
		"/":                          s.serveNothing,
	}
}

// Reserved returns the patterns of net/http that are not for routes.
func Reserved() []string {
	return append(slices.Collect(maps.Keys((*Server)(nil).own())), gatewayPrefix)
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range s.own() {
		mux.HandleFunc(pattern, serve)
	}
	if s.deps.REST == nil {
		return mux
	}
	for _, pattern := range s.deps.REST.Patterns() {
		mux.HandleFunc(pattern, s.serveRoute)
	}
	for _, pattern := range s.deps.REST.Pages() {
		mux.HandleFunc(pattern, s.deps.REST.ServePage)
	}
	return mux
}

// Run serves connections from the listener, which it closes, until ctx is
// cancelled; then it closes sockets and event streams over the DrainWindow, lets
// the requests in flight end, for at most DrainTime in all, and returns nil. It returns an error if it can no longer accept connections.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx)) // requests outlive ctx by the drain time
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.cfg.HeaderTime,
		IdleTimeout:       s.cfg.IdleTime,
		MaxHeaderBytes:    2 * s.cfg.HeaderBytes, // see bounded
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
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
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(base, s.cfg.DrainTime)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		if err := s.streams.Drain(ctx, s.cfg.DrainWindow); err != nil {
			s.log.WarnContext(base, "sockets were cut at the end of the drain time", "error", err)
			s.streams.Close()
		}
	}()
	defer func() { <-drained }()
	if err := srv.Shutdown(ctx); err != nil {
		s.log.WarnContext(base, "requests were cut at the end of the drain time", "error", err)
		_ = srv.Close() // its listener is closed already; what is left to fail is ours to cut
	}
	if s.deps.Gateway == nil {
		return nil
	}
	if err := s.deps.Gateway.Drain(ctx); err != nil { // connections of other protocols are no requests any more
		s.log.WarnContext(base, "calls of services were cut at the end of the drain time", "error", err)
	}
	return nil
}
