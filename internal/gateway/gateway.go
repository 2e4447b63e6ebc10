// Package gateway owns outbound HTTP to registered services: the Guard, a dialer that protects
// against SSRF; the Prober, which runs health checks through it; and the Gateway, a reverse proxy
// that forwards callers' requests.
//
// A forwarded call passes, in this order:
//
//	semaphore        limits open calls, per node and per caller
//	pick             package balance chooses an instance; its outlier ejection has taken out bad ones
//	circuit breaker  skips instances that gave no response several times in a row
//	attempt          one request to one instance, through the guarded dialer
//	retry budget     allows another attempt only if the retries of the service stay a small share
//	timers           end the call when it is idle, or takes too long in total
//
// The caller that registers an instance chooses its URL, so the Guard trusts no URL: it checks the address
// at the moment of the connection, after name resolution, which defeats DNS rebinding. The package
// follows no redirects and uses no proxies of the environment.
//
// The Gateway does not trust a service either, unless ADMIN marked it trusted. Hop-by-hop headers stop
// here in both directions. An untrusted service receives no credentials of the caller but a short-lived
// service token, and its response headers cannot act for the server's origin in a browser.
//
// A retry is only made while nothing of a response has reached the caller, so it is never visible.
//
// Package registry decides who may call which service, package balance which instance gets a call.
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
	FirstByteTime   time.Duration // from the end of the request to the response header; default 30 s
	IdleTime        time.Duration // without a byte in either direction; default 5 min
	TotalTime       time.Duration // of a whole call, retries included; default 10 min
	StreamTime      time.Duration // replaces TotalTime for event streams and upgraded connections; default 0, no limit
	BodyTime        time.Duration // to receive a body that is small enough to be buffered; default 10 s
	BodyBytes       int64         // longest request body; default 100 MiB
	Calls           int           // open at once; default 10,000
	CallerCalls     int           // open at once of one caller, or of one address of anonymous callers; default 2,500
	Attempts        int           // per call, each on another instance; default 3
	BufferedBytes   int64         // longest body that is buffered so that it can be sent again; default 64 KiB
	RetryShare      float64       // retries for each call of the last ten seconds; default 0.2
	RetryMinimum    int           // retries within ten seconds that are always allowed; default 100
	CircuitFailures int           // attempts in a row without a response that open an instance's circuit breaker; default 5
	CircuitTime     time.Duration // until one call may probe an open circuit breaker; default 1 s
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

// Tokens issues the service token, which names the caller to a service.
type Tokens func(ctx context.Context, caller *auth.Principal, service string) (string, error)

// Deps are the dependencies of a Gateway. All are required.
type Deps struct {
	Guard     *Guard
	Directory *registry.Directory
	Pool      *balance.Pool
	Tokens    Tokens
}

// Gateway forwards HTTP requests to instances of services. It is safe for concurrent use.
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

// New returns a Gateway, which owns its connections to instances.
func New(deps Deps, log *slog.Logger, cfg Config) (*Gateway, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if deps.Guard == nil || deps.Directory == nil || deps.Pool == nil || deps.Tokens == nil || log == nil {
		return nil, errors.New("gateway: a dependency is missing")
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

// ServeHTTP forwards a request for /gateway/SERVICE/…; its context names the caller. ServeHTTP trusts
// the X-Forwarded-* and Forwarded headers: the HTTP server strips untrusted ones before.
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

// Drain waits until no call is open; upgraded connections count as calls. It returns the error of ctx.
func (g *Gateway) Drain(ctx context.Context) error {
	select {
	case <-g.semaphore.drained():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newTransport returns the transport to instances. It keeps idle connections for less time than a
// server with a keep-alive of half a minute, so that it rarely writes to a closed one.
func newTransport(guard *Guard, cfg Config) *http.Transport {
	t := guard.Transport()
	t.DialContext = limitConnect(guard, cfg.ConnectTime)
	t.TLSHandshakeTimeout = cfg.ConnectTime
	t.ResponseHeaderTimeout = cfg.FirstByteTime
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 2048, 256
	t.IdleConnTimeout = 25 * time.Second
	t.DisableCompression = true // the caller decodes what the instance encoded
	return t
}

// bufferPool holds the buffers that response bodies are copied through.
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
