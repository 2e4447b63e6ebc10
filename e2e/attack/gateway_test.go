package attack

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// startEndlessService registers a service whose answers do not end: an upgraded connection, an event
// stream or, at /download, a body.
func startEndlessService(t *testing.T, root harness.Caller, name string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer conn.CloseNow() //nolint:errcheck // it may be closed already
			for conn.Write(r.Context(), websocket.MessageText, []byte("secret\n")) == nil {
				harness.Pause(r.Context(), 20*time.Millisecond)
			}
			return
		}
		if r.URL.Path != "/download" {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		for {
			if _, err := fmt.Fprint(w, "data: secret\n\n"); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			harness.Pause(r.Context(), 20*time.Millisecond)
		}
	}))
	t.Cleanup(s.Close)
	harness.CreateService(t, root, name, "5m")
	harness.CreateInstance(t, root, name, name+"-1", harness.Fields{"url": s.URL, "ttl": "5m"})
}

// gatewayStreams open a stream through the gateway. The returned function waits for the next message.
var gatewayStreams = map[string]func(t *testing.T, c harness.Caller) (next func() error){
	"an event stream": func(t *testing.T, c harness.Caller) func() error {
		t.Helper()
		return download(t, c, "/gateway/endless/")
	},
	"a download": func(t *testing.T, c harness.Caller) func() error {
		t.Helper()
		return download(t, c, "/gateway/endless/download")
	},
	"an upgraded connection": func(t *testing.T, c harness.Caller) func() error {
		t.Helper()
		conn, _, err := websocket.Dial(t.Context(), c.BaseURL+"/gateway/endless/",
			&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + c.Token}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		return func() error {
			_, _, err := conn.Read(t.Context())
			return err
		}
	},
}

func download(t *testing.T, c harness.Caller, path string) (next func() error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.BaseURL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s gave %d", path, resp.StatusCode)
	}
	lines := bufio.NewReader(resp.Body)
	return func() error {
		_, err := lines.ReadString('\n')
		return err
	}
}

// endings end the credential of a customer.
var endings = map[string]func(t *testing.T, p *testenv.Process, root harness.Caller, name string) (c harness.Caller, end func()){
	"the sign-out": func(t *testing.T, p *testenv.Process, _ harness.Caller, name string) (harness.Caller, func()) {
		t.Helper()
		c := harness.SignUp(t, p, name)
		return c, func() { c.Do(t, `mutation { signOut { userErrors { code } } }`, nil) }
	},
	"the deletion of the user": func(t *testing.T, p *testenv.Process, root harness.Caller, name string) (harness.Caller, func()) {
		t.Helper()
		c := harness.SignUp(t, p, name)
		id := c.UserID(t)
		return c, func() {
			root.Do(t, `mutation($id: ID!) { deleteUser(input: {id: $id}) { userErrors { code } } }`, harness.Fields{"id": id})
		}
	},
	"the revocation of the API key": func(t *testing.T, p *testenv.Process, _ harness.Caller, name string) (harness.Caller, func()) {
		t.Helper()
		owner := harness.SignUp(t, p, name)
		key := createKey(t, owner, "services:read")
		return key, func() {
			id := harness.Text(owner.Do(t, `{ viewer { apiKeys { id } } }`, nil), "viewer", "apiKeys", 0, "id")
			owner.Do(t, `mutation($id: ID!) { revokeApiKey(input: {id: $id}) { userErrors { code } } }`, harness.Fields{"id": id})
		}
	},
	"the expiry of the API key": func(t *testing.T, p *testenv.Process, _ harness.Caller, name string) (harness.Caller, func()) {
		t.Helper()
		owner := harness.SignUp(t, p, name)
		data := owner.Do(t, `mutation($in: CreateApiKeyInput!) { createApiKey(input: $in) { secret userErrors { code } } }`,
			harness.Input(harness.Fields{"name": "k", "scopes": []any{"services:read"}, "expiresAt": time.Now().Add(5 * time.Second).Format(time.RFC3339Nano)}))
		return harness.Caller{BaseURL: p.BaseURL, Token: harness.Text(data, "createApiKey", "secret")}, func() {}
	},
}

func TestGateway_streams_end_with_the_credential(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8")
		root := harness.SignInAdmin(t, p)
		startEndlessService(t, root, "endless")
		bystander := gatewayStreams["an event stream"](t, harness.SignUp(t, p, "bystander"))
		i := 0
		for ending, prepare := range endings {
			i++
			name := fmt.Sprint("ada", i)
			c, end := prepare(t, p, root, name)
			streams := map[string]func() error{}
			for stream, open := range gatewayStreams {
				streams[stream] = open(t, c)
				if err := streams[stream](); err != nil {
					t.Fatalf("%s: %v", stream, err)
				}
			}
			end()
			for stream, next := range streams {
				if !endsWithin(10*time.Second, next) {
					t.Errorf("%s outlives %s", stream, ending)
				}
			}
		}
		if err := bystander(); err != nil {
			t.Errorf("the stream of another user ended: %v", err)
		}
		if logs := p.Logs(); strings.Contains(logs, "panic") {
			t.Error(logs)
		}
	})
}

// endsWithin reports whether the stream ends in that time.
func endsWithin(limit time.Duration, next func() error) bool {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if next() != nil {
			return true
		}
	}
	return false
}

// receiver is an instance that records what it receives.
type receiver struct {
	url  string
	busy bool // answers 503, so that the gateway tries another instance

	mu      sync.Mutex
	headers []http.Header
}

// startReceiver starts a receiver at an address of this machine.
func startReceiver(t *testing.T, address string, busy bool) *receiver {
	t.Helper()
	ln, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{url: "http://" + ln.Addr().String(), busy: busy}
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: r}}
	s.Start()
	t.Cleanup(s.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.headers = append(r.headers, req.Header.Clone())
	r.mu.Unlock()
	if r.busy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (r *receiver) received() []http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.headers
}

// TestServiceKey_harvests_no_credentials registers an instance of a trusted service by a key of the service.
func TestServiceKey_harvests_no_credentials(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8")
		root := harness.SignInAdmin(t, p)
		genuine, forged := startReceiver(t, "127.0.0.1", true), startReceiver(t, "127.0.0.2", false)
		id := harness.CreateService(t, root, "teller", "5m")
		harness.CreateInstance(t, root, "teller", "genuine", harness.Fields{"url": genuine.url, "ttl": "5m"})
		root.Do(t, `mutation($id: ID!) { updateService(input: {id: $id, trusted: true, trustedAddresses: ["127.0.0.1"]}) { userErrors { code } } }`, harness.Fields{"id": id})
		key := createKey(t, root, "service:teller")
		for _, mutation := range []string{
			`mutation($id: ID!) { updateService(input: {id: $id, trustedAddresses: ["127.0.0.2"]}) { userErrors { code } } }`,
			`mutation($id: ID!) { updateService(input: {id: $id, trusted: true}) { userErrors { code } } }`,
		} {
			if code := key.RefusalCode(t, mutation, harness.Fields{"id": id}); code != "FORBIDDEN" {
				t.Errorf("%s by the service's key gave %q, want FORBIDDEN", mutation, code)
			}
		}
		harness.CreateInstance(t, key, "teller", "forged", harness.Fields{"url": forged.url, "ttl": "5m"})
		call := func() { // the genuine instance is busy, so calls are retried at the forged one
			for _, line := range []string{"GET /gateway/teller/", "PUT /gateway/teller/", "DELETE /gateway/teller/"} {
				_, _ = root.REST(t.Context(), line, "", "Cookie", "session=1", "X-Api-Key", "k", "X-GraphQL-Event-Stream-Token", "s")
			}
			gatewayUpgrade(t, root, "/gateway/teller/")
		}
		harness.Eventually(t, "both instances are called", func() bool {
			call()
			return len(genuine.received()) > 0 && len(forged.received()) > 10
		})
		harness.CreateInstance(t, key, "teller", "genuine", harness.Fields{"url": forged.url + "/taken", "ttl": "5m"})
		before := len(forged.received())
		harness.Eventually(t, "the forged instance takes the place of the genuine one", func() bool {
			call()
			return len(forged.received()) > before+10
		})
		for _, h := range forged.received() {
			for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "X-Graphql-Event-Stream-Token"} {
				if h.Get(name) != "" {
					t.Fatalf("the forged instance received %s: %s", name, h.Get(name))
				}
			}
		}
		for _, h := range append(forged.received(), genuine.received()...) {
			if strings.Contains(fmt.Sprint(h), root.Token) {
				t.Fatalf("an instance received the caller's own token: %v", h)
			}
		}
		if h := genuine.received()[0]; !strings.HasPrefix(h.Get("Authorization"), "Bearer ") || h.Get("Cookie") != "session=1" {
			t.Errorf("the genuine instance received %v", h)
		}
	})
}

// gatewayUpgrade asks for an upgrade, which the instance refuses.
func gatewayUpgrade(t *testing.T, c harness.Caller, path string) {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), c.BaseURL+path, //nolint:bodyclose // of a socket
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + c.Token}, "Cookie": {"session=1"}}})
	if err == nil {
		_ = conn.CloseNow()
	}
}
