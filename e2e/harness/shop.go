package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// CreateProduct adds a product and returns its id.
func CreateProduct(t *testing.T, c Caller, sku string, stock int) string {
	t.Helper()
	data := c.Do(t, `mutation($sku: String!, $stock: Int!) {
		createProduct(input: {sku: $sku, name: $sku, price: {amount: "12.50", currency: "EUR"}, stock: $stock}) { product { id } userErrors { code } }
	}`, map[string]any{"sku": sku, "stock": stock})
	id := Text(data, "createProduct", "product", "id")
	if id == "" {
		t.Fatalf("createProduct %s gave %v", sku, data)
	}
	return id
}

// PlaceOrder places an order of items, under an idempotency key if there is one.
const PlaceOrder = `mutation($items: [OrderItemInput!]!, $key: String) {
	placeOrder(input: {items: $items, idempotencyKey: $key}) { order { id number } userErrors { code path } }
}`

// OrderLine returns an item of an order.
func OrderLine(sku string, quantity int) map[string]any {
	return map[string]any{"sku": sku, "quantity": quantity}
}

// Shop is a server with scarce products and customers that buy.
type Shop struct {
	Server     *testenv.Process
	Admin      Caller
	ProductIDs []string // ids; SKUs are P0, P1, …
	Customers  []Caller
}

// OpenShop creates products, each with the stock, and signs customers up.
func OpenShop(t *testing.T, p *testenv.Process, products, stock, customers int) *Shop {
	t.Helper()
	s := &Shop{Server: p, Admin: SignInAdmin(t, p)}
	for i := range products {
		s.ProductIDs = append(s.ProductIDs, CreateProduct(t, s.Admin, fmt.Sprint("P", i), stock))
	}
	for i := range customers {
		s.Customers = append(s.Customers, SignUp(t, p, fmt.Sprint("customer ", i)))
	}
	return s
}

// OrderLedger is what clients were told.
type OrderLedger struct {
	mu         sync.Mutex
	Placed     map[string]string // idempotency key to order id
	Refused    atomic.Int64
	unexpected []string // answers that must not be
}

func (l *OrderLedger) record(key string, a *Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id := Text(a.Data, "placeOrder", "order", "id"); id != "" {
		l.Placed[key] = id
		return
	}
	if code := Text(a.Data, "placeOrder", "userErrors", 0, "code"); code == "STOCK_INSUFFICIENT" {
		l.Refused.Add(1)
		return
	}
	l.unexpected = append(l.unexpected, fmt.Sprintf("status %d, data %v, errors %+v", a.Status, a.Data, a.Errors))
}

// Merge adds what the clients of another ledger were told; their keys get the prefix.
func (l *OrderLedger) Merge(prefix string, other *OrderLedger) {
	for key, id := range other.Placed {
		l.Placed[prefix+key] = id
	}
	l.Refused.Add(other.Refused.Load())
	l.unexpected = append(l.unexpected, other.unexpected...)
}

// placeRandomOrder places one order of 1 to 3 random lines under a key of its own. While
// retry says so, it asks again when no answer comes: that is what keys are for.
func (s *Shop) placeRandomOrder(ctx context.Context, l *OrderLedger, client, n int, retry func() bool) {
	rnd := rand.New(rand.NewPCG(uint64(client), uint64(n)))
	var items []any
	for _, i := range rnd.Perm(len(s.ProductIDs))[:1+rnd.IntN(3)] {
		items = append(items, OrderLine(fmt.Sprint("P", i), 1+rnd.IntN(3)))
	}
	key := fmt.Sprintf("client %d order %d", client, n)
	for {
		a, err := s.Customers[client%len(s.Customers)].Send(ctx, PlaceOrder, map[string]any{"items": items, "key": key})
		switch {
		case err == nil && (a.Status < 500 || !retry()):
			l.record(key, a)
			return
		case ctx.Err() != nil || !retry():
			l.mu.Lock()
			l.unexpected = append(l.unexpected, fmt.Sprint(err))
			l.mu.Unlock()
			return
		}
		Pause(ctx, 20*time.Millisecond) // the server is coming back
	}
}

// Never is the answer of a client that repeats no call.
func Never() bool { return false }

// Always is the answer of a client that repeats calls without an answer.
func Always() bool { return true }

// PlaceOrders has clients place orders at the same time, each while more says so of the
// number of its next order, and returns what they heard.
func (s *Shop) PlaceOrders(ctx context.Context, clients int, more func(n int) bool, retry func() bool) *OrderLedger {
	l := &OrderLedger{Placed: map[string]string{}}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := 0; more(n); n++ {
				s.placeRandomOrder(ctx, l, c, n, retry)
			}
		})
	}
	wg.Wait()
	return l
}

// Verify compares the ledger with the server: every order answered as placed is
// there, none twice, none more, and doctor finds the sums right.
func (s *Shop) Verify(t *testing.T, l *OrderLedger) {
	t.Helper()
	for _, b := range l.unexpected {
		t.Error("an answer that must not be: " + b)
	}
	ids := map[string]bool{}
	for _, id := range l.Placed {
		if ids[id] {
			t.Errorf("order %s was given to two keys", id)
		}
		ids[id] = true
	}
	cursor, seen := any(nil), 0
	for {
		data := s.Admin.Do(t, `query($after: String) { orders(first: 100, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } totalCount } }`,
			map[string]any{"after": cursor})
		nodes, _ := At(data, "orders", "nodes").([]any)
		for _, n := range nodes {
			if !ids[Text(n, "id")] {
				t.Errorf("order %s is there, but no client got its id", Text(n, "id"))
			}
			seen++
		}
		if more, _ := At(data, "orders", "pageInfo", "hasNextPage").(bool); !more {
			if total := Number(data, "orders", "totalCount"); total != len(ids) || seen != len(ids) {
				t.Errorf("%d orders were answered as placed, %d are listed, %d counted", len(ids), seen, total)
			}
			break
		}
		cursor = At(data, "orders", "pageInfo", "endCursor")
	}
	if out, err := s.Server.Run("doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}
