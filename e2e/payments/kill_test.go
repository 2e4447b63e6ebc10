package payments

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to read what the payment services stored

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestPayments_survive_the_death_of_every_process kills nodes and payment services at random while orders
// are placed. In the end every order is decided, and the shop has earned what was charged, to the cent.
func TestPayments_survive_the_death_of_every_process(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short run: there are no races of ours in other programs")
	}
	orders, kills := harness.Size(40, 2000), harness.Size(4, 80)
	database := testenv.Postgres(t)
	w := newKillWorld(t, database)
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d orders, %d kills, seed %d", orders, kills, seed)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var placed atomic.Int64
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for n := c; n < orders; n += 4 {
				w.place(ctx, n)
				placed.Add(1)
			}
		})
	}
	w.killAll(rand.New(rand.NewPCG(seed, 0)), kills, func(n int) {
		testenv.Eventually(t, "orders are placed although processes die", func() bool { return placed.Load() >= int64(orders*n/kills) })
	})
	clients.Wait()
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	w.awaitDecisions(orders)
	w.compareMoney(orders)
}

// killWorld is two nodes on one database, and two payment services on another.
type killWorld struct {
	t        *testing.T
	nodes    []*testenv.Process
	services []*service
	root     harness.Caller
	buyer    harness.Caller // by a key, which outlives the test
	payments string         // the database of the payment services
}

// stock is how many there are of each product; a lamp costs EUR 40.20, which is declined.
const stock = 100_000

func newKillWorld(t *testing.T, database string) *killWorld {
	t.Helper()
	w := &killWorld{t: t, payments: filepath.Join(t.TempDir(), "payments.db")}
	front := w.newFront()
	harness.RunCommand(t, database, "migrate")
	for range 2 {
		w.nodes = append(w.nodes, testenv.Server(t, harness.Settings(database, "BACKPLANE_PAYMENT_SERVICE="+serviceName, "BACKPLANE_PAYMENT_TIMEOUT=2s",
			"BACKPLANE_PAYMENT_CALLBACK_SECRETS="+secret, "BACKPLANE_PUBLIC_URL="+front, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8")...))
	}
	s := newShop(t, w.nodes...)
	w.root = s.root
	w.services = []*service{s.start(t, programs["Go"], "till-1", w.payments), s.start(t, programs["Go"], "till-2", w.payments, "--late", "300ms")}
	harness.SignUp(t, w.nodes[0], "mia")
	w.buyer = harness.WithAPIKey(t, w.root, "mia", "orders:read", "orders:write")
	for sku, price := range map[string]string{"mug": "12.50", "lamp": "40.20"} {
		w.root.Do(t, `mutation($sku: String!, $price: Decimal!, $stock: Int!) {
			createProduct(input: {sku: $sku, name: $sku, price: {amount: $price, currency: "EUR"}, stock: $stock}) { userErrors { code } } }`,
			map[string]any{"sku": sku, "price": price, "stock": stock})
	}
	return w
}

// newFront returns the URL of a proxy in front of the nodes, which takes one after the other.
func (w *killWorld) newFront() string {
	var turn atomic.Int64
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			node, err := url.Parse(w.nodes[turn.Add(1)%2].BaseURL)
			if err != nil {
				panic(err) // cannot happen: the URL is one of ours
			}
			r.SetURL(node)
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // nodes die
	})
	w.t.Cleanup(front.Close)
	return front.URL
}

// place places an order, and asks again at the other node until one has answered: the key makes it one order.
func (w *killWorld) place(ctx context.Context, n int) {
	item := harness.OrderLine("mug", 1+n%3)
	if isDeclined(n) {
		item = harness.OrderLine("lamp", 1)
	}
	for try := n; ctx.Err() == nil; try++ {
		c := w.buyer
		c.BaseURL = w.nodes[try%2].BaseURL
		a, err := c.Send(ctx, harness.PlaceOrder, map[string]any{"items": []any{item}, "key": fmt.Sprint("order ", n)})
		if err == nil && harness.Text(a.Data, "placeOrder", "order", "id") != "" {
			return
		}
		harness.Pause(ctx, 20*time.Millisecond)
	}
}

func isDeclined(n int) bool { return n%10 == 7 }

// killAll kills processes and starts them again, the first four each once, then any. Before the n-th kill
// it calls await.
func (w *killWorld) killAll(rnd *rand.Rand, kills int, await func(n int)) {
	first := rnd.Perm(4)
	for n := range kills {
		await(n)
		victim := rnd.IntN(4)
		if n < len(first) {
			victim = first[n]
		}
		if victim < 2 {
			w.nodes[victim].Kill()
			w.nodes[victim].Start()
		} else {
			w.services[victim-2].kill()
			w.services[victim-2].start()
		}
	}
}

// awaitDecisions waits until no order is PENDING and no payment is under way.
func (w *killWorld) awaitDecisions(orders int) {
	w.t.Helper()
	c := w.rootNow()
	harness.EventuallyWithin(w.t, 2*time.Minute, "every order is decided", func() bool {
		data := c.Do(w.t, `{ placed: orders(first: 0) { totalCount } open: orders(first: 0, filter: {status: [PENDING]}) { totalCount } payments(first: 0, filter: {status: [PENDING]}) { totalCount } }`, nil)
		return harness.Number(data, "placed", "totalCount") == orders && harness.Number(data, "open", "totalCount") == 0 && harness.Number(data, "payments", "totalCount") == 0
	})
}

// rootNow signs ADMIN in again, as the access token may have expired meanwhile.
func (w *killWorld) rootNow() harness.Caller {
	w.t.Helper()
	w.root = harness.SignInAdmin(w.t, w.nodes[0])
	return w.root
}

// compareMoney compares the orders, by the nodes, with the payments, by the database of the payment services.
func (w *killWorld) compareMoney(orders int) {
	w.t.Helper()
	declined := 0
	for n := range orders {
		if isDeclined(n) {
			declined++
		}
	}
	data := w.root.Do(w.t, `{ cancelled: orders(first: 0, filter: {status: [CANCELLED]}) { totalCount } lamp: productBySku(sku: "lamp") { stock } }`, nil)
	if got := harness.Number(data, "cancelled", "totalCount"); got != declined {
		w.t.Errorf("%d orders are cancelled, want the %d that were declined", got, declined)
	}
	if got := harness.Number(data, "lamp", "stock"); got != stock {
		w.t.Errorf("the stock of what was never sold is %d, want %d", got, stock)
	}
	earned, paid := w.earned()
	db, err := sql.Open("sqlite", "file:"+w.payments)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	var charged int64
	var payments, numbers int
	if err := db.QueryRow(`SELECT coalesce(sum(minor_units), 0), count(*), count(DISTINCT order_number) FROM payments WHERE status = 'SUCCEEDED'`).Scan(&charged, &payments, &numbers); err != nil {
		w.t.Fatal(err)
	}
	if earned != charged || paid != payments || payments != numbers || paid != orders-declined {
		w.t.Errorf("the shop has earned %d cents in %d orders, the payment services have charged %d in %d payments of %d orders, want %d", earned, paid, charged, payments, numbers, orders-declined)
	}
	w.t.Logf("%d cents earned and charged in %d orders; %d declined", earned, paid, declined)
}

// earned returns the cents and the number of the orders that are PAID.
func (w *killWorld) earned() (cents int64, paid int) {
	w.t.Helper()
	for after := any(nil); ; {
		page := harness.At(w.root.Do(w.t, `query($after: String) { orders(first: 100, after: $after, filter: {status: [PAID]}) { nodes { total { amount } } pageInfo { hasNextPage endCursor } } }`, map[string]any{"after": after}), "orders")
		for _, o := range harness.At(page, "nodes").([]any) {
			var whole, part int64
			if _, err := fmt.Sscanf(strings.Replace(harness.Text(o, "total", "amount"), ".", " ", 1), "%d %d", &whole, &part); err != nil {
				w.t.Fatal(err)
			}
			cents, paid = cents+100*whole+part, paid+1
		}
		if harness.At(page, "pageInfo", "hasNextPage") != true {
			return cents, paid
		}
		after = harness.Text(page, "pageInfo", "endCursor")
	}
}
