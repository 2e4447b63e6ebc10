package gateway

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/validate"
)

// fixture is a Gateway on a real port, in front of instances on real ports.
type fixture struct {
	t         *testing.T
	gateway   *Gateway
	directory *registry.Directory
	pool      *balance.Pool
	front     *httptest.Server
	services  map[string]*registry.Service
	lag       time.Duration
	memory    *membudget.Budget // of request bodies; nil for no limit

	mu      sync.Mutex
	caller  *auth.Principal // of the next calls; nil for an anonymous one
	address string          // of the next calls
}

type emptyStore struct{ registry.Store }

func (emptyStore) Load(context.Context) ([]*registry.Service, []*registry.Instance, error) {
	return nil, nil, nil
}

// Lag and Head implement registry.Reader.
func (w *fixture) Lag() time.Duration { return w.lag }
func (w *fixture) Head() event.Cursor { return event.Cursor{} }

var ada = &auth.Principal{UserID: "usr_ada", Roles: []auth.Role{auth.Customer}, Credential: auth.SessionCredential("ses_1")}

func newFixture(t *testing.T, cfg Config) *fixture {
	t.Helper()
	w := &fixture{t: t, caller: ada, address: "192.0.2.1", services: map[string]*registry.Service{}}
	log := slog.New(slog.DiscardHandler)
	w.directory = registry.NewDirectory(emptyStore{}, w, time.Now, log)
	if err := w.directory.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.pool, err = balance.NewPool(time.Now, balance.Config{}); err != nil {
		t.Fatal(err)
	}
	tokens := func(_ context.Context, p *auth.Principal, service string) (string, error) {
		return "for-" + service + "-of-" + string(p.UserID), nil
	}
	guard := newGuard(t, Policy{AllPrivate: true}, nil)
	if w.gateway, err = New(Deps{Guard: guard, Directory: w.directory, Pool: w.pool, Tokens: tokens}, log, cfg); err != nil {
		t.Fatal(err)
	}
	w.front = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.front.Close)
	return w
}

func newGuard(t testing.TB, p Policy, resolver *net.Resolver) *Guard {
	t.Helper()
	g, err := NewGuard(p, resolver)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// serve does what the HTTP server does before it calls the gateway.
func (w *fixture) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	caller, address := w.caller, w.address
	w.mu.Unlock()
	ctx := requestlog.WithRequestID(auth.WithClient(r.Context(), auth.Client{Address: address}), "req-1")
	if caller != nil {
		ctx = auth.With(ctx, caller)
	}
	grant := w.memory.Open(ctx)
	defer grant.Release()
	ctx = membudget.WithGrant(ctx, grant)
	rw.Header().Set("X-Content-Type-Options", "nosniff")
	rw.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.gateway.ServeHTTP(rw, r.WithContext(ctx))
}

func (w *fixture) setCaller(caller *auth.Principal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.caller = caller
}

// setAnonymous makes the next calls those of an anonymous caller at the address.
func (w *fixture) setAnonymous(address string) {
	w.setCaller(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.address = address
}

// registerService registers a service with instances at the URLs.
func (w *fixture) registerService(in registry.ServiceInput, c registry.ServiceChange, urls ...string) {
	w.t.Helper()
	s, err := registry.NewService(in, time.Now())
	if err == nil {
		err = s.Apply(c, time.Now())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.services[in.Name] = s
	w.directory.ApplyService(s)
	for _, u := range urls {
		w.registerInstance(in.Name, u)
	}
}

func (w *fixture) registerInstance(service, url string) *registry.Instance {
	w.t.Helper()
	i, err := registry.NewInstance(w.services[service].ID, registry.InstanceInput{InstanceID: strings.NewReplacer("/", "-", ":", "-").Replace(url), URL: url}, time.Now().Add(-time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	w.directory.ApplyInstance(i)
	return i
}

// registerEcho registers the service echo with one instance for each handler.
func (w *fixture) registerEcho(handlers ...http.HandlerFunc) {
	w.t.Helper()
	urls := make([]string, len(handlers))
	for n, h := range handlers {
		urls[n] = startServer(w.t, h)
	}
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, urls...)
}

// startServer starts a server for the handler and returns its URL.
func startServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func trustedService() registry.ServiceChange {
	return registry.ServiceChange{Trusted: validate.Of(true), TrustedAddresses: validate.Of([]string{"127.0.0.0/8"})}
}
func publicService() registry.ServiceChange { return registry.ServiceChange{Public: validate.Of(true)} }

// response is what a caller received.
type response struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// client neither follows redirects nor decompresses.
var client = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// callLimit fails a call that none of the gateway's limits has ended.
const callLimit = 20 * time.Second

// do sends a request to the gateway.
func (w *fixture) do(method, path string, body io.Reader, header ...string) response {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), callLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.front.URL+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return w.send(req)
}

func (w *fixture) send(req *http.Request) response {
	w.t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		return response{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(text), err}
}

func (w *fixture) get(path string, header ...string) response {
	w.t.Helper()
	return w.do(http.MethodGet, path, nil, header...)
}

// closedPort returns the URL of a port without a listener.
func closedPort(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL
}

// resetConnection closes the connection before a response begins.
func resetConnection(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

func respondWith(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}
