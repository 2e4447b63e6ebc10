package attack

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// countingQuery counts events 30 times.
func countingQuery(types string) string {
	var q strings.Builder
	for i := range 30 {
		fmt.Fprintf(&q, "c%d: events(first: 0%s) { totalCount } ", i, types)
	}
	return "{" + q.String() + "}"
}

// startWithLongLog starts a server whose log has more events than one counts.
func startWithLongLog(t *testing.T, database string) (*testenv.Process, harness.Caller) {
	t.Helper()
	harness.RunCommand(t, database, "migrate")
	harness.RunCommand(t, database, "seed", "--users", "500", "--orders", fmt.Sprint(harness.Size(20_000, 80_000)), "--lines", "1")
	p := testenv.Server(t, harness.Settings(database)...)
	admin := harness.SignInAdmin(t, p)
	harness.EventuallyWithin(t, time.Minute, "the log has positions for its events", func() bool {
		data := admin.Do(t, `{ events(first: 0, types: [ORDER_PLACED]) { totalCount } }`, nil)
		return harness.Number(data, "events", "totalCount") == 10_001 // more than 10,000
	})
	return p, admin
}

// TestServer_answers_others_while_one_account_counts_the_log sends 30 counts per request over 16
// connections of one account, and meanwhile what other users send.
func TestServer_answers_others_while_one_account_counts_the_log(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p, _ := startWithLongLog(t, database)
		mallory, other := harness.SignUp(t, p, "mallory"), harness.SignUp(t, p, "other")
		ctx, cancel := context.WithCancel(t.Context())
		var answered atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			query := countingQuery([]string{", types: [ORDER_PLACED]", ""}[i%2])
			wg.Go(func() {
				for ctx.Err() == nil {
					if a, err := mallory.Send(ctx, query, nil); err == nil && a.Status == http.StatusOK {
						answered.Add(1)
					}
				}
			})
		}
		defer wg.Wait()
		defer cancel()
		harness.EventuallyWithin(t, time.Minute, "the attack is under way", func() bool { return answered.Load() > 0 })
		var took []time.Duration
		for range 20 {
			began := time.Now()
			other.Do(t, `{ viewer { user { name } } orders(first: 5) { nodes { id } } events(first: 5) { nodes { id } } products(first: 5) { nodes { name } } }`, nil) // fails on SERVER_BUSY, too
			took = append(took, time.Since(began))
			harness.Pause(ctx, 50*time.Millisecond)
		}
		slices.Sort(took)
		t.Logf("another user's queries took %v in the median, %v at most, while %d of the attack were answered", took[10], took[19], answered.Load())
		if limit := 2 * time.Second; took[19] > limit {
			t.Errorf("a query of another user took %v, want at most %v", took[19], limit)
		}
	})
}

func TestServer_prices_counts(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_LIMIT_COST=3000")
	customer := harness.SignUp(t, p, "mallory")
	if code := customer.RefusalCode(t, countingQuery(""), nil); code != "TOO_COMPLEX" {
		t.Errorf("30 counts where the cost may be 3,000: %q, want TOO_COMPLEX", code)
	}
}
