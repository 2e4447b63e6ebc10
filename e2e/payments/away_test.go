package payments

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestPayments_wait_while_every_provider_is_away kills all payment services while orders are placed, for two minutes in a soak. Orders
// are taken as before and the other consumers of the log keep up; within a minute of the return every order is decided, once.
func TestPayments_wait_while_every_provider_is_away(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short run: there are no races of ours in other programs")
	}
	w := newKillWorld(t, testenv.Postgres(t))
	for _, s := range w.services {
		s.kill()
	}
	away := time.Duration(harness.Size(2, 120)) * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), away)
	defer cancel()
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				n, begun := int(next.Add(1)-1), time.Now()
				w.place(context.WithoutCancel(ctx), n)
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
				harness.Pause(ctx, 50*time.Millisecond)
			}
		})
	}
	clients.Wait()
	orders := int(next.Load())
	slices.Sort(took)
	t.Logf("%d orders in %v without a payment service: p50 %v, longest %v", orders, away, took[len(took)/2], took[len(took)-1])
	w.expectWaiting(orders)
	for _, s := range w.services {
		s.start()
	}
	returned := time.Now()
	w.awaitDecisions(orders)
	t.Logf("every order was decided %v after the return", time.Since(returned).Round(100*time.Millisecond))
	if testenv.Soak() && time.Since(returned) > time.Minute {
		t.Errorf("the backlog took %v, want less than a minute", time.Since(returned))
	}
	w.compareMoney(orders)
}

// expectWaiting checks that each payment waits, and that no consumer is behind or has put an event aside.
func (w *killWorld) expectWaiting(orders int) {
	w.t.Helper()
	c := w.rootNow()
	var data any
	testenv.Eventually(w.t, "the consumers keep up, and a payment of each order waits", func() bool {
		data = c.Do(w.t, `{ payments(first: 0, filter: {status: [PENDING]}) { totalCount } consumers { name lag deadLetters } }`, nil)
		for _, consumer := range harness.At(data, "consumers").([]any) {
			if harness.Number(consumer, "lag") > 0 || harness.Number(consumer, "deadLetters") > 0 {
				return false
			}
		}
		return harness.Number(data, "payments", "totalCount") == orders
	})
}
