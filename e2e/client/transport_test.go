package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/client"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// echo is an instance that says its name and what it was asked.
func echo(t *testing.T, id string, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Instance", id)
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func ok(http.ResponseWriter, *http.Request) {}

// fleet is a registry with instances of one service, and an HTTP client that
// balances over them.
type fleet struct {
	*registry
	owner *client.Client
	watch *client.Watch
	http  *http.Client
}

func newFleet(t *testing.T, strategy client.Strategy, cfg client.TransportConfig, instances map[string]*httptest.Server) *fleet {
	t.Helper()
	f := &fleet{registry: startRegistry(t)}
	f.owner = f.define(client.Service{Name: "till"})
	for id, s := range instances {
		reg := tillInstance(id)
		reg.URL, reg.TTL = s.URL+"/base", 30*time.Second
		register(t, f.owner, reg)
	}
	f.watch = watch(t, f.owner, "till")
	until(t, f.watch, "all are there", func(s *client.Set) bool { return len(s.Instances) == len(instances) })
	b, err := client.NewBalancer(f.watch, strategy)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := client.NewTransport(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	f.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return f
}

// call sends a request and returns the id of the instance that answered, and the status.
func (f *fleet) call(t *testing.T, method, body string, header ...string) (instance string, status int, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://till/hello%2Fworld?q=1", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", 0, err
	}
	return resp.Header.Get("Instance"), resp.StatusCode, nil
}

func TestTransport_spreads_requests_over_the_instances(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	handle := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen.Store(fmt.Sprint(r.Method, " ", r.URL.RequestURI(), " ", r.Host != "till", " ", string(body)))
	}
	f := newFleet(t, "", client.TransportConfig{}, map[string]*httptest.Server{"a": echo(t, "a", handle), "b": echo(t, "b", handle)})
	counts := map[string]int{}
	for range 20 {
		instance, status, err := f.call(t, http.MethodPost, "the body")
		if err != nil || status != http.StatusOK {
			t.Fatalf("status %d, %v", status, err)
		}
		counts[instance]++
	}
	if counts["a"] != 10 || counts["b"] != 10 {
		t.Errorf("20 requests went to %v, want 10 each", counts)
	}
	if want := "POST /base/hello%2Fworld?q=1 true the body"; seen.Load() != want {
		t.Errorf("the instance saw %q, want %q", seen.Load(), want)
	}
}

func TestTransport_keeps_what_belongs_together(t *testing.T) {
	t.Parallel()
	cfg := client.TransportConfig{Key: func(r *http.Request) string { return r.Header.Get("User") }}
	f := newFleet(t, client.ConsistentHash, cfg, map[string]*httptest.Server{"a": echo(t, "a", ok), "b": echo(t, "b", ok), "c": echo(t, "c", ok)})
	used := map[string]bool{}
	for user := range 30 {
		first, _, err := f.call(t, http.MethodGet, "", "User", fmt.Sprint("user-", user))
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := f.call(t, http.MethodGet, "", "User", fmt.Sprint("user-", user))
		if err != nil || again != first {
			t.Errorf("user %d was at %s, then at %s, %v", user, first, again, err)
		}
		used[first] = true
		picked := f.do(`mutation($k: String!) { pickInstance(input: {service: "till", strategy: CONSISTENT_HASH, key: $k}) { instance { instanceId } userErrors { code } } }`, map[string]any{"k": fmt.Sprint("user-", user)})
		if server := find[string](picked, "pickInstance", "instance", "instanceId"); server != first {
			t.Errorf("user %d goes to %s here, and to %s by the server's choice", user, first, server)
		}
	}
	if len(used) != 3 {
		t.Errorf("30 users used only %v", used)
	}
}

// TestTransport_repeats_only_what_is_safe has one instance that fails in some way
// and one that does not.
func TestTransport_repeats_only_what_is_safe(t *testing.T) {
	t.Parallel()
	cut := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	tests := map[string]struct {
		bad    http.HandlerFunc // nil: its listener is closed
		method string
		header []string
		calls  int64 // of the good one, of eight
		fails  bool  // whether any of the others is seen to fail
	}{
		"a GET whose connection breaks":             {cut, http.MethodGet, nil, 8, false},
		"a POST whose connection breaks":            {cut, http.MethodPost, nil, 4, true},
		"a POST with a key whose connection breaks": {cut, http.MethodPost, []string{"Idempotency-Key", "k"}, 8, false},
		"a POST to a closed listener":               {nil, http.MethodPost, nil, 8, false},
		"a PUT that is answered 503":                {status(http.StatusServiceUnavailable), http.MethodPut, nil, 8, false},
		"a POST that is answered 503":               {status(http.StatusServiceUnavailable), http.MethodPost, nil, 4, true},
		"a GET that is answered 500":                {status(http.StatusInternalServerError), http.MethodGet, nil, 4, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			good := echo(t, "good", func(http.ResponseWriter, *http.Request) { calls.Add(1) })
			bad := echo(t, "bad", ok)
			if tt.bad != nil {
				bad = echo(t, "bad", tt.bad)
			} else {
				bad.Close()
			}
			f := newFleet(t, client.RoundRobin, client.TransportConfig{}, map[string]*httptest.Server{"good": good, "bad": bad})
			failed := false
			for range 8 { // before any instance is ejected
				if _, status, err := f.call(t, tt.method, "body", tt.header...); err != nil || status != http.StatusOK {
					failed = true
				}
			}
			if got := calls.Load(); got != tt.calls || failed != tt.fails {
				t.Errorf("the good one answered %d of 8, failures seen: %v; want %d, %v", got, failed, tt.calls, tt.fails)
			}
		})
	}
}

func TestTransport_ejects_who_fails(t *testing.T) {
	t.Parallel()
	var bad atomic.Int64
	failing := echo(t, "bad", func(w http.ResponseWriter, _ *http.Request) {
		bad.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	f := newFleet(t, client.LeastConnections, client.TransportConfig{}, map[string]*httptest.Server{"bad": failing, "a": echo(t, "a", ok), "b": echo(t, "b", ok)})
	for range 60 {
		if _, _, err := f.call(t, http.MethodGet, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := bad.Load(); got != 5 {
		t.Errorf("the instance that always fails got %d of 60 requests, want 5", got)
	}
}

func TestTransport_bounds_its_retries(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	down := func(w http.ResponseWriter, _ *http.Request) {
		sent.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	cfg := client.TransportConfig{Budget: 0.1, Burst: 5, Attempts: 2}
	f := newFleet(t, client.Random, cfg, map[string]*httptest.Server{"a": echo(t, "a", down), "b": echo(t, "b", down)})
	for range 100 {
		if _, status, err := f.call(t, http.MethodGet, ""); err != nil || status != http.StatusServiceUnavailable {
			t.Fatalf("status %d, %v: want what the instance said", status, err)
		}
	}
	if got := sent.Load() - 100; got < 10 || got > 15 {
		t.Errorf("100 requests that all failed made %d retries, want 5 and a tenth of them", got)
	}
}

// TestTransport_hides_the_death_of_an_instance kills one of three instances while
// many callers send requests that may be repeated.
func TestTransport_hides_the_death_of_an_instance(t *testing.T) {
	t.Parallel()
	dying := echo(t, "dying", func(w http.ResponseWriter, _ *http.Request) { time.Sleep(time.Millisecond) })
	f := newFleet(t, client.PowerOfTwo, client.TransportConfig{}, map[string]*httptest.Server{"dying": dying, "a": echo(t, "a", ok), "b": echo(t, "b", ok)})
	var wg sync.WaitGroup
	var answered atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, status, err := f.call(t, http.MethodGet, ""); err != nil || status != http.StatusOK {
					t.Errorf("a caller saw status %d, %v", status, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	testenv.Eventually(t, "calls are under way", func() bool { return answered.Load() > 300 })
	dying.CloseClientConnections()
	dying.Listener.Close()
	dying.CloseClientConnections()
	after := answered.Load()
	testenv.Eventually(t, "calls go on", func() bool { return answered.Load() > after+1000 })
	cancel()
	wg.Wait()
}

func TestTransport_without_instances(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "", client.TransportConfig{}, nil)
	if _, _, err := f.call(t, http.MethodPost, "body"); !errors.Is(err, client.ErrNoInstance) {
		t.Errorf("a request gave %v, want ErrNoInstance", err)
	}
}

// TestTransport_goes_on_without_the_registry kills the server for good.
func TestTransport_goes_on_without_the_registry(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "", client.TransportConfig{}, map[string]*httptest.Server{"a": echo(t, "a", ok), "b": echo(t, "b", ok)})
	f.Kill()
	until(t, f.watch, "the set is stale", func(s *client.Set) bool { return !s.Stale.IsZero() })
	for range 20 {
		if _, status, err := f.call(t, http.MethodGet, ""); err != nil || status != http.StatusOK {
			t.Fatalf("without the registry: status %d, %v", status, err)
		}
	}
}

func TestTransport_carries_connections_that_switch(t *testing.T) {
	t.Parallel()
	upgrade := func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: loud\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprint(rw, strings.ToUpper(line))
		rw.Flush()
	}
	f := newFleet(t, "", client.TransportConfig{}, map[string]*httptest.Server{"a": echo(t, "a", upgrade)})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://till/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "loud")
	resp, err := f.http.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	both, ok := resp.Body.(io.ReadWriter)
	if !ok {
		t.Fatalf("the body is a %T, which cannot be written to", resp.Body)
	}
	fmt.Fprint(both, "hello\n")
	if line, _ := bufio.NewReader(both).ReadString('\n'); line != "HELLO\n" {
		t.Errorf("the instance said %q", line)
	}
}

func TestTransport_waits_no_longer_than_the_caller(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	stuck := echo(t, "stuck", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	f := newFleet(t, "", client.TransportConfig{}, map[string]*httptest.Server{"stuck": stuck})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://till/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.http.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it gave %v", err)
	}
}

func TestTransport_ejects_who_never_answers_in_time(t *testing.T) {
	t.Parallel()
	stuck, release := holding(t, http.StatusOK, false)
	defer release()
	f := newFleet(t, client.RoundRobin, client.TransportConfig{}, map[string]*httptest.Server{"stuck": stuck, "good": echo(t, "good", ok)})
	f.http.Timeout = 100 * time.Millisecond
	late := 0
	for range 60 {
		if _, _, err := f.call(t, http.MethodPost, ""); err != nil {
			late++
		}
	}
	if late == 0 || late > 15 {
		t.Errorf("%d of 60 calls were late, want some until the instance is ejected", late)
	}
}

func TestTransport_does_not_wait_for_the_rest_of_an_answer_that_it_drops(t *testing.T) {
	t.Parallel()
	busy, release := holding(t, http.StatusServiceUnavailable, true)
	defer release()
	f := newFleet(t, client.RoundRobin, client.TransportConfig{}, map[string]*httptest.Server{"busy": busy, "good": echo(t, "good", ok)})
	for range 4 {
		if instance, status, err := f.call(t, http.MethodGet, ""); instance != "good" || err != nil {
			t.Errorf("%s answered %d, %v; want the other instance", instance, status, err)
		}
	}
}

// holding is an instance that does not end its answer, or not even begin it, before
// the release.
func holding(t *testing.T, status int, begun bool) (s *httptest.Server, release func()) {
	t.Helper()
	released := make(chan struct{})
	s = echo(t, "holding", func(w http.ResponseWriter, _ *http.Request) {
		if begun {
			w.WriteHeader(status)
			_ = http.NewResponseController(w).Flush()
		}
		<-released
	})
	return s, func() { close(released) }
}
