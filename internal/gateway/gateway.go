// Package gateway owns what goes out of the server to services: one guarded
// dialer, and what calls through it: checks of instances, and the calls that the gateway
// passes on.
//
// URLs of instances are given by whoever may register one, so nothing of a URL
// is believed: which address it comes to is looked at when the connection is
// made, after names were resolved, so that a name whose address changes between a
// check and the call gains nothing. Redirects are not followed, proxies of the environment not used.
//
// Nor is a service believed that ADMIN does not trust. It gets no credentials of its callers, and
// what it answers must not act as the server itself in a browser. Who may call
// which service is a rule of package registry, which instance gets a call one of package balance.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/registry"
)

// Config tunes a Gateway. The zero value is ready to use.
type Config struct {
	ConnectTime     time.Duration // to connect to an instance, TLS included; default 2 s
	FirstByteTime   time.Duration // from the whole request to the header of its answer; default 30 s
	IdleTime        time.Duration // without a byte either way; default 5 min
	TotalTime       time.Duration // of a whole call, retries included; default 10 min
	StreamTime      time.Duration // in its place for event streams and upgraded connections; default 0, for ever
	BodyTime        time.Duration // to receive a body that is small enough to be kept; default 10 s
	BodyBytes       int64         // longest request body; default 100 MiB
	Calls           int           // that are open at once; default 10,000
	CallerCalls     int           // of them, those of one caller, or of one address of strangers; default 2,500
	Attempts        int           // of one call, on different instances; default 3
	BufferedBytes   int64         // longest body that is kept for another attempt; default 64 KiB
	RetryShare      float64       // retries for each call of the last ten seconds; default 0.2
	RetryMinimum    int           // retries within ten seconds that are always allowed; default 100
	CircuitFailures int           // calls in a row without an answer that open the circuit of an instance; default 5
	CircuitTime     time.Duration // until one call may try it again; default 1 s
}

func (c Config) withDefaults() (Config, error) {
	if min(c.ConnectTime, c.FirstByteTime, c.IdleTime, c.TotalTime, c.StreamTime, c.BodyTime, c.CircuitTime) < 0 {
		return c, fmt.Errorf("gateway config: times must not be negative: %+v", c)
	}
	if min(c.BodyBytes, c.BufferedBytes) < 0 || min(c.Calls, c.CallerCalls, c.Attempts, c.RetryMinimum, c.CircuitFailures) < 0 || c.RetryShare < 0 {
		return c, fmt.Errorf("gateway config: sizes and counts must not be negative: %+v", c)
	}
	c.ConnectTime = cmp.Or(c.ConnectTime, 2*time.Second)
	c.FirstByteTime = cmp.Or(c.FirstByteTime, 30*time.Second)
	c.IdleTime = cmp.Or(c.IdleTime, 5*time.Minute)
	c.TotalTime = cmp.Or(c.TotalTime, 10*time.Minute)
	c.BodyTime = cmp.Or(c.BodyTime, 10*time.Second)
	c.BodyBytes = cmp.Or(c.BodyBytes, 100<<20)
	c.Calls = cmp.Or(c.Calls, 10_000)
	c.CallerCalls = cmp.Or(c.CallerCalls, 2_500)
	c.Attempts = cmp.Or(c.Attempts, 3)
	c.BufferedBytes = cmp.Or(c.BufferedBytes, 64<<10)
	c.RetryShare = cmp.Or(c.RetryShare, 0.2)
	c.RetryMinimum = cmp.Or(c.RetryMinimum, 100)
	c.CircuitFailures = cmp.Or(c.CircuitFailures, 5)
	c.CircuitTime = cmp.Or(c.CircuitTime, time.Second)
	return c, nil
}

// Tokens makes the token that tells a service who is calling.
type Tokens func(ctx context.Context, caller *auth.Principal, service string) (string, error)

// Deps are what a Gateway works with. All are needed.
type Deps struct {
	Guard     *Guard
	Directory *registry.Directory
	Pool      *balance.Pool
	Tokens    Tokens
}

// Gateway passes HTTP requests on to instances of services. It is safe for concurrent
// use.
type Gateway struct {
	deps      Deps
	cfg       Config
	log       *slog.Logger
	transport http.RoundTripper
	proxy     *httputil.ReverseProxy
	semaphore callSemaphore
	retries   retryBudgets
	breakers  circuitBreakers
	metrics   metrics
}

// New returns a Gateway. It owns the connections that it makes to instances.
func New(deps Deps, log *slog.Logger, cfg Config) (*Gateway, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if deps.Guard == nil || deps.Directory == nil || deps.Pool == nil || deps.Tokens == nil || log == nil {
		return nil, errors.New("gateway: something that it needs is missing")
	}
	g := &Gateway{deps: deps, cfg: cfg, log: log, transport: newTransport(deps.Guard, cfg)}
	g.semaphore = callSemaphore{total: cfg.Calls, perCaller: cfg.CallerCalls}
	g.retries = retryBudgets{share: cfg.RetryShare, minimum: cfg.RetryMinimum}
	g.breakers = circuitBreakers{threshold: cfg.CircuitFailures, openTime: cfg.CircuitTime, opened: &g.metrics.opened}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        rewriteRequest,
		Transport:      retryTransport{},
		ModifyResponse: filterResponse,
		ErrorHandler:   writeFailure,
		BufferPool:     &bufferPool{},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return g, nil
}

// ServeHTTP passes a request for /gateway/SERVICE/… on, whose context says who is
// calling. Its X-Forwarded-* and Forwarded headers are believed: who serves it
// takes out what must not be.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := g.admit(w, r)
	if err != nil {
		g.metrics.refused.Add(1)
		problem.Write(w, r, g.log, err)
		return
	}
	defer c.finish()
	g.proxy.ServeHTTP(c.writer, r.WithContext(c.ctx))
}

// Drain waits until no call is open; upgraded connections are calls too. Its error is that
// of ctx.
func (g *Gateway) Drain(ctx context.Context) error {
	select {
	case <-g.semaphore.drained():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newTransport returns the transport to instances. Connections are kept for each of them, and
// given up before a server that keeps them for half a minute does.
func newTransport(guard *Guard, cfg Config) *http.Transport {
	t := guard.Transport()
	t.DialContext = limitConnect(guard, cfg.ConnectTime)
	t.TLSHandshakeTimeout = cfg.ConnectTime
	t.ResponseHeaderTimeout = cfg.FirstByteTime
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 2048, 256
	t.IdleConnTimeout = 25 * time.Second
	t.DisableCompression = true // what an instance encodes is the caller's to decode
	return t
}

// bufferPool are what answers are copied through.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get implements httputil.BufferPool.
func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
