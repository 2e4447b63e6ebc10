package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// size returns the size of a long test: small for every run, large for a soak.
func size(small, soak int) int {
	if testenv.Soak() {
		return soak
	}
	return small
}

// shop is a server with scarce products and customers that buy.
type shop struct {
	p         *testenv.Process
	root      caller
	products  []string // ids; SKUs are P0, P1, …
	customers []caller
}

func openShop(t *testing.T, p *testenv.Process, products, stock, customers int) *shop {
	t.Helper()
	s := &shop{p: p, root: signInAdmin(t, p)}
	for i := range products {
		s.products = append(s.products, createProduct(t, s.root, fmt.Sprint("P", i), stock))
	}
	for i := range customers {
		s.customers = append(s.customers, signUp(t, p, fmt.Sprint("customer ", i)))
	}
	return s
}

// ledger is what clients were told.
type ledger struct {
	mu      sync.Mutex
	placed  map[string]string // idempotency key to order id
	refused atomic.Int64
	broken  []string // answers that must not be
}

func (l *ledger) note(key string, a *answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id := text(a.Data, "placeOrder", "order", "id"); id != "" {
		l.placed[key] = id
		return
	}
	if code := text(a.Data, "placeOrder", "userErrors", 0, "code"); code == "STOCK_INSUFFICIENT" {
		l.refused.Add(1)
		return
	}
	l.broken = append(l.broken, fmt.Sprintf("status %d, data %v, errors %+v", a.status, a.Data, a.Errors))
}

// buy places one order of 1 to 3 random lines under a key of its own. While
// retry says so, it asks again when no answer comes: that is what keys are for.
func (s *shop) buy(ctx context.Context, l *ledger, client, n int, retry func() bool) {
	rnd := rand.New(rand.NewPCG(uint64(client), uint64(n)))
	var items []any
	for _, i := range rnd.Perm(len(s.products))[:1+rnd.IntN(3)] {
		items = append(items, line(fmt.Sprint("P", i), 1+rnd.IntN(3)))
	}
	key := fmt.Sprintf("client %d order %d", client, n)
	for {
		a, err := s.customers[client%len(s.customers)].send(ctx, placeOrder, map[string]any{"items": items, "key": key})
		switch {
		case err == nil && (a.status < 500 || !retry()):
			l.note(key, a)
			return
		case ctx.Err() != nil || !retry():
			l.mu.Lock()
			l.broken = append(l.broken, fmt.Sprint(err))
			l.mu.Unlock()
			return
		}
		pause(ctx, 20*time.Millisecond) // the server is coming back
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func never() bool  { return false }
func always() bool { return true }

// rush has clients place orders at the same time, each while more says so of the
// number of its next order, and returns what they heard.
func (s *shop) rush(ctx context.Context, clients int, more func(n int) bool, retry func() bool) *ledger {
	l := &ledger{placed: map[string]string{}}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := 0; more(n); n++ {
				s.buy(ctx, l, c, n, retry)
			}
		})
	}
	wg.Wait()
	return l
}

// check compares the ledger with the server: every order answered as placed is
// there, none twice, none more, and doctor finds the sums right.
func (s *shop) check(t *testing.T, l *ledger) {
	t.Helper()
	for _, b := range l.broken {
		t.Error("an answer that must not be: " + b)
	}
	ids := map[string]bool{}
	for _, id := range l.placed {
		if ids[id] {
			t.Errorf("order %s was given to two keys", id)
		}
		ids[id] = true
	}
	cursor, seen := any(nil), 0
	for {
		data := s.root.do(t, `query($after: String) { orders(first: 100, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } totalCount } }`,
			map[string]any{"after": cursor})
		nodes, _ := at(data, "orders", "nodes").([]any)
		for _, n := range nodes {
			if !ids[text(n, "id")] {
				t.Errorf("order %s is there, but nobody was told", text(n, "id"))
			}
			seen++
		}
		if more, _ := at(data, "orders", "pageInfo", "hasNextPage").(bool); !more {
			if total := number(data, "orders", "totalCount"); total != len(ids) || seen != len(ids) {
				t.Errorf("%d orders were answered as placed, %d are listed, %d counted", len(ids), seen, total)
			}
			break
		}
		cursor = at(data, "orders", "pageInfo", "endCursor")
	}
	if out, err := s.p.Run("doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

func TestServer_never_sells_what_it_does_not_have(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		s := openShop(t, p, 10, 100, 4)
		each := size(10, 32) // 64 clients: 640 orders, or 2,048
		l := s.rush(t.Context(), 64, func(n int) bool { return n < each }, never)
		if l.refused.Load() == 0 {
			t.Error("no order was refused: the stock was not scarce")
		}
		s.check(t, l)
	})
}

func TestServer_loses_no_order_when_it_is_killed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		s := openShop(t, p, 10, 100_000, 4)
		kills := size(10, 50)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the rush did not end"))
		defer cancel()
		var over atomic.Bool
		done := make(chan *ledger, 1)
		go func() {
			done <- s.rush(ctx, 16, func(n int) bool { return n < 5000 && !over.Load() }, always)
		}()
		for range kills {
			pause(ctx, time.Duration(200+rand.IntN(400))*time.Millisecond)
			p.Kill()
			p.Start()
		}
		over.Store(true)
		l := <-done
		s.root = signInAdmin(t, p)
		s.check(t, l)
		t.Logf("%d orders placed around %d kills", len(l.placed), kills)
	})
}

func TestServer_places_one_order_under_one_key(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		s := openShop(t, p, 1, 1000, 1)
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]int{}
		for range 200 {
			wg.Go(func() {
				for t.Context().Err() == nil {
					a, err := s.customers[0].send(t.Context(), placeOrder, map[string]any{"items": []any{line("P0", 2)}, "key": "the one"})
					if err == nil {
						if id := text(a.Data, "placeOrder", "order", "id"); id != "" {
							mu.Lock()
							ids[id]++
							mu.Unlock()
							return
						}
					}
					pause(t.Context(), 20*time.Millisecond)
				}
			})
		}
		pause(t.Context(), 50*time.Millisecond)
		p.Kill()
		p.Start()
		wg.Wait()
		if len(ids) != 1 {
			t.Errorf("200 calls under one key gave %d orders: %v", len(ids), ids)
		}
		root := signInAdmin(t, p)
		if n := number(root.do(t, `{ orders { totalCount } }`, nil), "orders", "totalCount"); n != 1 {
			t.Errorf("%d orders are there, want 1", n)
		}
	})
}
