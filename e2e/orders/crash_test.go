package orders

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
)

func TestServer_never_sells_what_it_does_not_have(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		s := harness.OpenShop(t, p, 10, 100, 4)
		each := harness.Size(10, 32) // 64 clients: 640 orders, or 2,048
		l := s.PlaceOrders(t.Context(), 64, func(n int) bool { return n < each }, harness.Never)
		if l.Refused.Load() == 0 {
			t.Error("no order was refused: the stock was not scarce")
		}
		s.Verify(t, l)
	})
}

func TestServer_loses_no_order_when_it_is_killed(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		s := harness.OpenShop(t, p, 10, 100_000, 4)
		kills := harness.Size(10, 50)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the rush did not end"))
		defer cancel()
		var over atomic.Bool
		done := make(chan *harness.OrderLedger, 1)
		go func() {
			done <- s.PlaceOrders(ctx, 16, func(n int) bool { return n < 5000 && !over.Load() }, harness.Always)
		}()
		for range kills {
			harness.Pause(ctx, time.Duration(200+rand.IntN(400))*time.Millisecond)
			p.Kill()
			p.Start()
		}
		over.Store(true)
		l := <-done
		s.Admin = harness.SignInAdmin(t, p)
		s.Verify(t, l)
		t.Logf("%d orders placed around %d kills", len(l.Placed), kills)
	})
}

func TestServer_places_one_order_under_one_key(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		s := harness.OpenShop(t, p, 1, 1000, 1)
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]int{}
		for range 200 {
			wg.Go(func() {
				for t.Context().Err() == nil {
					a, err := s.Customers[0].Send(t.Context(), harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("P0", 2)}, "key": "the one"})
					if err == nil {
						if id := harness.Text(a.Data, "placeOrder", "order", "id"); id != "" {
							mu.Lock()
							ids[id]++
							mu.Unlock()
							return
						}
					}
					harness.Pause(t.Context(), 20*time.Millisecond)
				}
			})
		}
		harness.Pause(t.Context(), 50*time.Millisecond)
		p.Kill()
		p.Start()
		wg.Wait()
		if len(ids) != 1 {
			t.Errorf("200 calls under one key gave %d orders: %v", len(ids), ids)
		}
		root := harness.SignInAdmin(t, p)
		if n := harness.Number(root.Do(t, `{ orders { totalCount } }`, nil), "orders", "totalCount"); n != 1 {
			t.Errorf("%d orders are there, want 1", n)
		}
	})
}
