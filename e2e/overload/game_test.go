package overload

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// Size and phases of the game.
const (
	readers      = 24              // users, so that no one's share of the connections is the limit
	quietTime    = 2 * time.Second // of load before the stall
	stallTime    = 2 * time.Second
	recoveryTime = 3 * time.Second // of load after the stall
)

// game is one node on a database behind a proxy, with live connections and clients that never pause.
type game struct {
	p       *testenv.Process
	proxy   *testenv.Proxy
	root    harness.Caller
	readers []harness.Caller
	product string
	sockets []harness.Subscription

	mu       sync.Mutex
	answered map[string]map[string]int // by phase, then by outcome: "ok" or a code
	phase    atomic.Pointer[string]
}

func startGame(t *testing.T, sockets int) *game {
	t.Helper()
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	g := &game{proxy: testenv.NewProxy(t, u.Host), answered: map[string]map[string]int{}}
	u.Host = g.proxy.Addr
	g.p = harness.StartServer(t, u.String(), "BACKPLANE_LIMIT_ADDRESS_CONNECTIONS=10000")
	g.root = harness.SignInAdmin(t, g.p)
	g.product = harness.CreateProduct(t, g.root, "P", 1)
	for n := range readers {
		g.readers = append(g.readers, harness.SignUp(t, g.p, fmt.Sprint("reader", n)))
	}
	after := g.root.LogHead(t)
	for n := range sockets {
		g.sockets = append(g.sockets, harness.Subscribe(t, "socket", g.readers[n%len(g.readers)], harness.FollowEvents, map[string]any{"after": after}))
	}
	return g
}

// query asks for rows that the caches have, and for a page of the log, which only the database has.
const query = `query($id: ID!) { viewer { user { id name } } product(id: $id) { sku stock } events(first: 3, types: [PRODUCT_CREATED]) { nodes { cursor } } }`

func (g *game) setPhase(name string) { g.phase.Store(&name) }

// runClient asks again and again until ctx ends.
func (g *game) runClient(ctx context.Context, n int) {
	c := g.readers[n%len(g.readers)]
	for ctx.Err() == nil {
		phase := *g.phase.Load()
		a, err := c.Send(ctx, query, map[string]any{"id": g.product})
		if ctx.Err() != nil {
			return
		}
		outcome := "ok"
		switch {
		case err != nil:
			outcome = "no answer"
		case len(a.Errors) > 0:
			outcome = fmt.Sprint(a.Errors[0].Extensions["code"])
		case a.Status != http.StatusOK:
			outcome = fmt.Sprint(a.Status)
		}
		g.mu.Lock()
		if g.answered[phase] == nil {
			g.answered[phase] = map[string]int{}
		}
		g.answered[phase][outcome]++
		g.mu.Unlock()
	}
}

// report logs the outcomes of each phase.
func (g *game) report(t *testing.T) {
	t.Helper()
	for _, phase := range slices.Sorted(maps.Keys(g.answered)) {
		t.Logf("%s: %v", phase, g.answered[phase])
	}
	t.Logf("peak memory %d MiB", harness.PeakBytes(t, g.p)>>20)
}

func TestServer_recovers_at_once_when_its_database_answers_again(t *testing.T) { //nolint:paralleltest // it takes what the machine has
	clients := harness.Size(300, 600)
	g := startGame(t, harness.Size(60, 8000))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g.setPhase("1 before")
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() { g.runClient(ctx, n) })
	}
	harness.Pause(ctx, quietTime)
	g.setPhase("2 stalled")
	g.proxy.Stall()
	harness.Pause(ctx, stallTime)
	g.proxy.Heal()
	g.setPhase("3 recovering")
	harness.Pause(ctx, time.Second)
	g.setPhase("4 after")
	harness.Pause(ctx, recoveryTime)
	cancel()
	wg.Wait()
	g.report(t)
	g.verify(t)
	g.verifySockets(t)
}

// verifySockets changes each reader, and wants the event on each socket.
func (g *game) verifySockets(t *testing.T) {
	t.Helper()
	for _, r := range g.readers {
		r.Do(t, `mutation($in: UpdateUserInput!) { updateUser(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": r.UserID(t), "name": "after the stall"}))
	}
	for n, s := range g.sockets {
		if m := harness.MustNext(t, s); harness.Text(m.Event, "type") != "USER_UPDATED" {
			t.Fatalf("socket %d of %d got %+v, want the event after the stall", n, len(g.sockets), m)
		}
	}
}

// verify checks that requests were refused as too many and for nothing else, and are served afterwards.
func (g *game) verify(t *testing.T) {
	t.Helper()
	allowed := map[string]bool{"ok": true, "SERVER_BUSY": true, "UNAVAILABLE": true, "TIMEOUT": true}
	for phase, outcomes := range g.answered {
		for outcome, n := range outcomes {
			if !allowed[outcome] {
				t.Errorf("%s: %d answers were %s", phase, n, outcome)
			}
		}
	}
	after := g.answered["4 after"]
	for outcome, n := range after {
		if outcome != "ok" && outcome != "SERVER_BUSY" {
			t.Errorf("a second after the stall %d answers were %s", n, outcome)
		}
	}
	before, recovered := float64(g.answered["1 before"]["ok"])/quietTime.Seconds(), float64(after["ok"])/recoveryTime.Seconds()
	if recovered < before/3 { // the machine has other work, too; a collapse leaves a tenth
		t.Errorf("%.0f requests a second were served after the stall, and %.0f before", recovered, before)
	}
}
