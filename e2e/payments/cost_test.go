package payments

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestOrders_cost_the_same_with_payments reports what placeOrder takes without and with payments, in turns on the same machine, and how many
// payments a node settles in a second. It asserts nothing about time.
func TestOrders_cost_the_same_with_payments(t *testing.T) {
	t.Parallel()
	if !testenv.Soak() {
		t.Skip("it measures; BACKPLANE_TEST_SOAK=on runs it")
	}
	const orders, callers = 1000, 8
	for name, empty := range harness.Databases {
		for range 2 {
			for _, service := range []string{"off", "payment-service"} {
				p := testenv.ServerWith(t, []string{"--demo", "--migrate"}, harness.Settings(empty(t), "BACKPLANE_PAYMENT_SERVICE="+service)...)
				admin := signInDemo(t, p)
				harness.CreateProduct(t, admin, "MANY", 1_000_000)
				var buyers []harness.Caller // one caller alone has one share of the connections
				for i := range callers {
					buyers = append(buyers, harness.SignUp(t, p, fmt.Sprint("buyer ", i)))
				}
				took := placeMany(t, buyers, orders/callers)
				slices.Sort(took)
				begun := time.Now()
				if service != "off" {
					harness.Eventually(t, "all are paid", func() bool {
						return harness.Number(admin.Do(t, `{ payments(filter: {status: SUCCEEDED}) { totalCount } }`, nil), "payments", "totalCount") >= orders
					})
				}
				t.Logf("%s, %s: placeOrder takes %s in the median, %s for 99 of 100; the last payment was settled %s after the last order", name, service, took[len(took)/2], took[len(took)*99/100], time.Since(begun))
				p.Stop()
			}
		}
	}
}

// pause is how long a buyer thinks after an order: without it the server is saturated, and payments share what it can do with
// the orders.
const pause = 50 * time.Millisecond

// placeMany places orders by all buyers at once, so many each, and returns what each took.
func placeMany(t *testing.T, buyers []harness.Caller, each int) (took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, buyer := range buyers {
		wg.Go(func() {
			for range each {
				begun := time.Now()
				placed := buyer.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("MANY", 1)}})
				spent := time.Since(begun)
				if harness.Text(placed, "placeOrder", "order", "id") == "" {
					t.Error(fmt.Sprint("placeOrder gave ", placed))
				}
				mu.Lock()
				took = append(took, spent)
				mu.Unlock()
				time.Sleep(pause)
			}
		})
	}
	wg.Wait()
	return took
}
