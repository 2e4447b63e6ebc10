package gateway

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// cutResponse sends a part of a response and closes the connection.
func cutResponse(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, "part")
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestGateway_cuts_responses_that_the_instance_cut(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	chunked := func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, "part")
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
	for name, h := range map[string]http.HandlerFunc{"length": cutResponse, "chunked": chunked} {
		w.registerService(registry.ServiceInput{Name: name}, registry.ServiceChange{}, startServer(t, h), startServer(t, h))
		got := w.get("/gateway/" + name + "/")
		if got.status != http.StatusOK || got.body != "part" || got.err == nil {
			t.Errorf("%s: the caller got %d %q and the error %v, want one", name, got.status, got.body, got.err)
		}
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.Stats().InFlight == 0 })
	if s := w.gateway.Stats(); s.Cut != 2 || s.RetriedReset != 0 || s.OK != 0 {
		t.Errorf("Stats = %+v, want two cut and none retried", s)
	}
}

func TestGateway_ends_calls_that_reach_a_time_limit(t *testing.T) {
	t.Parallel()
	drip := func(rw http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(rw, "x")
			_ = http.NewResponseController(rw).Flush()
			<-time.After(10 * time.Millisecond)
		}
	}
	silent := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	pause := func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, "x")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}
	events := func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		drip(rw, r)
	}
	const short, long = 200 * time.Millisecond, time.Minute
	tests := []struct {
		name   string
		cfg    Config
		h      http.HandlerFunc
		status int // 0: cut after it began
	}{
		{"the first byte", Config{FirstByteTime: short}, silent, 504},
		{"nothing at all, in idle time", Config{IdleTime: short, FirstByteTime: long}, silent, 504},
		{"nothing at all, in total", Config{TotalTime: short, FirstByteTime: long}, silent, 504},
		{"silence after it began", Config{IdleTime: short}, pause, 0},
		{"an endless answer", Config{TotalTime: short}, drip, 0},
		{"an event stream with a limit of its own", Config{TotalTime: long, StreamTime: short}, events, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, tt.cfg)
			w.registerEcho(tt.h, tt.h)
			start := time.Now()
			got := w.get("/gateway/echo/")
			if took := time.Since(start); took < short/2 {
				t.Errorf("it ended after %v, before its limit", took)
			}
			if tt.status == 0 {
				if got.status != http.StatusOK || got.err == nil {
					t.Errorf("the caller got %d and the error %v, want a cut response", got.status, got.err)
				}
			} else if got.status != tt.status || !strings.Contains(got.body, "GATEWAY_TIMEOUT") || got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("the caller got %d %s", got.status, got.body)
			}
			testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.Stats().InFlight == 0 && len(w.pool.Inflight()) == 0 })
			if s := w.gateway.Stats(); (s.Cut == 1) != (tt.status == 0) || s.RetriedReset+s.RetriedConnect+s.RetriedStatus != 0 {
				t.Errorf("Stats = %+v", s)
			}
		})
	}
}

func TestGateway_does_not_limit_the_total_time_of_event_streams(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{TotalTime: 100 * time.Millisecond})
	w.registerEcho(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for n := range 30 {
			fmt.Fprintf(rw, "data: %d\n\n", n)
			_ = http.NewResponseController(rw).Flush()
			<-time.After(10 * time.Millisecond)
		}
	})
	if got := w.get("/gateway/echo/"); got.err != nil || strings.Count(got.body, "data:") != 30 {
		t.Errorf("the caller got %q, %v", got.body, got.err)
	}
}

// unacceptingListener returns the URL of a listener whose backlog is full, so that a connect never ends.
func unacceptingListener(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	late := 0
	for range 10_000 {
		conn, err := net.DialTimeout("tcp", ln.Addr().String(), 50*time.Millisecond)
		if err != nil {
			if late++; late == 10 { // a busy machine may be late too
				return "http://" + ln.Addr().String()
			}
			continue
		}
		late = 0
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the backlog of the listener does not fill up")
	return ""
}

func TestGateway_limits_the_time_to_connect(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{ConnectTime: 200 * time.Millisecond})
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, unacceptingListener(t))
	if got := w.do(http.MethodPost, "/gateway/echo/", strings.NewReader("x")); got.status != http.StatusBadGateway {
		t.Errorf("the caller got %d %s %v", got.status, got.body, got.err)
	}
	w.registerInstance("echo", startServer(t, respondWith("well")))
	for range 4 {
		if got := w.do(http.MethodPost, "/gateway/echo/", strings.NewReader("x")); got.body != "well" {
			t.Errorf("with another instance the caller got %d %s", got.status, got.body)
		}
	}
}

func TestGateway_limits_bodies(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{BodyBytes: 200_000, BodyTime: 200 * time.Millisecond, IdleTime: 500 * time.Millisecond})
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(rw, n, err)
	})
	fits := strings.Repeat("x", 200_000)
	stream := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) } // of unknown length
	for name, tt := range map[string]struct {
		body   io.Reader
		status int
	}{
		"all that fits": {strings.NewReader(fits), 200}, "all that fits, of unknown length": {stream(fits), 200},
		"one byte more": {strings.NewReader(fits + "x"), 413},
	} {
		got := w.do(http.MethodPut, "/gateway/echo/", tt.body)
		if got.status != tt.status || tt.status == 200 && got.body != "200000 <nil>" || tt.status == 413 && !strings.Contains(got.body, "BODY_TOO_LARGE") {
			t.Errorf("%s: %d %s %v", name, got.status, got.body, got.err)
		}
	}
	// By hand, as the client of net/http gives up a call when it cannot send the rest of the body.
	for name, tt := range map[string]struct {
		request  string
		statuses []int
	}{
		"one byte more, of unknown length": {fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%sx\r\n0\r\n\r\n", len(fits)+1, fits), []int{413}},
		"a small body that stops":          {"Content-Length: 1000\r\n\r\nabc", []int{408, 504}},
		"a larger one":                     {"Content-Length: 100000\r\n\r\nabc", []int{408, 504}},
	} {
		conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(callLimit))
		fmt.Fprint(conn, "PUT /gateway/echo/ HTTP/1.1\r\nHost: x\r\n"+tt.request)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is
		if err != nil || !slices.Contains(tt.statuses, resp.StatusCode) {
			t.Errorf("%s: %+v, %v, want one of %v", name, resp, err, tt.statuses)
		}
		conn.Close()
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.Stats().InFlight == 0 && len(w.pool.Inflight()) == 0 })
	if s := w.gateway.Stats(); s.CircuitsOpened+s.Ejections+s.RetriedReset != 0 {
		t.Errorf("errors of callers count against instances: %+v", s)
	}
}

// TestGateway_buffers_bodies_within_the_memory_of_their_caller has one half-sent body hold the share of its caller: the next
// body is forwarded all the same, but not sent again.
func TestGateway_buffers_bodies_within_the_memory_of_their_caller(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{BodyTime: callLimit})
	w.memory = membudget.New(4*64<<10, time.Second) // 64 KiB for one caller
	var asked atomic.Int64
	retried := func(body int) int { // the status of a call that the first instance refuses
		asked.Store(0)
		return w.do(http.MethodPut, "/gateway/echo/", strings.NewReader(strings.Repeat("x", body))).status
	}
	w.registerEcho(failTimes(1, &asked, respondStatus(503)), failTimes(1, &asked, respondStatus(503)))
	if got := retried(20 << 10); got != http.StatusOK {
		t.Errorf("a body of a caller with memory to spare: %d, want it sent again", got)
	}
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "PUT /gateway/echo/ HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\nabc")
	memory := w.memory.Open(auth.With(auth.WithClient(t.Context(), auth.Client{Address: w.address}), ada))
	testenv.Eventually(t, "the half-sent body has its memory", func() bool {
		defer memory.Release()
		return !memory.TryTake(32 << 10)
	})
	if got := retried(20 << 10); got != http.StatusServiceUnavailable || asked.Load() != 1 {
		t.Errorf("a body beyond the memory of its caller: %d after %d attempts, want 503 of the one instance", got, asked.Load())
	}
	if got := retried(4 << 10); got != http.StatusOK {
		t.Errorf("a short body: %d, want it sent again", got)
	}
	w.setAnonymous("192.0.2.9")
	w.registerService(registry.ServiceInput{Name: "open"}, publicService(), startServer(t, failTimes(0, &asked, nil)))
	if got := w.do(http.MethodPut, "/gateway/open/", strings.NewReader(strings.Repeat("x", 20<<10))).status; got != http.StatusOK {
		t.Errorf("a body of another caller: %d", got)
	}
	w.setCaller(ada)
	conn.Close()
	testenv.Eventually(t, "the memory is free again", func() bool { return retried(20<<10) == http.StatusOK })
}

func TestGateway_ends_a_call_whose_response_precedes_the_body(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{IdleTime: time.Minute})
	w.registerEcho(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) })
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PUT /gateway/echo/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nabc")
	_ = conn.SetReadDeadline(time.Now().Add(callLimit))
	in := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusTeapot { //nolint:bodyclose // the connection is
		t.Fatalf("the answer is %+v, %v", resp, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection stays open: %v", err)
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.Stats().InFlight == 0 })
}

func TestGateway_checks_the_address_that_is_dialled(t *testing.T) {
	t.Parallel()
	secret := startServer(t, respondWith("secret"))
	u, err := url.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	resolver, asked := startDNS(t, [4]byte{198, 51, 100, 7}, [4]byte{127, 0, 0, 1})
	first, err := resolver.LookupNetIP(t.Context(), "ip4", "rebind.example") // as a health check may have resolved it
	if err != nil || !first[0].IsGlobalUnicast() {
		t.Fatal(first, err)
	}
	w := newFixture(t, Config{})
	pool, err := balance.NewPool(time.Now, balance.Config{})
	if err != nil {
		t.Fatal(err)
	}
	deps := w.gateway.deps
	deps.Guard, deps.Pool = newGuard(t, Policy{}, resolver), pool
	if w.gateway, err = New(deps, slog.New(slog.DiscardHandler), Config{}); err != nil {
		t.Fatal(err)
	}
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, "http://rebind.example:"+u.Port())
	got := w.get("/gateway/echo/")
	if got.status != http.StatusBadGateway || strings.Contains(got.body, "127.") || strings.Contains(got.body, "secret") || asked.Load() < 2 {
		t.Errorf("after %d look-ups the caller got %d %s", asked.Load(), got.status, got.body)
	}
}

func TestNew_refuses_invalid_configurations(t *testing.T) {
	t.Parallel()
	deps := newFixture(t, Config{}).gateway.deps
	for name, cfg := range map[string]Config{"a negative time": {IdleTime: -1}, "a negative size": {BodyBytes: -1}, "a negative count": {Calls: -1}, "a negative share": {RetryShare: -1}} {
		if _, err := New(deps, slog.New(slog.DiscardHandler), cfg); err == nil {
			t.Errorf("New accepts %s", name)
		}
	}
	if _, err := New(Deps{}, slog.New(slog.DiscardHandler), Config{}); err == nil {
		t.Error("New accepts missing dependencies")
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"/gateway/echo/a/b", "/gateway/echo", "/gateway/echo/%2e%2e/x", "/gateway/a/..;/", "/gateway/a/%", "/gateway//x", "/gateway/a/%5c..%5c"} {
		f.Add(s)
	}
	base, err := url.Parse("http://10.0.0.1:80/base")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u := &url.URL{}
		if parsed, err := url.ParseRequestURI(s); err == nil {
			u = parsed
		}
		target, err := parseTarget(u.EscapedPath())
		if err != nil {
			return
		}
		out := target.urlOn(base, &http.Request{URL: u})
		sent := out.RequestURI()
		if out.Host != base.Host || !strings.HasPrefix(sent, "/base") || strings.ContainsAny(sent, " \r\n") {
			t.Fatalf("%q becomes %q on %q", s, sent, out.Host)
		}
		if cleaned := out.JoinPath().Path; cleaned != "/base" && !strings.HasPrefix(cleaned, "/base/") {
			t.Fatalf("%q becomes %q, outside the path of the instance", s, cleaned)
		}
	})
}

func FuzzForward(f *testing.F) {
	f.Add("203.0.113.7, 198.51.100.9", "https", "shop.example:8443", "10.0.0.1:99", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("a\r\nb", "https, http", `x";proto=https`, "[fe80::1%eth0]:1", "ff-")
	f.Fuzz(func(t *testing.T, chain, proto, host, peer, parent string) {
		in := &http.Request{RemoteAddr: peer, Host: "own.example", Header: http.Header{"X-Forwarded-For": {chain}, "X-Forwarded-Proto": {proto}, "X-Forwarded-Host": {host}}}
		h := http.Header{"Traceparent": {parent}}
		setForwarded(h, in, "/gateway/x")
		setTraceparent(h)
		if p := h.Get("X-Forwarded-Proto"); p != "http" && p != "https" {
			t.Errorf("the protocol is %q", p)
		}
		if !isTraceparent(h.Get("Traceparent")) {
			t.Errorf("the trace is %q", h.Get("Traceparent"))
		}
		if v := h.Get("Forwarded"); strings.ContainsAny(v, "\r\n\x00") || strings.Count(v, ";proto=") != 1 {
			t.Errorf("Forwarded is %q", v)
		}
	})
}

func FuzzRelocated(f *testing.F) {
	for _, s := range []string{"/a", "//b/c", "http://10.0.0.1/base/x", "javascript:x", "http://10.0.0.1@evil/", "\\\\evil", "/base//evil"} {
		f.Add(s)
	}
	base, err := url.Parse("http://10.0.0.1/base")
	if err != nil {
		f.Fatal(err)
	}
	set := &registry.Set{Instances: []*registry.Instance{{URL: "http://10.0.0.1/base"}}}
	f.Fuzz(func(t *testing.T, s string) {
		got := relocateReference(s, "/gateway/x", base, set)
		if got != s && !strings.HasPrefix(got, "/gateway/x/") {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}

func TestGateway_ejects_instances_that_hang_after_the_header(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"", "100"} {
		hang := make(chan struct{})
		w := newFixture(t, Config{IdleTime: 50 * time.Millisecond})
		hanging := startServer(t, func(rw http.ResponseWriter, _ *http.Request) {
			if length != "" {
				rw.Header().Set("Content-Length", length)
			}
			rw.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(rw).Flush()
			<-hang
		})
		w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, hanging, startServer(t, respondWith("ok")))
		for n := 0; n < 100 && w.gateway.Stats().Ejections == 0; n++ {
			w.get("/gateway/echo/")
		}
		if w.gateway.Stats().Ejections == 0 {
			t.Errorf("with a length of %q the instance is not ejected", length)
		}
		close(hang)
	}
}
