package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// echoRequest responds with the request that it got.
func echoRequest(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "uri": r.RequestURI, "host": r.Host, "header": r.Header})
}

type echoedRequest struct {
	Method, URI, Host string
	Header            http.Header
}

func (r response) echoed(t *testing.T) (m echoedRequest) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("the answer is %d %s: %v", r.status, r.body, err)
	}
	return m
}

// sendRaw sends a request line unchanged, where an HTTP client would clean it.
func (w *fixture) sendRaw(line string, header ...string) response {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: front.example\r\nConnection: close\r\n%s\r\n", line, strings.Join(append(header, ""), "\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return response{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(text), err}
}

func TestGateway_forwards_paths_and_queries_unchanged(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	s := startServer(t, echoRequest)
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, s)
	w.registerService(registry.ServiceInput{Name: "app"}, registry.ServiceChange{}, s+"/the/app")
	for path, want := range map[string]string{
		"/gateway/echo":                     "/",
		"/gateway/echo?q":                   "/?q",
		"/gateway/echo/":                    "/",
		"/gateway/echo/a/b/":                "/a/b/",
		"/gateway/echo/a%2Fb%20c":           "/a%2Fb%20c",
		"/gateway/echo/a%2fb?x=%zz;y&y=1&&": "/a%2fb?x=%zz;y&y=1&&",
		"/gateway/echo//a///b":              "//a///b",
		"/gateway/echo//other.example/":     "//other.example/",
		"/gateway/echo/%e2%82%ac":           "/%e2%82%ac",
		"/gateway/echo/.well-known/x":       "/.well-known/x",
		"/gateway/echo/a..b/...":            "/a..b/...",
		"/gateway/echo/a;v=1/b":             "/a;v=1/b",
		"/gateway/app":                      "/the/app",
		"/gateway/app/a%2Fb":                "/the/app/a%2Fb",
		"/gateway/app/?":                    "/the/app/?",
	} {
		if got := w.sendRaw("GET " + path); got.status != http.StatusOK || got.echoed(t).URI != want {
			t.Errorf("%s became %d %s, want %s", path, got.status, got.body, want)
		}
	}
	for path, want := range map[string]int{
		"/gateway/app/../admin": 400, "/gateway/app/%2e%2e/admin": 400, "/gateway/app/.%2E/admin": 400, "/gateway/app/a/..": 400, "/gateway/app/./x": 400,
		"/gateway/app/..%2fadmin": 400, "/gateway/app/..%5cadmin": 400, `/gateway/app/..\admin`: 400, "/gateway/app/..;x=1/admin": 400, "/gateway/app/x%2f..%2f..": 400,
		"/gateway/": 404, "/gateway//": 404, "/gateway//echo/": 404, "/gateway/../echo/": 404, "/gateway/%65cho/": 404, "/gateway/Echo/": 404,
		"/gateway/echo%2f/": 404, "/gateway/absent/x": 404, "/gateway/-x/": 404, "/gateway%2fecho/": 404, "/%67ateway/echo/": 404,
	} {
		got := w.sendRaw("GET " + path)
		if got.status != want || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s gave %d %v, want %d and a problem document", path, got.status, got.header, want)
		}
	}
	for _, line := range []string{"TRACE /gateway/echo/", "CONNECT /gateway/echo/"} {
		if got := w.sendRaw(line); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") == "" {
			t.Errorf("%s gave %d %v", line, got.status, got.header)
		}
	}
	if got := w.sendRaw("GET http://elsewhere.example/gateway/echo/x"); got.status != http.StatusOK || got.echoed(t).URI != "/x" || got.echoed(t).Host == "elsewhere.example" {
		t.Errorf("a whole URL gave %d %s", got.status, got.body)
	}
}

func TestGateway_streams_in_both_directions(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{TotalTime: time.Hour})
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(rw).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		if length := r.URL.Query().Get("length"); length != "" {
			rw.Header().Set("Content-Length", length)
		}
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(rw, strings.ToUpper(lines.Text()))
			_ = http.NewResponseController(rw).Flush()
		}
	})
	for _, path := range []string{"/gateway/echo/", "/gateway/echo/?length=4"} { // the length of two lines
		from, to := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.front.URL+path, from)
		if err != nil {
			t.Fatal(err)
		}
		ends := make(chan *http.Response, 1)
		go func() {
			resp, err := client.Do(req) //nolint:bodyclose // it is closed where it is read
			if err != nil {
				t.Error(err)
			}
			ends <- resp
		}()
		fmt.Fprintln(to, "a") // is answered before the next is sent
		resp := <-ends
		if resp == nil {
			t.FailNow()
		}
		answers := bufio.NewReader(resp.Body)
		for _, line := range []string{"A\n", "B\n"} {
			if got, err := answers.ReadString('\n'); got != line || err != nil {
				t.Fatalf("%s: read %q, %v, want %q", path, got, err, line)
			}
			if line == "A\n" {
				fmt.Fprintln(to, "b")
			}
		}
		to.Close()
		if rest, err := io.ReadAll(answers); len(rest) > 0 || err != nil {
			t.Errorf("%s: the end is %q, %v", path, rest, err)
		}
		resp.Body.Close()
	}
}

func TestGateway_forwards_WebSockets_and_holds_their_permit(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{TotalTime: 100 * time.Millisecond, IdleTime: time.Hour})
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return
		}
		defer conn.CloseNow() //nolint:errcheck // it may be closed already
		for {
			kind, text, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	})
	conn, resp, err := websocket.Dial(t.Context(), w.front.URL+"/gateway/echo/ws", &websocket.DialOptions{Subprotocols: []string{"chat"}}) //nolint:bodyclose // of a socket
	if err != nil || conn.Subprotocol() != "chat" {
		t.Fatal(err, resp)
	}
	for n := range 50 { // for longer than an ordinary call may take
		text := fmt.Sprint("message ", n)
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(t.Context()); err != nil || string(got) != text {
			t.Fatalf("message %d came back as %q, %v", n, got, err)
		}
		<-time.After(5 * time.Millisecond)
	}
	ins := w.directory.Instances(w.services["echo"].ID)[0].ID
	if n := w.pool.Inflight()[ins]; n != 1 || w.gateway.Stats().InFlight != 1 {
		t.Errorf("%d calls are in flight at the instance, and %d in the gateway, want 1", n, w.gateway.Stats().InFlight)
	}
	drained := make(chan error, 1)
	go func() { drained <- w.gateway.Drain(t.Context()) }()
	_ = conn.Close(websocket.StatusNormalClosure, "")
	if err := <-drained; err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.pool.Inflight()[ins] == 0 })
	if s := w.gateway.Stats(); s.Upgraded != 1 || s.OK != 1 {
		t.Errorf("Stats = %+v", s)
	}
}

func TestGateway_refuses_upgrades_that_were_not_requested(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
		_ = conn.Close()
	})
	for _, header := range [][]string{{"Connection: Upgrade", "Upgrade: mine"}, {"Upgrade: other"}, nil} {
		if got := w.sendRaw("GET /gateway/echo/", header...); got.status != http.StatusBadGateway {
			t.Errorf("an upgrade to another protocol gave %d %v", got.status, got.err)
		}
	}
	if s := w.gateway.Stats(); s.Upgraded != 0 || s.OK != 0 {
		t.Errorf("Stats = %+v", s)
	}
	if got := w.sendRaw("GET /gateway/echo/", "Connection: Upgrade", "Upgrade: a b"); got.status != http.StatusBadRequest {
		t.Errorf("an upgrade to no protocol gave %d", got.status)
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.Stats().InFlight == 0 && len(w.pool.Inflight()) == 0 })
}

func TestGateway_offers_no_tunnel_for_HTTP(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(echoRequest)
	for _, protocol := range []string{"h2c", "H2C", "h2", "h3", "HTTP/2.0", "TLS/1.2"} {
		got := w.sendRaw("GET /gateway/echo/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: "+protocol, "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
		if got.status != http.StatusOK {
			t.Errorf("%s: %+v", protocol, got)
			continue
		}
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if v := got.echoed(t).Header[name]; v != nil {
				t.Errorf("%s: the instance got %s: %v", protocol, name, v)
			}
		}
	}
	if got := w.get("/gateway/echo/", "HTTP2-Settings", "AAMA"); got.echoed(t).Header["Http2-Settings"] != nil {
		t.Error("the instance got HTTP2-Settings alone")
	}
}

func TestGateway_drops_interim_responses(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Set-Cookie", "early=1")
		rw.WriteHeader(http.StatusEarlyHints)
		rw.Header().Del("Set-Cookie")
		fmt.Fprint(rw, "done")
	})
	if got := w.sendRaw("GET /gateway/echo/"); got.status != http.StatusOK || got.body != "done" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the first answer is %d %v %s", got.status, got.header, got.body)
	}
}

func TestGateway_gives_equal_keys_the_same_instance(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	urls := make([]string, 8)
	for n := range urls {
		urls[n] = startServer(t, respondWith(fmt.Sprint(n)))
	}
	w.registerService(registry.ServiceInput{Name: "hash", Strategy: registry.ConsistentHash}, registry.ServiceChange{}, urls...)
	byKey, all := map[string]string{}, map[string]bool{}
	for n := range 60 {
		key := fmt.Sprint("k", n%20)
		got := w.get("/gateway/hash/", KeyHeader, key).body
		if before := byKey[key]; before != "" && before != got {
			t.Errorf("%s went to %s and to %s", key, before, got)
		}
		byKey[key], all[got] = got, true
	}
	if len(all) < 4 {
		t.Errorf("20 keys went to %d instances", len(all))
	}
	own := map[string]bool{}
	for range 20 {
		own[w.get("/gateway/hash/").body] = true
	}
	if len(own) != 1 {
		t.Errorf("without a key, calls of one caller went to %d instances", len(own))
	}
	if got := w.get("/gateway/hash/", KeyHeader, strings.Repeat("k", 1025)); got.status != http.StatusBadRequest {
		t.Errorf("a key that is too long gave %d", got.status)
	}
}

func TestGateway_marks_responses_while_its_data_may_be_stale(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(echoRequest)
	if got := w.get("/gateway/echo/").header.Get(DegradedHeader); got != "" {
		t.Errorf("with fresh data: %q", got)
	}
	w.lag = time.Hour
	testenv.Eventually(t, "responses are marked as stale", func() bool { return w.get("/gateway/echo/").header.Get(DegradedHeader) == "STALE" })
}

var errStop = errors.New("enough")

func TestGateway_does_not_count_callers_that_leave_as_failures(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	entered := make(chan struct{}, 10)
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			fmt.Fprint(rw, "x")
			_ = http.NewResponseController(rw).Flush()
		}
		entered <- struct{}{}
		<-r.Context().Done()
	})
	for n := range 12 { // more than open a circuit breaker
		ctx, cancel := context.WithCancelCause(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.front.URL+"/gateway/echo/"+[]string{"silent", "begun"}[n%2], nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}()
		<-entered
		cancel(errStop)
		<-done
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.Stats().InFlight == 0 })
	if s := w.gateway.Stats(); s.Cancelled != 12 || s.Failed+s.Cut+s.CircuitsOpened+s.Ejections != 0 {
		t.Errorf("Stats = %+v", s)
	}
	if calls := w.pool.Inflight(); len(calls) != 0 {
		t.Errorf("calls are still in flight: %v", calls)
	}
}

func TestGateway_limits_open_calls(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{Calls: 3, CallerCalls: 2})
	entered, leave := make(chan struct{}, 5), make(chan struct{})
	w.registerEcho(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-leave })
	got := make(chan response, 5)
	call := func(name string) {
		w.setCaller(&auth.Principal{UserID: "usr_ada", Credential: auth.SessionCredential("ses_1")})
		if name != "ada" {
			w.setCaller(&auth.Principal{UserID: "usr_bob", Credential: auth.SessionCredential("ses_2")})
		}
		go func() { got <- w.get("/gateway/echo/") }()
	}
	for range 2 {
		call("ada")
		<-entered
	}
	call("ada")
	if r := <-got; r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "SERVER_BUSY") || r.header.Get("Retry-After") == "" {
		t.Errorf("a third call of one caller gave %d %s", r.status, r.body)
	}
	call("bob")
	<-entered
	call("bob")
	if r := <-got; r.status != http.StatusServiceUnavailable {
		t.Errorf("a fourth call gave %d", r.status)
	}
	close(leave)
	for range 3 {
		if r := <-got; r.status != http.StatusOK {
			t.Errorf("a call that held a permit gave %d", r.status)
		}
	}
	testenv.Eventually(t, "no call is in flight", func() bool { return w.gateway.semaphore.inUse() == 0 && len(w.gateway.semaphore.usedBy) == 0 })
}

func TestGateway_counts_the_anonymous_callers_of_a_network_as_one(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		first, second string
		status        int // of the second client's call while the first client has all permits of its network
	}{
		{"an IPv6 client takes another address of its /64", "2001:db8::1", "2001:db8::2", http.StatusServiceUnavailable},
		{"an IPv6 client is in another /64", "2001:db8::1", "2001:db8:0:1::1", http.StatusOK},
		{"an IPv4 client has another address", "192.0.2.1", "192.0.2.2", http.StatusOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, Config{Calls: 10, CallerCalls: 1})
			entered, leave := make(chan struct{}), make(chan struct{})
			w.registerService(registry.ServiceInput{Name: "echo"}, publicService(),
				startServer(t, func(_ http.ResponseWriter, r *http.Request) {
					if r.URL.Query().Has("wait") {
						entered <- struct{}{}
						<-leave
					}
				}))
			first := make(chan response, 1)
			w.setAnonymous(tt.first)
			go func() { first <- w.get("/gateway/echo/?wait") }()
			<-entered
			w.setAnonymous(tt.second)
			if r := w.get("/gateway/echo/"); r.status != tt.status {
				t.Errorf("a second call gave %d %s, want %d", r.status, r.body, tt.status)
			}
			close(leave)
			if r := <-first; r.status != http.StatusOK {
				t.Errorf("the first call gave %d", r.status)
			}
		})
	}
}
