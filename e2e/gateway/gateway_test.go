package gateway

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

const (
	trustService = `mutation($id: ID!, $at: [String!]!) { updateService(input: {id: $id, trusted: true, trustedAddresses: $at}) { service { trusted } userErrors { code } } }`
	openService  = `mutation($id: ID!, $on: Boolean!) { updateService(input: {id: $id, public: $on}) { service { public } userErrors { code } } }`
)

// startBackend registers a service with one instance that the handler answers for, and returns the
// id of the service.
func startBackend(t *testing.T, root harness.Caller, name string, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	id := harness.CreateService(t, root, name, "5m")
	harness.CreateInstance(t, root, name, name+"-1", harness.Fields{"url": s.URL, "ttl": "5m"})
	return id
}

// writeHeaders responds with the header of the request.
func writeHeaders(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Set-Cookie", "a=b")
	_ = json.NewEncoder(w).Encode(r.Header)
}

// receivedHeaders returns the header that writeHeaders received.
func receivedHeaders(t *testing.T, c harness.Caller, path string, header ...string) http.Header {
	t.Helper()
	var h http.Header
	if a := c.MustREST(t, http.StatusOK, "GET "+path, "", header...); json.Unmarshal(a.Body, &h) != nil {
		t.Fatalf("%s gave %s", path, a.Body)
	}
	return h
}

func TestGateway_admits_signed_in_callers_and_all_callers_of_public_services(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8")
		root := harness.SignInAdmin(t, p)
		id := startBackend(t, root, "teller", writeHeaders)
		customer, shopper := harness.SignUp(t, p, "carol"), harness.WithAPIKey(t, root, harness.AdminName, "orders:read")
		own := harness.WithAPIKey(t, root, harness.AdminName, "service:other")
		bad := harness.Caller{BaseURL: p.BaseURL, Token: "nonsense"}
		for caller, tt := range map[string]struct {
			harness.Caller
			closed, absent int
		}{
			"an anonymous caller": {harness.Anonymous(p), 401, 401}, "a caller with a bad token": {bad, 401, 401}, "a customer": {customer, 200, 404},
			"a key for orders": {shopper, 403, 403}, "a key of a service": {own, 200, 404}, "ADMIN": {root, 200, 404},
		} {
			if a, err := tt.REST(t.Context(), "GET /gateway/teller/x", ""); err != nil || a.Status != tt.closed {
				t.Errorf("%s calls it: %v, %v, want %d", caller, a, err, tt.closed)
			}
			a, err := tt.REST(t.Context(), "GET /gateway/absent/x", "")
			if err != nil || a.Status != tt.absent || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s calls what is not there: %v, %v, want %d", caller, a, err, tt.absent)
			}
		}
		root.Do(t, openService, harness.Fields{"id": id, "on": true})
		harness.Eventually(t, "an anonymous caller may call it", func() bool {
			a, err := harness.Anonymous(p).REST(t.Context(), "GET /gateway/teller/x", "")
			return err == nil && a.Status == http.StatusOK
		})
		if h := receivedHeaders(t, harness.Anonymous(p), "/gateway/teller/x"); h.Get("Authorization") != "" {
			t.Errorf("the service got an identity of an anonymous caller: %v", h)
		}
		if a, err := bad.REST(t.Context(), "GET /gateway/teller/x", ""); err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("a bad token on an open service: %v, %v, want 401", a, err)
		}
		root.Do(t, openService, harness.Fields{"id": id, "on": false})
		if a, err := harness.Anonymous(p).REST(t.Context(), "GET /gateway/teller/x", ""); err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("after it was closed: %v, %v, want 401", a, err)
		}
	})
}

// verifyServiceToken reads a service's token as a service does: by the published keys.
func verifyServiceToken(t *testing.T, p *testenv.Process, token, audience string) (*jwt.RegisteredClaims, error) {
	t.Helper()
	var set struct {
		Keys []struct{ Kid, X string }
	}
	a := harness.Anonymous(p).MustREST(t, http.StatusOK, "GET /.well-known/jwks.json", "")
	if err := json.Unmarshal(a.Body, &set); err != nil {
		t.Fatal(err)
	}
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(token, &claims, func(tok *jwt.Token) (any, error) {
		for _, k := range set.Keys {
			if k.Kid == tok.Header["kid"] {
				x, err := base64.RawURLEncoding.DecodeString(k.X)
				return ed25519.PublicKey(x), err
			}
		}
		return nil, fmt.Errorf("no key %v", tok.Header["kid"])
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer("backplane"), jwt.WithAudience(audience), jwt.WithExpirationRequired())
	return &claims, err
}

func TestGateway_gives_credentials_to_trusted_services_alone(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	id := startBackend(t, root, "teller", writeHeaders)
	ada := harness.SignUp(t, p, "ada")
	user := harness.Text(ada.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
	secrets := []string{"Cookie", "session=1", "X-Api-Key", "k", "X-Graphql-Event-Stream-Token", "x"}

	h := receivedHeaders(t, ada, "/gateway/teller/", secrets...)
	token, ok := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	if !ok || token == ada.Token || strings.Contains(fmt.Sprint(h), ada.Token) {
		t.Fatalf("an untrusted service gets %v", h)
	}
	for _, name := range []string{"Cookie", "X-Api-Key", "X-Graphql-Event-Stream-Token"} {
		if h.Get(name) != "" {
			t.Errorf("an untrusted service gets %s: %q", name, h.Get(name))
		}
	}
	claims, err := verifyServiceToken(t, p, token, "service:teller")
	if err != nil || claims.Subject != user {
		t.Fatalf("the service reads %+v, %v, want the user %s", claims, err, user)
	}
	if life := time.Until(claims.ExpiresAt.Time); life > time.Minute || life < 30*time.Second {
		t.Errorf("its token lives for %v more, want at most a minute", life)
	}
	if _, err := verifyServiceToken(t, p, token, "backplane"); err == nil {
		t.Error("the token has our own audience, too")
	}
	if _, err := verifyServiceToken(t, p, ada.Token, "service:teller"); err == nil {
		t.Error("our own access token has the audience of a service")
	}
	root.Do(t, trustService, harness.Fields{"id": id, "at": []any{"127.0.0.1"}})
	harness.Eventually(t, "a trusted service gets those that are its own", func() bool {
		h = receivedHeaders(t, ada, "/gateway/teller/", secrets...)
		return h.Get("Cookie") == "session=1" && h.Get("X-Api-Key") == "k"
	})
	if h.Get("X-Graphql-Event-Stream-Token") != "" || strings.Contains(fmt.Sprint(h), ada.Token) {
		t.Errorf("a trusted service gets what is for the server alone: %v", h)
	}
	if _, err := verifyServiceToken(t, p, strings.TrimPrefix(h.Get("Authorization"), "Bearer "), "service:teller"); err != nil {
		t.Errorf("a trusted service reads %v", err)
	}
	if a := ada.MustREST(t, http.StatusOK, "GET /gateway/teller/", ""); a.Header.Get("Set-Cookie") != "" || a.Header.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("a trusted service answers with %v", a.Header)
	}
}

// TestGateway_service_tokens_authenticate_no_request_to_the_server replays one wherever a bearer token is accepted.
func TestGateway_service_tokens_authenticate_no_request_to_the_server(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	startBackend(t, root, "teller", writeHeaders)
	startBackend(t, root, "backplane", writeHeaders) // whose name is our own audience
	for _, name := range []string{"teller", "backplane"} {
		token := strings.TrimPrefix(receivedHeaders(t, root, "/gateway/"+name+"/").Get("Authorization"), "Bearer ")
		if token == "" {
			t.Fatal("there is no token to replay")
		}
		thief := harness.Caller{BaseURL: p.BaseURL, Token: token}
		if a, err := thief.Send(t.Context(), `{ viewer { user { id } } }`, nil); err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("POST /graphql = %+v, %v", a, err)
		}
		for _, line := range []string{
			"GET /graphql?query={viewer{user{id}}}", "GET /orders", "GET /users", "POST /orders", "GET /gateway/teller/", "GET /gateway/backplane/", "PUT /graphql",
		} {
			if a, err := thief.REST(t.Context(), line, ""); err != nil || a.Status != http.StatusUnauthorized {
				t.Errorf("%s = %d %s, %v, want 401", line, a.Status, a.Body, err)
			}
		}
		for _, accept := range []string{"text/event-stream"} {
			if a, err := thief.REST(t.Context(), "GET /graphql?query="+url.QueryEscape("subscription{events{cursor}}"), "", "Accept", accept); err != nil || a.Status != http.StatusUnauthorized {
				t.Errorf("an event stream = %d %s, %v, want 401", a.Status, a.Body, err)
			}
		}
		conn, _, err := websocket.Dial(t.Context(), p.BaseURL+"/graphql", &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}}) //nolint:bodyclose // of a socket
		if err != nil {
			t.Fatal(err)
		}
		init := `{"type":"connection_init","payload":{"Authorization":"Bearer ` + token + `"}}`
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(init)); err != nil {
			t.Fatal(err)
		}
		if _, text, err := conn.Read(t.Context()); err == nil {
			t.Errorf("a socket said %s to it, want it closed", text)
		}
		_ = conn.CloseNow()
	}
}

func TestGateway_reaches_no_listener_of_the_server(t *testing.T) {
	t.Parallel()
	database, redis := testenv.Postgres(t), testenv.Redis(t)
	adminPort := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	p := harness.StartServer(t, database, "BACKPLANE_REDIS_URL="+redis, "BACKPLANE_ADMIN_LISTEN="+adminPort, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8,::1")
	root := harness.SignInAdmin(t, p)
	startBackend(t, root, "well", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") })
	if a := root.MustREST(t, http.StatusOK, "GET /gateway/well/", ""); string(a.Body) != "well" {
		t.Fatalf("loopback may be called, but: %s", a.Body)
	}
	hostOf := func(text string) string {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	own := hostOf(p.BaseURL)
	_, port, _ := net.SplitHostPort(own)
	for name, target := range map[string]string{
		"our port": own, "our port by name": "localhost:" + port, "our port by IPv6": "[::ffff:127.0.0.1]:" + port, "the operator's port": adminPort,
		"the database": hostOf(database), "redis": hostOf(redis), "metadata": "169.254.169.254", "a private network": "10.255.255.1:9",
	} {
		evil := "evil-" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "")
		evil = strings.ToLower(evil)
		harness.CreateService(t, root, evil, "5m")
		harness.CreateInstance(t, root, evil, "x", harness.Fields{"url": "http://" + target, "ttl": "5m"})
		a := root.MustREST(t, http.StatusBadGateway, "GET /gateway/"+evil+"/metrics", "")
		host, _, _ := net.SplitHostPort(target)
		if strings.Contains(string(a.Body), target) || host != "" && strings.Contains(string(a.Body), host) || harness.Text(a.JSON(t), "code") != "BAD_GATEWAY" {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
	// A redirect to it is not followed, and where it leads is not passed on.
	startBackend(t, root, "guide", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+adminPort+"/metrics", http.StatusFound)
	})
	noFollow := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.BaseURL+"/gateway/guide/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+root.Token)
	resp, err := noFollow.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "" {
		t.Errorf("a redirect gave %d %v", resp.StatusCode, resp.Header)
	}
}

func TestGateway_uses_forwarded_headers_of_trusted_proxies_alone(t *testing.T) {
	t.Parallel()
	forged := []string{"X-Forwarded-For", "203.0.113.7, 198.51.100.9", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example", "Forwarded", "for=6.6.6.6",
		"X-Real-Ip", "6.6.6.6", "X-Forwarded-User", "root", "Connection", "X-Forwarded-For, X-Secret", "X-Secret", "hop"}
	for name, tt := range map[string]struct {
		proxies, chain, proto, forwarded, user string
	}{
		"no proxy is trusted": {"", "127.0.0.1", "http", "for=127.0.0.1;host=HOST;proto=http", ""},
		"the peer is":         {"127.0.0.1", "198.51.100.9, 127.0.0.1", "https", "for=198.51.100.9;host=shop.example;proto=https, for=127.0.0.1", ""},
		"and the one before":  {"127.0.0.1,198.51.100.0/24", "203.0.113.7, 198.51.100.9, 127.0.0.1", "https", "for=203.0.113.7;host=shop.example;proto=https, for=198.51.100.9, for=127.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_TRUSTED_PROXIES="+tt.proxies)
			root := harness.SignInAdmin(t, p)
			startBackend(t, root, "teller", writeHeaders)
			host := strings.TrimPrefix(p.BaseURL, "http://")
			h := receivedHeaders(t, root, "/gateway/teller/a", forged...)
			wantHost := host
			if tt.proxies != "" {
				wantHost = "shop.example"
			}
			for name, want := range map[string]string{
				"X-Forwarded-For": tt.chain, "X-Forwarded-Proto": tt.proto, "X-Forwarded-Host": wantHost, "X-Forwarded-Prefix": "/gateway/teller",
				"Forwarded": strings.ReplaceAll(tt.forwarded, "HOST", `"`+host+`"`), "X-Real-Ip": "", "X-Forwarded-User": tt.user, "X-Secret": "", "Connection": "",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if values := h.Values("X-Forwarded-For"); len(values) != 1 {
				t.Errorf("X-Forwarded-For is there %d times", len(values))
			}
		})
	}
}

func TestGateway_goes_on_without_the_database(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	wire := testenv.NewProxy(t, u.Host)
	u.Host = wire.Addr
	harness.RunCommand(t, database, "migrate")
	p := testenv.Server(t, harness.Settings(u.String(), "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8")...)
	root := harness.SignInAdmin(t, p)
	startBackend(t, root, "teller", writeHeaders)
	if a := root.MustREST(t, http.StatusOK, "GET /gateway/teller/", ""); a.Header.Get("X-Backplane-Degraded") != "" {
		t.Errorf("all is well, but: %v", a.Header)
	}
	wire.Cut()
	harness.Eventually(t, "answers are marked stale", func() bool {
		a, err := root.REST(t.Context(), "GET /gateway/teller/", "")
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("without the database: %+v, %v", a, err)
		}
		return a.Header.Get("X-Backplane-Degraded") == "STALE"
	})
	if h := receivedHeaders(t, root, "/gateway/teller/"); !strings.HasPrefix(h.Get("Authorization"), "Bearer ") {
		t.Errorf("without the database the caller is not named: %v", h)
	}
	wire.Heal()
	harness.EventuallyWithin(t, time.Minute, "nothing is stale any more", func() bool {
		a, err := root.REST(t.Context(), "GET /gateway/teller/", "")
		return err == nil && a.Status == http.StatusOK && a.Header.Get("X-Backplane-Degraded") == ""
	})
}

func TestGateway_lets_open_calls_end_when_the_server_stops(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	startBackend(t, root, "slow", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			entered <- struct{}{}
			<-leave
			_ = conn.Write(r.Context(), websocket.MessageText, []byte("bye"))
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return
		}
		entered <- struct{}{}
		<-leave
		fmt.Fprint(w, "whole")
	})
	conn, _, err := websocket.Dial(t.Context(), p.BaseURL+"/gateway/slow/", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + root.Token}}}) //nolint:bodyclose // of a socket
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow() //nolint:errcheck // it may be closed already
	got := make(chan string, 1)
	go func() {
		a, err := root.REST(t.Context(), "GET /gateway/slow/", "")
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(a.Body)
	}()
	<-entered
	<-entered
	stopped := make(chan struct{})
	go func() { defer close(stopped); p.Stop() }()
	harness.Eventually(t, "the server is stopping", func() bool { return strings.Contains(p.Logs(), "stopping") || !isReachable(p) })
	close(leave)
	if text := <-got; text != "whole" {
		t.Errorf("an open call got %q", text)
	}
	if _, text, err := conn.Read(t.Context()); err != nil || string(text) != "bye" {
		t.Errorf("an upgraded connection got %q, %v", text, err)
	}
	_ = conn.CloseNow() // else the server waits for it
	<-stopped
}

// isReachable reports whether the server accepts connections.
func isReachable(p *testenv.Process) bool {
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.BaseURL, "http://"))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func TestServer_refuses_headers_that_are_too_long(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	for _, line := range []string{"GET /gateway/x/", "GET /users", "GET /graphql"} {
		a, err := harness.Anonymous(p).REST(t.Context(), line, "", "X-Long", strings.Repeat("x", 40_000))
		if err != nil || a.Status != http.StatusRequestHeaderFieldsTooLarge || harness.Text(a.JSON(t), "code") != "HEADER_TOO_LARGE" {
			t.Errorf("%s: %+v, %v", line, a, err)
		}
	}
	if a, err := harness.Anonymous(p).REST(t.Context(), "GET /gateway/x/", "", "X-Long", strings.Repeat("x", 200_000)); err == nil && a.Status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("much more: %d", a.Status)
	}
}

func TestGateway_leaves_types_and_traces_of_answers_alone(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	startBackend(t, root, "teller", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		body := map[string]string{"/small": "<html>", "/json": `{"a": 1}`, "/large": strings.Repeat("<p>text", 20_000)}[r.URL.Path]
		switch r.URL.Path {
		case "/headers":
			writeHeaders(w, r)
		case "/chunks":
			for range 3 {
				fmt.Fprint(w, "<html>")
				_ = http.NewResponseController(w).Flush() // fails with the next write
			}
		case "/failure":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, "<html>")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		default:
			fmt.Fprint(w, body)
		}
	})
	for path, status := range map[string]int{"small": 200, "json": 200, "large": 200, "chunks": 200, "failure": 500, "none": 204} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, encoding := range []string{"identity", "gzip, zstd, br"} {
				a := root.MustREST(t, status, method+" /gateway/teller/"+path, "", "Accept-Encoding", encoding, "Accept", "text/html")
				if got, ok := a.Header["Content-Type"]; ok || a.Header.Get("Content-Encoding") != "" {
					t.Errorf("%s of %s, with the encodings %s: an answer without a type has %q, encoded as %q", method, path, encoding, got, a.Header.Get("Content-Encoding"))
				}
			}
		}
	}
	for _, parent := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		var header []string
		if parent != "" {
			header = []string{"Traceparent", parent}
		}
		got := receivedHeaders(t, root, "/gateway/teller/headers", header...).Get("Traceparent")
		if sampled := strings.HasSuffix(got, "-01"); len(got) != 55 || sampled != strings.HasSuffix(parent, "-01") || parent != "" && got != parent {
			t.Errorf("a call with the trace %q reaches the service with %q", parent, got)
		}
	}
}

func TestGateway_exports_metrics(t *testing.T) {
	t.Parallel()
	adminPort := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_ADMIN_LISTEN="+adminPort)
	root := harness.SignInAdmin(t, p)
	var asked atomic.Int64
	h := func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		writeHeaders(w, r)
	}
	startBackend(t, root, "teller", h)
	second := httptest.NewServer(http.HandlerFunc(h))
	t.Cleanup(second.Close)
	harness.CreateInstance(t, root, "teller", "teller-2", harness.Fields{"url": second.URL, "ttl": "5m"})
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if h := receivedHeaders(t, root, "/gateway/teller/", "Traceparent", parent, "X-Request-Id", "my-request"); h.Get("Traceparent") != parent || h.Get("X-Request-Id") != "my-request" {
		t.Errorf("the service gets %v", h)
	}
	root.MustREST(t, http.StatusNotFound, "GET /gateway/absent/", "")
	a := harness.Caller{BaseURL: "http://" + adminPort}.MustREST(t, http.StatusOK, "GET /metrics", "")
	for _, want := range []string{
		`backplane_gateway_requests_total{outcome="ok"} 1`, `backplane_gateway_requests_total{outcome="refused"} 1`, `backplane_gateway_requests_total{outcome="cut"} 0`,
		`backplane_gateway_retries_total{after="reset"} 1`, `backplane_gateway_retries_over_budget_total 0`, `backplane_gateway_circuits_opened_total 0`,
		`backplane_gateway_in_flight 0`, `backplane_balance_ejections_total 0`,
	} {
		if !slices.Contains(strings.Split(string(a.Body), "\n"), want) {
			t.Errorf("/metrics does not say %s:\n%s", want, grepLines(string(a.Body), "gateway"))
		}
	}
	line := grepLines(p.Logs(), "request_id=my-request")
	for _, want := range []string{"service=teller", "attempts=2", "outcome=ok", "instance=teller-", "path=/gateway/teller/"} {
		if !strings.Contains(line, want) {
			t.Errorf("the log line does not say %s: %s", want, line)
		}
	}
}

// grepLines returns the lines that contain the text.
func grepLines(lines, text string) (found string) {
	for line := range strings.Lines(lines) {
		if strings.Contains(line, text) {
			found += line
		}
	}
	return found
}
