package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// postQuery sends a query and returns the status, 0 if there was no response.
func postQuery(ctx context.Context, client *http.Client, p *testenv.Process, token, query string, vars map[string]any) int {
	body, _ := json.Marshal(map[string]any{"query": query, "variables": vars}) // these encode
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.BaseURL+"/graphql", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/graphql-response+json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // its length does not matter
	return resp.StatusCode
}

// game is 50 ordinary users beside one attacker with a free account.
type game struct {
	p        *testenv.Process
	attacker harness.Caller
	client   *http.Client // of the attacker: all from one address
}

// repeat calls attack in n goroutines until ctx ends.
func repeat(ctx context.Context, wg *sync.WaitGroup, n int, attack func(i int)) {
	for i := range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				attack(i)
			}
		})
	}
}

// attack runs all attacks at once until ctx ends.
func (g *game) attack(ctx context.Context, t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	address := strings.TrimPrefix(g.p.BaseURL, "http://")
	for range 3 { // sockets that are not read, with large queries and large subscriptions
		_, send := openSocket(ctx, t, g.p)
		for i := range 80 {
			send(map[string]any{"type": "subscribe", "id": fmt.Sprint(i), "payload": map[string]any{"query": largeQuery(i)}})
		}
	}
	counts := "{"
	for i := range 30 {
		counts += fmt.Sprintf(" c%d: events(first: 0, types: [ORDER_PLACED]) { totalCount }", i)
	}
	repeat(ctx, wg, 16, func(int) { postQuery(ctx, g.client, g.p, g.attacker.Token, counts+"}", nil) })
	repeat(ctx, wg, 16, func(i int) { postQuery(ctx, g.client, g.p, "", largeQuery(i), nil) })
	repeat(ctx, wg, 8, func(int) { // right passwords
		postQuery(ctx, g.client, g.p, "", `mutation { signIn(input: {login: "mallory", password: "a password of mine"}) { session { id } } }`, nil)
	})
	repeat(ctx, wg, 8, func(int) { // writes
		postQuery(ctx, g.client, g.p, g.attacker.Token, `mutation { placeOrder(input: {items: [{sku: "P0", quantity: 1}]}) { order { id } } }`, nil)
	})
	repeat(ctx, wg, 4, func(int) { // connections that lie idle, and bodies that are sent in part
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = fmt.Fprintf(conn, "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n%s", strings.Repeat(" ", 64<<10))
		harness.Pause(ctx, 10*time.Millisecond)
	})
}

// TestServer_serves_others_while_one_account_attacks plays for eight seconds, and a minute in a
// soak. It checks what is exact: that others are served, and the memory. How fast they are is
// logged.
func TestServer_serves_others_while_one_account_attacks(t *testing.T) { //nolint:paralleltest // it takes what a server may have
	p := startGame(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(harness.Size(8, 60))*time.Second)
	defer cancel()
	var users []harness.Caller
	for i := range 50 {
		users = append(users, harness.SignUp(t, p, fmt.Sprint("user ", i)))
	}
	g := &game{p: p, attacker: harness.SignUp(t, p, "mallory"), client: clientAt(t, "127.0.0.1")}
	var wg sync.WaitGroup
	g.attack(ctx, t, &wg)
	var mu sync.Mutex
	var times []time.Duration
	var failed atomic.Int64
	for i, u := range users {
		client := clientAt(t, fmt.Sprintf("127.0.1.%d", i+1))
		wg.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				status := postQuery(context.WithoutCancel(ctx), client, p, u.Token, `{ viewer { user { name } orders(first: 5) { nodes { id total { amount } } } } }`, nil)
				if status != http.StatusOK {
					failed.Add(1)
				}
				mu.Lock()
				times = append(times, time.Since(begun))
				mu.Unlock()
				harness.Pause(ctx, 500*time.Millisecond)
			}
		})
	}
	wg.Wait()
	slices.Sort(times)
	t.Logf("%d calls of others: p50 %v, p99 %v; the server took %d MiB at most", len(times), times[len(times)/2], times[len(times)*99/100], harness.PeakBytes(t, p)>>20)
	if n := failed.Load(); n > int64(len(times)/100) {
		t.Errorf("%d of %d calls of others failed", n, len(times))
	}
	if peak := harness.PeakBytes(t, p); peak > 1<<30 {
		t.Errorf("the server took %d MiB, want less than 1 GiB", peak>>20)
	}
	if !answersHealth(t, strings.TrimPrefix(p.BaseURL, "http://")) {
		t.Error("/healthz is not answered")
	}
}

func startGame(t *testing.T) *testenv.Process {
	t.Helper()
	p, admin := startWithLongTexts(t, harness.Databases["PostgreSQL"](t))
	harness.CreateProduct(t, admin, "P0", 1_000_000)
	return p
}
