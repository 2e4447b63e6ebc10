package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// call sends an operation and returns the status and the start of the response; 0 if there was none.
func call(ctx context.Context, client *http.Client, p *testenv.Process, token, query string, vars map[string]any) (status int, response string) {
	body, _ := json.Marshal(map[string]any{"query": query, "variables": vars}) // these encode
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.BaseURL+"/graphql", bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/graphql-response+json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return 0, err.Error()
	}
	_, _ = io.Copy(io.Discard, resp.Body) // its length does not matter
	return resp.StatusCode, string(text)
}

// The attacker is one account at one address; the ordinary users have addresses of their own.
const attackerAddress = "127.0.0.1"

func userAddress(i int) string { return fmt.Sprintf("127.0.1.%d", i+1) }

// game is one attacker with a free account beside ordinary users.
type game struct {
	p        *testenv.Process
	attacker string       // its access token
	client   *http.Client // of the attacker
	wg       sync.WaitGroup
}

// products is how many products the users order. The attacker orders the first one.
const products = 10

// pause is the time that a request of the attacker is under way at least.
const pause = 5 * time.Millisecond

// repeat calls attack in n goroutines until ctx ends.
func (g *game) repeat(ctx context.Context, n int, attack func(i, round int)) {
	for i := range n {
		g.wg.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				attack(i, round)
				harness.Pause(ctx, pause)
			}
		})
	}
}

// attack runs all attacks at once until ctx ends.
func (g *game) attack(ctx context.Context) {
	post := func(token, query string, vars map[string]any) { call(ctx, g.client, g.p, token, query, vars) }
	counts := "{"
	for i := range 30 {
		counts += fmt.Sprintf(" c%d: events(first: 0, types: [ORDER_PLACED]) { totalCount }", i)
	}
	// Responses that are not read, subscriptions with large filters, and counts of the log.
	g.repeat(ctx, 3, func(i, round int) { g.floodSocket(ctx, "", i, func(n int) string { return largeQuery(100*round + n) }) })
	types := strings.Repeat("ORDER_PLACED ", 9_000)
	g.repeat(ctx, 3, func(i, round int) {
		g.floodSocket(ctx, g.attacker, i, func(n int) string {
			return fmt.Sprintf("subscription s%d_%d_%d { events(types: [", i, round, n) + types + "]) { id } }"
		})
	})
	g.repeat(ctx, 16, func(_, _ int) { post(g.attacker, counts+"}", nil) })
	g.repeat(ctx, 16, func(i, _ int) { post("", largeQuery(i), nil) })
	// Right and wrong passwords, and changes.
	signIn := func(login, password string) string {
		return fmt.Sprintf(`mutation { signIn(input: {login: %q, password: %q}) { session { id } } }`, login, password)
	}
	g.repeat(ctx, 8, func(_, _ int) { post("", signIn("mallory", "a password of mine"), nil) })
	g.repeat(ctx, 4, func(i, round int) { post("", signIn(fmt.Sprint("user ", (i+round)%50), "a guess"), nil) })
	g.repeat(ctx, 8, func(_, _ int) {
		post(g.attacker, `mutation { placeOrder(input: {items: [{sku: "P0", quantity: 1}]}) { order { id } } }`, nil)
	})
	// Connections that lie idle, and bodies that are sent in part.
	for range 4 {
		g.wg.Go(func() { g.holdConnections(ctx) })
	}
}

// floodSocket opens a socket, starts 80 operations, whose texts need no escapes, and reads nothing until the server closes the socket, for at most five seconds.
func (g *game) floodSocket(ctx context.Context, token string, seed int, operation func(n int) string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(g.p.BaseURL, "http")+"/graphql", //nolint:bodyclose // the socket is the body
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: slowDialer()}, Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // the server may have closed it
	// Messages are put together without an encoder: the attacker has the same processors as the server.
	message := `{"type":"connection_init"}`
	if token != "" {
		message = `{"type":"connection_init","payload":{"authorization":"Bearer ` + token + `"}}`
	}
	for n := 0; n <= 80 && conn.Write(ctx, websocket.MessageText, []byte(message)) == nil; n++ {
		message = fmt.Sprintf(`{"type":"subscribe","id":"%d-%d","payload":{"query":"`, seed, n) + operation(n) + `"}}`
	}
	<-ctx.Done()
}

// heldConnections bounds the connections that each goroutine holds at a time: together they are beyond what one address may have.
const heldConnections = 1000

// holdConnections opens connections, sends a part of a request on each, and closes the oldest one when it holds too many.
func (g *game) holdConnections(ctx context.Context) {
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			conn.Close()
		}
	}()
	for n := 0; ctx.Err() == nil; n++ {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", strings.TrimPrefix(g.p.BaseURL, "http://"))
		if err == nil {
			held = append(held, conn)
			part := ""
			if n%2 == 0 {
				part = "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat(" ", 64<<10)
			}
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(conn, part)
		}
		if len(held) > heldConnections {
			held[0].Close()
			held = held[1:]
		}
		harness.Pause(ctx, pause)
	}
}

// ordinaryUser is a customer at an address of its own.
type ordinaryUser struct {
	name, token string
	client      *http.Client
	times       []time.Duration
	busy        int // answers that asked it to come again
	failures    []string
}

// joinUsers signs users up, each at its address.
func joinUsers(t *testing.T, p *testenv.Process, n int) []*ordinaryUser {
	t.Helper()
	var users []*ordinaryUser
	for i := range n {
		u := &ordinaryUser{name: fmt.Sprint("user ", i), client: clientAt(t, userAddress(i))}
		u.token = signUpAt(t, p, u.client, u.name)
		users = append(users, u)
	}
	return users
}

func signUpAt(t *testing.T, p *testenv.Process, client *http.Client, name string) (token string) {
	t.Helper()
	_, response := call(t.Context(), client, p, "", `mutation($n: String!) { signUp(input: {username: $n, password: "a password of mine"}) { session { accessToken } } }`, map[string]any{"n": name})
	var answer map[string]any
	if err := json.Unmarshal([]byte(response), &answer); err != nil {
		t.Fatalf("signing %s up gave %s", name, response)
	}
	return harness.Text(answer, "data", "signUp", "session", "accessToken")
}

// act uses the server until ctx ends: the user looks at its orders twice a second, and places one now and then. It comes again, as
// it is asked to, when the server is busy: a machine with other work may be too slow for the queues. Users do not act in step:
// number says when in a second, and with what, this one begins.
func (u *ordinaryUser) act(ctx context.Context, p *testenv.Process, number int) {
	harness.Pause(ctx, time.Duration(number)*10*time.Millisecond)
	for n := number; ctx.Err() == nil; n++ {
		query, want := `{ viewer { user { name username } orders(first: 5) { nodes { id total { amount } } } } }`, fmt.Sprintf("%q", u.name)
		if n%5 == 2 {
			query, want = fmt.Sprintf(`mutation { placeOrder(input: {items: [{sku: "P%d", quantity: 1}]}) { order { status } userErrors { code } } }`, n/5%products), `"PENDING"`
		}
		begun := time.Now()
		status, response := call(context.WithoutCancel(ctx), u.client, p, u.token, query, nil)
		for tries := 1; strings.Contains(response, `"SERVER_BUSY"`) && tries < 10; tries++ {
			u.busy++
			harness.Pause(context.WithoutCancel(ctx), time.Second)
			status, response = call(context.WithoutCancel(ctx), u.client, p, u.token, query, nil)
		}
		u.times = append(u.times, time.Since(begun))
		if status != http.StatusOK || !strings.Contains(response, want) || strings.Contains(response, `"errors"`) {
			u.failures = append(u.failures, fmt.Sprint(status, " ", response))
		}
		harness.Pause(ctx, 500*time.Millisecond)
	}
}

// isHealthy reports whether /healthz is green to an address that does not attack. Only a soak asks for haste.
func isHealthy(p *testenv.Process) bool {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	client := &http.Client{Timeout: time.Duration(harness.Size(10, 1)) * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get(p.BaseURL + "/healthz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TestServer_serves_others_while_one_account_attacks plays on each database with the limits that a server has by default: for a few seconds, in
// which each call of others must succeed, and for a minute in a soak, which also asserts how fast they are, with the times that they were made to wait.
func TestServer_serves_others_while_one_account_attacks(t *testing.T) { //nolint:paralleltest // it takes what a server may have
	for name, empty := range harness.Databases { //nolint:paralleltest // as above
		t.Run(name, func(t *testing.T) {
			p, admin := startWithLongTexts(t, empty(t), "BACKPLANE_RATE_LIMIT=on")
			for i := range products {
				harness.CreateProduct(t, admin, fmt.Sprint("P", i), 1_000_000)
			}
			users := joinUsers(t, p, 50)
			g := &game{p: p, client: clientAt(t, attackerAddress)}
			g.attacker = signUpAt(t, p, g.client, "mallory")
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(harness.Size(4, 60))*time.Second)
			defer cancel()
			g.attack(ctx)
			for i, u := range users {
				g.wg.Go(func() { u.act(ctx, p, i) })
			}
			unhealthy := 0
			for ctx.Err() == nil {
				if !isHealthy(p) {
					unhealthy++
				}
				harness.Pause(ctx, time.Second)
			}
			g.wg.Wait()
			checkGame(t, p, users, unhealthy)
		})
	}
}

// checkGame reports what the users saw.
func checkGame(t *testing.T, p *testenv.Process, users []*ordinaryUser, unhealthy int) {
	t.Helper()
	var times []time.Duration
	var failures []string
	busy := 0
	for _, u := range users {
		times, failures = append(times, u.times...), append(failures, u.failures...)
		busy += u.busy
	}
	slices.Sort(times)
	p99, peak := times[len(times)*99/100], harness.PeakBytes(t, p)
	load, _ := os.ReadFile("/proc/loadavg") // only shown
	t.Logf("%d calls of others, %d times asked to come again: p50 %v, p99 %v, longest %v; the server took %d MiB at most; load %s",
		len(times), busy, times[len(times)/2], p99, times[len(times)-1], peak>>20, load)
	if len(failures) > 0 {
		t.Errorf("%d of %d calls of others failed, the first with %s", len(failures), len(times), failures[0])
	}
	if unhealthy > 0 || !isHealthy(p) {
		t.Errorf("/healthz was not answered %d times", unhealthy)
	}
	if peak > 1<<30 {
		t.Errorf("the server took %d MiB, want less than 1 GiB", peak>>20)
	}
	if testenv.Soak() && p99 >= 250*time.Millisecond {
		t.Errorf("the p99 of others is %v, want less than 250 ms", p99)
	}
}
