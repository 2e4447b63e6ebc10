package gateway

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/validate"
)

// world is a Gateway that serves on a real port, in front of instances that do.
type world struct {
	t         *testing.T
	gateway   *Gateway
	directory *registry.Directory
	pool      *balance.Pool
	front     *httptest.Server
	services  map[string]*registry.Service
	lag       time.Duration

	mu  sync.Mutex
	who *auth.Principal // who is calling; nil for a stranger
}

type nothing struct{ registry.Store }

func (nothing) Load(context.Context) ([]*registry.Service, []*registry.Instance, error) {
	return nil, nil, nil
}

// Lag and Head implement registry.Reader.
func (w *world) Lag() time.Duration { return w.lag }
func (w *world) Head() event.Cursor { return event.Cursor{} }

var ada = &auth.Principal{UserID: "usr_ada", SessionID: "ses_1", Roles: []auth.Role{auth.Customer}}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, who: ada, services: map[string]*registry.Service{}}
	log := slog.New(slog.DiscardHandler)
	w.directory = registry.NewDirectory(nothing{}, w, time.Now, log)
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
	guard := NewGuard(Policy{AllPrivate: true}, nil)
	if w.gateway, err = New(Deps{Guard: guard, Directory: w.directory, Pool: w.pool, Tokens: tokens}, log, cfg); err != nil {
		t.Fatal(err)
	}
	w.front = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.front.Close)
	return w
}

// serve is what the server does before the gateway gets a request.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	who := w.who
	w.mu.Unlock()
	ctx := requestlog.WithRequestID(auth.WithClient(r.Context(), auth.Client{Address: "192.0.2.1"}), "req-1")
	if who != nil {
		ctx = auth.With(ctx, who)
	}
	rw.Header().Set("X-Content-Type-Options", "nosniff")
	rw.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.gateway.ServeHTTP(rw, r.WithContext(ctx))
}

func (w *world) call(who *auth.Principal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.who = who
}

// service registers a service with instances at the URLs.
func (w *world) service(in registry.ServiceInput, c registry.ServiceChange, urls ...string) {
	w.t.Helper()
	s, err := registry.NewService(in, time.Now())
	if err == nil {
		err = s.Apply(c, time.Now())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.services[in.Name] = s
	w.directory.TakeService(s)
	for _, u := range urls {
		w.instance(in.Name, u)
	}
}

func (w *world) instance(service, url string) *registry.Instance {
	w.t.Helper()
	i, err := registry.NewInstance(w.services[service].ID, registry.InstanceInput{InstanceID: strings.NewReplacer("/", "-", ":", "-").Replace(url), URL: url}, time.Now().Add(-time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	w.directory.TakeInstance(i)
	return i
}

// echo registers the service echo with one instance for each handler.
func (w *world) echo(handlers ...http.HandlerFunc) {
	w.t.Helper()
	urls := make([]string, len(handlers))
	for n, h := range handlers {
		urls[n] = server(w.t, h)
	}
	w.service(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, urls...)
}

// server starts a server for the handler and returns its URL.
func server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func trusted() registry.ServiceChange { return registry.ServiceChange{Trusted: validate.Of(true)} }
func public() registry.ServiceChange  { return registry.ServiceChange{Public: validate.Of(true)} }

// reply is what a caller got.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// client never follows redirects, nor opens what is packed.
var client = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// do sends a request to the gateway.
func (w *world) do(method, path string, body io.Reader, header ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.front.URL+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return w.send(req)
}

func (w *world) send(req *http.Request) reply {
	w.t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text), err}
}

func (w *world) get(path string, header ...string) reply {
	w.t.Helper()
	return w.do(http.MethodGet, path, nil, header...)
}

// nowhere is the URL of a port that nobody listens on.
func nowhere(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL
}

// reset cuts the connection of a request before anything was answered.
func reset(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// within waits until it holds.
func within(t *testing.T, limit time.Duration, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain", limit)
		}
		<-time.After(10 * time.Millisecond)
	}
}
