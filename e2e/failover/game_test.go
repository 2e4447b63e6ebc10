package failover

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// The size of the game.
const (
	clientsPerNode = 4
	orderPause     = 20 * time.Millisecond // between two orders of a client
	quietTime      = 2 * time.Second       // of load before a fail-over, and after the recovery
	recoveryLimit  = time.Minute           // far more than it takes; the times are logged
	recoveryGoal   = 5 * time.Second       // of 95 of 100 recoveries, in a soak
)

// game is some nodes on a primary with a standby behind HAProxy, under load.
type game struct {
	t        *testing.T
	primary  *testenv.Replica
	standby  *testenv.Replica
	balancer *local.Balancer
	nodes    []*testenv.Process
	admin    harness.Caller // an ADMIN's API key

	mu       sync.Mutex
	placed   map[string]string    // order id by idempotency key
	lastSent map[string]time.Time // when the last order was sent that a node acknowledged, by node
	faults   []string
	retries  map[string]int // answers after which a client asked again
}

func newGame(t *testing.T, nodes int) *game {
	t.Helper()
	g := &game{t: t, primary: testenv.PostgresPrimary(t, "max_connections=200"), placed: map[string]string{}, lastSent: map[string]time.Time{}, retries: map[string]int{}}
	g.balancer = testenv.TCPBalancer(t, g.primary.Address())
	database := through(t, g.primary.URL, g.balancer.URL)
	harness.RunCommand(t, database, "migrate")
	for range nodes {
		g.nodes = append(g.nodes, testenv.Server(t, harness.Settings(database)...))
	}
	g.renewStandby()
	root := harness.SignInAdmin(t, g.nodes[0])
	harness.CreateProduct(t, root, "P", 10_000_000)
	data := root.Do(t, `mutation { createApiKey(input: {name: "game", scopes: ["users:read", "products:write", "orders:read", "orders:write"]}) { secret userErrors { code } } }`, nil)
	g.admin = harness.Caller{BaseURL: g.nodes[0].BaseURL, Token: harness.Text(data, "createApiKey", "secret")}
	return g
}

// through returns the database URL with another host and port.
func through(t *testing.T, database, host string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = host
	return u.String()
}

// renewStandby gives the primary a standby, and has acknowledged mean replicated.
func (g *game) renewStandby() {
	g.t.Helper()
	g.standby = g.primary.Standby("max_connections=200")
	g.primary.Must(g.primary.Synchronize())
}

// failOver promotes the standby and has HAProxy send new connections there. The former primary is read-only
// before, and stays up, or it is ended.
func (g *game) failOver(stays bool) {
	g.t.Helper()
	former := g.primary
	if stays {
		former.Must(former.SetReadOnly())
	} else {
		former.Stop()
	}
	g.standby.Must(g.standby.Promote())
	g.standby.Must(g.balancer.Replace(0, g.standby.Address()))
	g.primary = g.standby
	g.t.Cleanup(former.Stop)
}

// at returns the caller's credential at the node.
func (g *game) at(node int) harness.Caller {
	return harness.Caller{BaseURL: g.nodes[node].BaseURL, Token: g.admin.Token}
}

func (g *game) note(fn func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn()
}

// runClient places orders at one node until over, each under its own key and again until it is acknowledged,
// and reads every one back.
func (g *game) runClient(ctx context.Context, node, client int, over <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		case <-time.After(orderPause):
		}
		key := fmt.Sprintf("node %d client %d order %d", node, client, n)
		id := g.placeOrder(ctx, node, key)
		if id == "" {
			return // the test is over
		}
		g.readBack(ctx, node, id)
	}
}

// placeOrder places an order, again until it is acknowledged.
func (g *game) placeOrder(ctx context.Context, node int, key string) (id string) {
	for ctx.Err() == nil {
		sent := time.Now()
		a, err := g.at(node).Send(ctx, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("P", 1)}, "key": key})
		if err == nil {
			id = harness.Text(a.Data, "placeOrder", "order", "id")
		}
		if id != "" {
			g.note(func() {
				g.placed[key] = id
				g.lastSent[g.nodes[node].BaseURL] = sent
			})
			return id
		}
		g.noteRefusal("placeOrder", a, err)
		harness.Pause(ctx, orderPause)
	}
	return ""
}

// readBack reads an order from the node that acknowledged it.
func (g *game) readBack(ctx context.Context, node int, id string) {
	a, err := g.at(node).Send(ctx, `query($id: ID!) { order(id: $id) { id } }`, map[string]any{"id": id})
	switch {
	case err == nil && harness.Text(a.Data, "order", "id") == id, ctx.Err() != nil:
	case err == nil && len(a.Errors) == 0:
		g.note(func() {
			g.faults = append(g.faults, fmt.Sprintf("node %d acknowledged %s and does not find it", node, id))
		})
	default:
		g.noteRefusal("order", a, err)
	}
}

// noteRefusal counts an answer without a result, which may only say that the database is not there.
func (g *game) noteRefusal(call string, a *harness.Answer, err error) {
	g.note(func() {
		code := fmt.Sprint(err)
		if err == nil {
			code = fmt.Sprint(a.Status)
			for _, e := range a.Errors {
				code, _ = e.Extensions["code"].(string)
			}
		}
		g.retries[code]++
		if !slices.Contains([]string{"UNAVAILABLE", "TIMEOUT", "IDEMPOTENCY_IN_FLIGHT"}, code) && len(g.faults) < 20 {
			g.faults = append(g.faults, fmt.Sprintf("%s was answered with %s: %+v", call, code, a))
		}
	})
}

// awaitRecovery returns how long each node took to acknowledge an order that was sent after the moment.
func (g *game) awaitRecovery(since time.Time) (times []time.Duration) {
	g.t.Helper()
	for _, node := range g.nodes {
		harness.EventuallyWithin(g.t, recoveryLimit, "every node acknowledges orders again", func() bool {
			var sent time.Time
			g.note(func() { sent = g.lastSent[node.BaseURL] })
			if sent.After(since) {
				times = append(times, time.Since(since))
			}
			return sent.After(since)
		})
	}
	return times
}

// play fails over so many times under load and compares what clients and followers got with the database.
func (g *game) play(rounds int) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	defer cancel()
	after := g.admin.EventCursor(g.t)
	followers := &harness.Audience{T: g.t, After: after}
	for node := range g.nodes {
		followers.Nodes = append(followers.Nodes, g.at(node))
	}
	for transport := range harness.Transports {
		followers.Join(transport)
		followers.Join(transport)
	}
	var clients sync.WaitGroup
	over := make(chan struct{})
	for node := range g.nodes {
		for client := range clientsPerNode {
			clients.Go(func() { g.runClient(ctx, node, client, over) })
		}
	}
	harness.Pause(ctx, quietTime)
	var times []time.Duration
	for round := range rounds {
		began := time.Now()
		g.failOver(round%2 == 0)
		times = append(times, g.awaitRecovery(began)...)
		if round < rounds-1 {
			g.renewStandby()
		}
		harness.Pause(ctx, quietTime)
	}
	close(over)
	clients.Wait()
	slices.Sort(times)
	p95 := times[len(times)*95/100]
	g.t.Logf("%d orders; recovery of a node: median %v, p95 %v, longest %v of %d; asked again after %v",
		len(g.placed), times[len(times)/2], p95, times[len(times)-1], len(times), g.retries)
	if testenv.Soak() && p95 > recoveryGoal {
		g.t.Errorf("95 of 100 recoveries took up to %v, want %v", p95, recoveryGoal)
	}
	g.verify()
	followers.Verify(g.admin.LogAfter(g.t, after, len(g.placed)))
}

// verify compares the orders that clients know with those of the database.
func (g *game) verify() {
	g.t.Helper()
	for _, fault := range g.faults {
		g.t.Error(fault)
	}
	ids := map[string]bool{}
	for _, id := range g.placed {
		ids[id] = true
	}
	stored := g.listOrders()
	for id := range ids {
		if !stored[id] {
			g.t.Errorf("the order %s was acknowledged and is lost", id)
		}
	}
	if len(stored) != len(ids) || len(ids) != len(g.placed) {
		g.t.Errorf("%d orders are stored, %d were acknowledged under %d keys", len(stored), len(ids), len(g.placed))
	}
	if out, err := g.nodes[0].Run("doctor"); err != nil {
		g.t.Errorf("doctor: %v\n%s", err, out)
	}
}

func (g *game) listOrders() map[string]bool {
	g.t.Helper()
	stored := map[string]bool{}
	for cursor := any(nil); ; {
		data := g.admin.Do(g.t, `query($after: String) { orders(first: 100, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }`, map[string]any{"after": cursor})
		nodes, _ := harness.At(data, "orders", "nodes").([]any)
		for _, n := range nodes {
			stored[harness.Text(n, "id")] = true
		}
		if more, _ := harness.At(data, "orders", "pageInfo", "hasNextPage").(bool); !more {
			return stored
		}
		cursor = harness.At(data, "orders", "pageInfo", "endCursor")
	}
}

func TestFailover_loses_no_order_and_no_event(t *testing.T) {
	t.Parallel()
	newGame(t, harness.Size(2, 3)).play(harness.Size(1, 10))
}
