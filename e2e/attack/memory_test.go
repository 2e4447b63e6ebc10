package attack

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	_ "github.com/jackc/pgx/v5/stdlib" // to write long texts by SQL
	_ "modernc.org/sqlite"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// maxPeak is the resident memory that no attack may exceed, in bytes: the budget for requests,
// as much again for the garbage collector, and what a server has anyway.
const maxPeak = 640 << 20

// startWithLongTexts starts a server whose anonymous callers can ask for responses of many MB,
// and returns another caller.
func startWithLongTexts(t *testing.T, database string, more ...string) (*testenv.Process, harness.Caller) {
	t.Helper()
	harness.RunCommand(t, database, "migrate")
	harness.RunCommand(t, database, "seed", "--users", "1", "--orders", "1")
	driver, source := "pgx", database
	if path, embedded := strings.CutPrefix(database, "sqlite:"); embedded {
		driver, source = "sqlite", "file:"+path
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `UPDATE products SET active = true, description = $1`, strings.Repeat("x", 5_000)); err != nil {
		t.Fatal(err)
	}
	p := testenv.Server(t, harness.Settings(database, more...)...)
	answer, err := harness.Anonymous(p).Send(t.Context(), largeQuery(0), nil)
	if err != nil || len(fmt.Sprint(answer.Data)) < 8<<20 {
		t.Fatalf("the large query has a response of %d bytes and errors %v, %v", len(fmt.Sprint(answer.Data)), answer.Errors, err)
	}
	return p, harness.SignInAdmin(t, p)
}

// largeQuery asks for about 15 MB.
func largeQuery(number int) string {
	var q strings.Builder
	for i := range 30 {
		fmt.Fprintf(&q, "a%d_%d: products(first: 100) { nodes { description } } ", number, i)
	}
	return "{" + q.String() + "}"
}

// slowDialer opens connections with a small receive window, over which responses come as they are.
func slowDialer() *http.Transport {
	return &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4096)
		}
		return conn, err
	}}
}

// checkServerHolds checks that others are served, and that the server stayed within maxPeak.
func checkServerHolds(t *testing.T, p *testenv.Process, other harness.Caller) {
	t.Helper()
	other.Do(t, "{ viewer { user { name } } }", nil)
	if peak := harness.PeakBytes(t, p); peak > maxPeak {
		t.Errorf("the server took %d MiB, want at most %d", peak>>20, maxPeak>>20)
	} else {
		t.Logf("the server took %d MiB at most", peak>>20)
	}
}

func TestServer_bounds_the_memory_of_a_socket_that_is_not_read(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p, other := startWithLongTexts(t, database)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, send := openSocket(ctx, t, p)
		for i := range 80 {
			send(map[string]any{"type": "subscribe", "id": fmt.Sprint(i), "payload": map[string]any{"query": largeQuery(i)}})
		}
		harness.Pause(ctx, 4*time.Second)
		checkServerHolds(t, p, other)
	})
}

func TestServer_bounds_the_memory_of_an_event_stream_that_is_not_read(t *testing.T) {
	t.Parallel()
	p, other := startWithLongTexts(t, harness.Databases["SQLite"](t))
	anonymous := harness.Anonymous(p)
	token := string(anonymous.MustREST(t, http.StatusCreated, "PUT /graphql", "").Body)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.BaseURL+"/graphql?token="+token, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := (&http.Client{Transport: slowDialer()}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // it is not read
	for i := range 80 {
		start, err := json.Marshal(map[string]any{"query": largeQuery(i), "extensions": map[string]any{"operationId": fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		anonymous.MustREST(t, http.StatusAccepted, "POST /graphql", string(start), "Content-Type", "application/json", "X-GraphQL-Event-Stream-Token", token)
	}
	harness.Pause(t.Context(), 4*time.Second)
	checkServerHolds(t, p, other)
}

func TestServer_bounds_the_memory_of_responses_that_are_not_read(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p, other := startWithLongTexts(t, database)
		client := &http.Client{Transport: slowDialer(), Timeout: 30 * time.Second}
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				body, _ := json.Marshal(map[string]any{"query": largeQuery(i)}) // text encodes
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, p.BaseURL+"/graphql", bytes.NewReader(body))
				req.Header.Set("Content-Type", "application/json")
				resp, err := client.Do(req)
				if err == nil { // the body is not read
					t.Cleanup(func() { resp.Body.Close() })
				}
			})
		}
		wg.Wait()
		checkServerHolds(t, p, other)
	})
}

func TestServer_bounds_the_memory_of_bodies_that_are_sent_in_part(t *testing.T) {
	t.Parallel()
	p, other := startWithLongTexts(t, harness.Databases["SQLite"](t))
	const bodies = 1000
	part := bytes.Repeat([]byte(" "), 1000<<10)
	var wg sync.WaitGroup
	address := strings.TrimPrefix(p.BaseURL, "http://")
	for range bodies {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		wg.Go(func() {
			_, _ = fmt.Fprintf(conn, "POST /graphql HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", address, 1<<20)
			_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
			_, _ = conn.Write(part) // the server may refuse to read it
		})
	}
	wg.Wait()
	checkServerHolds(t, p, other)
	if peak := harness.PeakBytes(t, p); peak > maxPeak*2/3 { // the callers of one address have a part of the budget
		t.Errorf("the server took %d MiB for bodies of one address", peak>>20)
	}
}

// openSocket opens an anonymous WebSocket and returns what sends a message.
func openSocket(ctx context.Context, t *testing.T, p *testenv.Process) (*websocket.Conn, func(message any)) {
	t.Helper()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(p.BaseURL, "http")+"/graphql", //nolint:bodyclose // the socket is the body
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: slowDialer()}, Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	send := func(message any) {
		text, _ := json.Marshal(message) // these encode
		if err := conn.Write(ctx, websocket.MessageText, text); err != nil {
			t.Fatal(err)
		}
	}
	send(map[string]any{"type": "connection_init"})
	if _, _, err := conn.Read(ctx); err != nil {
		t.Fatal(err)
	}
	return conn, send
}

func TestServer_bounds_the_memory_of_subscriptions(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	other := harness.SignInAdmin(t, p)
	customer := harness.SignUp(t, p, "mallory")
	repeated := strings.Repeat("ORDER_PLACED ", 9_000)
	values := make([]string, 40_000)
	for i := range values {
		values[i] = "ORDER_PLACED"
	}
	if code := customer.RefusalCode(t, `query($types: [EventType!]) { events(first: 1, types: $types) { totalCount } }`, map[string]any{"types": values}); code != "BAD_INPUT" {
		t.Errorf("a list of 40,000 equal values: %q, want BAD_INPUT", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // 360 documents of 9,000 tokens are parsed
	defer cancel()
	for socket := range 4 {
		_, send := openSocket(ctx, t, p)
		send(map[string]any{"type": "ping", "payload": map[string]any{"authorization": "Bearer " + customer.Token}})
		for i := range 90 { // each with a document of its own
			send(map[string]any{"type": "subscribe", "id": fmt.Sprint(i), "payload": map[string]any{
				"query":     fmt.Sprintf("subscription s%d_%d { events(types: [%s]) { id } }", socket, i, repeated),
				"variables": map[string]any{"unused": values[:1000]}}})
		}
	}
	harness.Pause(ctx, 2*time.Second)
	checkServerHolds(t, p, other)
}
