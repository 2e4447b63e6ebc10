package attack

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// browserRequest is what a page makes its visitor's browser send.
type browserRequest struct {
	name         string
	method, path string
	body         string
	header       []string
}

// browserRequests are one request for each transport.
var browserRequests = []browserRequest{
	{"GraphQL", http.MethodPost, "/graphql", `{"query":"{ products(first: 1) { nodes { id } } }"}`, []string{"Content-Type", "application/json"}},
	{"GraphQL by GET", http.MethodGet, "/graphql?query={__typename}", "", nil},
	{"REST", http.MethodGet, "/products", "", nil},
	{"sign-up by REST without a type", http.MethodPost, "/users", `{"username":"mallory","password":"correct horse battery","name":"M"}`, []string{"Content-Type", ""}},
	{"sign-up by a form", http.MethodPost, "/users", "username=mallory&password=correct+horse+battery&name=M", []string{"Content-Type", "application/x-www-form-urlencoded"}},
	{"a reserved event stream", http.MethodPut, "/graphql", "", nil},
	{"a WebSocket", http.MethodGet, "/graphql", "", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol", "graphql-transport-ws"}},
	{"an event stream", http.MethodGet, "/graphql?query=subscription{events{id}}", "", []string{"Accept", "text/event-stream"}},
	{"the gateway", http.MethodGet, "/gateway/echo/", "", nil},
	{"GraphiQL", http.MethodGet, "/", "", nil},
}

func (r browserRequest) send(t *testing.T, baseURL, host string, more ...string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, baseURL+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for header := slices.Concat(r.header, more); len(header) > 1; header = header[2:] {
		req.Header[http.CanonicalHeaderKey(header[0])] = []string{header[1]}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusBadRequest { // it may be a stream
		return resp.StatusCode, ""
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestServer_refuses_DNS_rebinding(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_ALLOWED_HOSTS=api.example")
	for _, r := range browserRequests {
		for host, refused := range map[string]bool{"evil.example": true, "127.0.0.1.evil.example:8080": true, "api.example": false, "localhost:8080": false} {
			if status, body := r.send(t, p.BaseURL, host); (status == http.StatusMisdirectedRequest) != refused {
				t.Errorf("%s under the name %s: %d %s, want it refused: %v", r.name, host, status, body, refused)
			}
		}
	}
	health := browserRequest{"health", http.MethodGet, "/healthz", "", nil}
	if status, body := health.send(t, p.BaseURL, "load-balancer.internal"); status != http.StatusOK {
		t.Errorf("/healthz under another name: %d %s, want 200", status, body)
	}
}

func TestServer_refuses_writes_of_other_origins(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_CORS_ORIGINS=https://shop.example")
	for _, r := range browserRequests {
		safe := r.method == http.MethodGet
		for _, tt := range []struct {
			header  []string
			refused bool
		}{
			{[]string{"Origin", "https://evil.example"}, !safe || r.name == "a WebSocket"},
			{[]string{"Origin", "null"}, !safe || r.name == "a WebSocket"},
			{[]string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, !safe || r.name == "a WebSocket"},
			{[]string{"Origin", "https://other.shop.example", "Sec-Fetch-Site", "same-site"}, !safe || r.name == "a WebSocket"},
			{[]string{"Origin", "https://shop.example", "Sec-Fetch-Site", "cross-site"}, false},
			{[]string{"Sec-Fetch-Site", "same-origin"}, false},
			{nil, false},
		} {
			status, body := r.send(t, p.BaseURL, "", tt.header...)
			if refused := status == http.StatusForbidden; refused != tt.refused {
				t.Errorf("%s with %v: %d %s, want it refused: %v", r.name, tt.header, status, body, tt.refused)
			}
		}
	}
}
