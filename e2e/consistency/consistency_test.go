package consistency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// pair is two nodes on one PostgreSQL and one Redis, and the clients that read and
// write through both.
type pair struct {
	nodes  []*testenv.Process
	broker *testenv.Broker
	wire   *testenv.Proxy // between the nodes and the Redis
	redis  *redis.Client  // past the wire
	token  string         // of an ADMIN, for as long as it takes

	users, products []string // ids
	orders          []string // ids, of all users, guarded by mu
	mu              sync.Mutex

	start  time.Time
	down   atomic.Int64 // how often a node was killed or started so far
	enough atomic.Bool  // every disturbance has been tried
	broken []string     // answers that must not be, guarded by mu
}

func openPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{broker: testenv.RedisBroker(t), start: time.Now()}
	u, err := url.Parse(p.broker.URL)
	if err != nil {
		t.Fatal(err)
	}
	p.wire = testenv.NewProxy(t, u.Host)
	p.redis = redis.NewClient(&redis.Options{Addr: u.Host})
	t.Cleanup(func() { p.redis.Close() })
	database := testenv.Postgres(t)
	p.nodes = append(p.nodes, harness.StartServer(t, database, "BACKPLANE_REDIS_URL=redis://"+p.wire.Addr+"/0"))
	p.nodes = append(p.nodes, testenv.Server(t, harness.Settings(database, "BACKPLANE_REDIS_URL=redis://"+p.wire.Addr+"/0")...))
	p.open(t)
	return p
}

// open makes what the clients work on: few things, so that all are asked for all
// the time.
func (p *pair) open(t *testing.T) {
	t.Helper()
	root := harness.SignInAdmin(t, p.nodes[0])
	for i := range 6 {
		id := harness.Text(harness.SignUp(t, p.nodes[0], fmt.Sprint("user ", i)).Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		p.users = append(p.users, id)
		p.products = append(p.products, harness.CreateProduct(t, root, fmt.Sprint("P", i), 0))
		harness.CreateProduct(t, root, fmt.Sprint("Q", i), 1_000_000) // what is ordered: stocks of the others only grow
	}
	key := root.Do(t, `mutation { createApiKey(input: {name: "checker",
		scopes: ["users:read", "users:write", "products:write", "orders:read", "orders:write"]}) { secret userErrors { code } } }`, nil)
	if p.token = harness.Text(key, "createApiKey", "secret"); p.token == "" {
		t.Fatalf("createApiKey gave %v", key)
	}
}

// client is one goroutine that reads and writes.
type client struct {
	*pair

	n    int
	rnd  *rand.Rand
	seen []seen
}

// action is one thing that a client does: an operation, and what its answer says.
type action struct {
	query string
	vars  map[string]any
	note  func(data map[string]any, see func(entity string, version int, content string))
	write bool
}

// do does something through a node. An answer that does not come is excused if the
// node was killed meanwhile.
func (c *client) do(ctx context.Context, a action, node int) {
	down, began := c.down.Load(), time.Since(c.start)
	got, err := harness.Caller{BaseURL: c.nodes[node].BaseURL, Token: c.token}.Send(ctx, a.query, a.vars)
	ended := time.Since(c.start)
	if err != nil || got.Status != 200 || len(got.Errors) > 0 {
		if c.down.Load() == down && down%2 == 0 {
			c.failf("through node %d: %v, %+v, to %s", node, err, got, a.query)
		} else {
			harness.Pause(ctx, 20*time.Millisecond) // it is coming back
		}
		return
	}
	a.note(got.Data, func(entity string, version int, content string) {
		c.seen = append(c.seen, seen{c.n, node, entity, version, content, a.write, began, ended})
	})
}

func (p *pair) failf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = append(p.broken, fmt.Sprintf(format, args...))
}

func (p *pair) anOrder(rnd *rand.Rand) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.orders) == 0 {
		return "ord_00000000000000000000000000"
	}
	return p.orders[max(0, len(p.orders)-1-rnd.IntN(8))]
}

// pick chooses what to do next: one in six changes something.
func (c *client) pick() action {
	user, product, order := c.users[c.rnd.IntN(len(c.users))], c.products[c.rnd.IntN(len(c.products))], c.anOrder(c.rnd)
	if c.rnd.IntN(6) == 0 {
		changes := []func() action{
			func() action { return renameUser(user, fmt.Sprint("client ", c.n, " at ", len(c.seen))) },
			func() action { return renameProduct(product, fmt.Sprint("client ", c.n, " at ", len(c.seen))) },
			func() action { return addStock(product) },
			func() action { return c.place(user) },
			func() action { return cancel(order) },
		}
		return changes[c.rnd.IntN(len(changes))]()
	}
	reads := []func() action{
		func() action { return readUser(user) },
		func() action { return readProduct(product) },
		func() action { return readOrder(order) },
		func() action { return readNodes(user, product, order) },
		func() action { return readList(user) },
		readLists,
	}
	return reads[c.rnd.IntN(len(reads))]()
}

// work does so many things, and more until everything that may happen has happened.
func (c *client) work(ctx context.Context, times int) {
	for n := 0; ctx.Err() == nil && (n < times || !c.enough.Load()); n++ {
		c.do(ctx, c.pick(), c.rnd.IntN(len(c.nodes)))
	}
}

// rush has 16 clients do so many things in all while disturb goes on, and returns
// what they have seen.
func (p *pair) rush(ctx context.Context, times int, disturb func()) history {
	const clients = 16
	all := make([]*client, clients)
	var wg sync.WaitGroup
	for n := range all {
		all[n] = &client{pair: p, n: n, rnd: rand.New(rand.NewPCG(uint64(n), 1))}
		wg.Go(func() { all[n].work(ctx, times/clients) })
	}
	over := make(chan struct{})
	go func() {
		wg.Wait()
		close(over)
	}()
	for working := true; working; {
		disturb()
		select {
		case <-over:
			working = false
		default:
		}
	}
	h := make(history, clients)
	for n, c := range all {
		h[n] = c.seen
	}
	return h
}

// disturbances are what may happen to a pair; each ends as it began.
func (p *pair) disturbances(t *testing.T) []func() {
	ctx := t.Context()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return []func(){
		func() { // a pause that hits every command and every connection
			must(p.redis.Do(ctx, "CLIENT", "PAUSE", "400", "ALL").Err())
			harness.Pause(ctx, 500*time.Millisecond)
		},
		func() {
			p.wire.Cut()
			harness.Pause(ctx, 300*time.Millisecond)
			p.wire.Heal()
		},
		func() {
			p.wire.Stall()
			harness.Pause(ctx, 500*time.Millisecond)
			p.wire.Heal()
		},
		func() { p.wire.Lose() },
		func() { must(p.redis.FlushAll(ctx).Err()) },
		func() {
			p.broker.Halt()
			harness.Pause(ctx, 200*time.Millisecond)
			p.broker.Start()
		},
		func() {
			p.down.Add(1)
			p.nodes[1].Kill()
			p.nodes[1].Start()
			p.down.Add(1)
		},
	}
}

// TestServer_never_reads_older_than_promised reads and writes through two
// nodes while what they share breaks, and checks what every client has seen.
func TestServer_never_reads_older_than_promised(t *testing.T) {
	t.Parallel()
	p := openPair(t)
	ctx, end := context.WithTimeoutCause(t.Context(), time.Duration(harness.Size(2, 20))*time.Minute, errors.New("the rush did not end"))
	defer end()
	disturbances, n := p.disturbances(t), 0
	h := p.rush(ctx, harness.Size(3_000, 100_000), func() {
		harness.Pause(ctx, 200*time.Millisecond)
		disturbances[n%len(disturbances)]()
		n++
		p.enough.Store(n >= len(disturbances))
	})
	var writes, observations int
	for s := range h.all() {
		observations++
		if s.write {
			writes++
		}
	}
	t.Logf("%d observations, %d of them writes, around %d disturbances", observations, writes, n)
	if n < len(disturbances) || writes == 0 || ctx.Err() != nil {
		t.Errorf("%d disturbances of %d kinds, %d writes, %v: the test did not do what it is for", n, len(disturbances), writes, context.Cause(ctx))
	}
	report(t, "seen", h.check(staleness))
	report(t, "an answer that must not be", p.broken)
}

// report fails the test for each of the wrongs, but writes down only the first.
func report(t *testing.T, what string, wrong []string) {
	t.Helper()
	for i, w := range wrong {
		if i == 10 {
			t.Errorf("and %d more", len(wrong)-i)
			return
		}
		t.Errorf("%s: %s", what, w)
	}
}

// The things that clients do.

const (
	userFields    = `user_id: id user_version: version user_name: name`
	productFields = `product_id: id product_version: version product_name: name stock`
	orderFields   = `order_id: id order_version: version status`
)

// noteAll notes every user, product and order that an answer holds, wherever.
func noteAll(data any, see func(entity string, version int, content string)) {
	switch v := data.(type) {
	case []any:
		for _, one := range v {
			noteAll(one, see)
		}
	case map[string]any:
		if id := harness.Text(v, "user_id"); id != "" {
			see(id, harness.Number(v, "user_version"), harness.Text(v, "user_name"))
		}
		if id := harness.Text(v, "product_id"); id != "" {
			see(id, harness.Number(v, "product_version"), harness.Text(v, "product_name"))
			see("stock of "+id, harness.Number(v, "stock"), "")
		}
		if id := harness.Text(v, "order_id"); id != "" {
			see(id, harness.Number(v, "order_version"), harness.Text(v, "status"))
		}
		if total, ok := v["totalCount"]; ok {
			see("number of orders of "+harness.Text(v, "of"), int(total.(float64)), "")
		}
		for _, one := range v {
			noteAll(one, see)
		}
	}
}

func noted(data map[string]any, see func(string, int, string)) { noteAll(data, see) }

func readUser(id string) action {
	return action{`query($id: ID!) { user(id: $id) { ` + userFields + ` } }`, map[string]any{"id": id}, noted, false}
}

func readProduct(id string) action {
	return action{`query($id: ID!) { product(id: $id) { ` + productFields + ` } }`, map[string]any{"id": id}, noted, false}
}

func readOrder(id string) action {
	return action{`query($id: ID!) { order(id: $id) { ` + orderFields + ` user { ` + userFields + ` } items { sku } } }`, map[string]any{"id": id}, noted, false}
}

func readNodes(ids ...string) action {
	return action{`query($ids: [ID!]!) { nodes(ids: $ids) {
		... on User { ` + userFields + ` } ... on Product { ` + productFields + ` } ... on Order { ` + orderFields + ` } } }`, map[string]any{"ids": ids}, noted, false}
}

// readList reads the newest orders of a user and how many there are, which only
// grows.
func readList(user string) action {
	return action{`query($id: ID!) { user(id: $id) { ` + userFields + ` orders(first: 3) { nodes { ` + orderFields + ` } totalCount } } }`,
		map[string]any{"id": user}, func(data map[string]any, see func(string, int, string)) {
			if list, ok := harness.At(data, "user", "orders").(map[string]any); ok {
				list["of"] = user
			}
			noteAll(data, see)
		}, false}
}

func readLists() action {
	return action{`{ orders(first: 5) { nodes { ` + orderFields + ` user { ` + userFields + ` } } totalCount }
		products(first: 5, filter: {skus: ["P0", "P1", "P2", "P3", "P4", "P5"]}) { nodes { ` + productFields + ` } } users(first: 5) { nodes { ` + userFields + ` } } }`, nil, noted, false}
}

func renameUser(id, name string) action {
	return action{`mutation($id: ID!, $name: String!) { updateUser(input: {id: $id, name: $name}) { user { ` + userFields + ` } userErrors { code } } }`,
		map[string]any{"id": id, "name": name}, noted, true}
}

func renameProduct(id, name string) action {
	return action{`mutation($id: ID!, $name: String!) { updateProduct(input: {id: $id, name: $name}) {
		product { product_id: id product_version: version product_name: name } userErrors { code } } }`,
		map[string]any{"id": id, "name": name}, func(data map[string]any, see func(string, int, string)) {
			p := harness.At(data, "updateProduct", "product")
			see(harness.Text(p, "product_id"), harness.Number(p, "product_version"), harness.Text(p, "product_name"))
		}, true}
}

// addStock reads the stock of the answer, which is another statement, so that it
// counts as read and not as written.
func addStock(id string) action {
	return action{`mutation($id: ID!) { adjustStock(input: {productId: $id, by: 1}) { product { product_id: id stock } userErrors { code } } }`,
		map[string]any{"id": id}, func(data map[string]any, see func(string, int, string)) {
			see("stock of "+id, harness.Number(data, "adjustStock", "product", "stock"), "")
		}, false}
}

func (c *client) place(user string) action {
	return action{`mutation($user: ID!, $sku: String!) { placeOrder(input: {userId: $user, items: [{sku: $sku, quantity: 1}]}) {
		order { ` + orderFields + ` } userErrors { code } } }`,
		map[string]any{"user": user, "sku": fmt.Sprint("Q", c.rnd.IntN(6))}, func(data map[string]any, see func(string, int, string)) {
			noteAll(data, see)
			c.mu.Lock()
			defer c.mu.Unlock()
			if id := harness.Text(data, "placeOrder", "order", "order_id"); id != "" {
				c.orders = append(c.orders, id)
			}
		}, true}
}

func cancel(id string) action {
	return action{`mutation($id: ID!) { cancelOrder(input: {id: $id}) { order { ` + orderFields + ` } userErrors { code } } }`, map[string]any{"id": id}, noted, true}
}
