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
// The Gateway does not trust an instance either, unless ADMIN named its address as one of a trusted service.
// Hop-by-hop headers stop here in both directions. No instance receives the caller's own token, but a
// short-lived service token, and its response headers cannot act for the server's origin in a browser.
//
// A retry is only made while nothing of a response has reached the caller, so it is never visible.
//
// Package registry decides who may call which service, package balance which instance gets a call.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/setting"
)

// Config tunes a Gateway. The zero value is ready to use; Settings says what each
// field means.
type Config struct {
	ConnectTime, FirstByteTime, IdleTime, TotalTime time.Duration
	StreamTime                                      time.Duration
	BodyTime                                        time.Duration
	BodyBytes, BufferedBytes                        int64
	Calls, CallerCalls                              int
	Attempts                                        int
	RetryShare                                      float64
	RetryMinimum                                    int
	CircuitFailures                                 int
	CircuitTime                                     time.Duration
}

// Settings declares the tunables.
func (c *Config) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Duration(&c.ConnectTime, "LIMIT_GATEWAY_CONNECT_TIME", 2*time.Second, "time to connect to an instance of a service, TLS included"),
		setting.Duration(&c.FirstByteTime, "LIMIT_GATEWAY_FIRST_BYTE_TIME", 30*time.Second, "time from the end of the request to the header of an instance's response"),
		setting.Duration(&c.IdleTime, "LIMIT_GATEWAY_IDLE_TIME", 5*time.Minute, "time after which a call, event stream or upgraded connection is ended that has no byte in either direction"),
		setting.Duration(&c.TotalTime, "LIMIT_GATEWAY_TOTAL_TIME", 10*time.Minute, "time of a whole call, retries included"),
		setting.Age(&c.StreamTime, "LIMIT_GATEWAY_STREAM_TIME", "the same for event streams and upgraded connections; `0s` for ever"),
		setting.Internal(&c.BodyTime, 10*time.Second, "time to receive a request body that is small enough to be buffered"),
		setting.Count(&c.BodyBytes, "LIMIT_GATEWAY_BODY_BYTES", 100<<20, "bytes of a request body"),
		setting.Count(&c.Calls, "LIMIT_GATEWAY_CALLS", 10_000, "calls, event streams and upgraded connections included, that are open on this node at the same time"),
		setting.Count(&c.CallerCalls, "LIMIT_GATEWAY_USER_CALLS", 2_500, "of them, those of one user, or of one address for anonymous callers"),
		setting.Internal(&c.Attempts, 3, "attempts per call, each on another instance"),
		setting.Internal(&c.BufferedBytes, 64<<10, "bytes of a request body that is buffered so that it can be sent again"),
		setting.Internal(&c.RetryShare, 0.2, "retry budget: retries for each call of the last ten seconds"),
		setting.Internal(&c.RetryMinimum, 100, "retries within ten seconds that the retry budget always allows"),
		setting.Internal(&c.CircuitFailures, 5, "attempts in a row without a response that open the circuit breaker of an instance"),
		setting.Internal(&c.CircuitTime, time.Second, "time until one call may probe an open circuit breaker"),
	}
}

func (c Config) withDefaults() (Config, error) {
	err := setting.ApplyDefaults("gateway config", c.Settings())
	return c, err
}

// Tokens issues the service token, which names the caller to a service.
type Tokens func(ctx context.Context, caller *auth.Principal, service string) (string, error)

// Deps are the dependencies of a Gateway. All but OnError are required.
type Deps struct {
	Guard     *Guard
	Directory *registry.Directory
	Pool      *balance.Pool
	Tokens    Tokens
	OnError   func(ctx context.Context, err error) // called with the errors of calls that are not forwarded
}

// Gateway forwards HTTP requests to instances of services. It is safe for concurrent use.
type Gateway struct {
	deps      Deps
	cfg       Config
	log       *slog.Logger
	transport http.RoundTripper
	proxy     *httputil.ReverseProxy
	semaphore callSemaphore
	public    publicCalls
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
	deps.Directory.OnServiceClosed(g.endPublicCalls)
	return g, nil
}

// ServeHTTP forwards a request for /gateway/SERVICE/…; its context names the caller. ServeHTTP trusts
// the X-Forwarded-* and Forwarded headers: the HTTP server strips untrusted ones before.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := g.admit(w, r)
	if err != nil {
		g.metrics.refused.Add(1)
		if g.deps.OnError != nil {
			g.deps.OnError(r.Context(), err)
		}
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
