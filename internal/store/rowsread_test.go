package store_test

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// TestOrders_lists_read_few_rows has PostgreSQL count the rows of orders that each list reads, the tenth time
// that it is read: prepared statements have got their lasting plan by then. It must be at most 20 times as many
// as the list returns, and no list reads the whole table. BACKPLANE_TEST_SOAK has a million orders.
func TestOrders_lists_read_few_rows(t *testing.T) {
	t.Parallel()
	users, orders := 2000, 40_000
	if testenv.Soak() {
		users, orders = 50_000, 1_000_000
	}
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t), MaxConns: 1}) // one, for its statistics
	db.Exec(t, `INSERT INTO users (id, username, username_key, username_sort, name, roles, admin, status, version, created_at, updated_at)
		SELECT 'usr_' || n, 'u' || n, 'u' || n, 'u' || n, '', 'CUSTOMER', false, 'ACTIVE', 1, now(), now() FROM generate_series(0, ?) AS n`, users)
	for from := 0; from < orders; from += 40_000 {
		db.Exec(t, `INSERT INTO orders (id, number, user_id, status, total_minor, currency, item_count, note, stock_returned, placed_at, version, created_at, updated_at)
			SELECT 'ord_' || lpad(n::text, 8, '0'), 'N' || n, 'usr_' || n % ?, s, (n::bigint * 7919) % 1000003, 'EUR', 1, '', s IN ('CANCELLED', 'REFUNDED'), at, 1, at, at
			FROM (SELECT n, CASE WHEN n % 5000 = 0 THEN 'CANCELLED' WHEN n % 2 = 0 THEN 'DELIVERED' ELSE 'PAID' END AS s,
				timestamptz '2026-01-01 00:00Z' + n * interval '1 second' AS at FROM generate_series(CAST(? AS int) + 1, CAST(? AS int)) AS n) AS x`, users, from, from+40_000)
	}
	if err := db.Analyze(t.Context()); err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	after, before, one, unknown := day.Add(time.Duration(orders-500)*time.Second), day.Add(500*time.Second), uid.User("usr_7"), uid.User("usr_none")
	filters := map[string]order.Filter{
		"all": {}, "a common status": {Status: []order.Status{order.Paid}}, "a rare status": {Status: []order.Status{order.Cancelled}},
		"no row's status": {Status: []order.Status{order.Refunded}}, "two statuses": {Status: []order.Status{order.Paid, order.Cancelled}},
		"a user": {UserID: &one}, "an unknown user": {UserID: &unknown}, "a user and a status": {UserID: &one, Status: []order.Status{order.Paid}},
		"the newest": {PlacedAfter: &after}, "the oldest": {PlacedBefore: &before},
	}
	var some []uid.User
	for i := range 50 {
		some = append(some, uid.User("usr_"+string(rune('1'+i%9))+string(rune('0'+i/9))))
	}
	size := 50
	for name, f := range filters {
		for _, by := range []order.OrderBy{order.ByPlacedDesc, order.ByPlacedAsc, order.ByTotalDesc, order.ByTotalAsc} {
			limit := 20
			if byTotal := by == order.ByTotalAsc || by == order.ByTotalDesc; byTotal && (f.PlacedAfter != nil || f.PlacedBefore != nil) {
				limit = 200 // no index has both: either the range of time is sorted, or the rows by total are filtered
			}
			expectFewRows(t, db, name+" "+string(by), limit, func() int {
				p, err := db.Orders().List(t.Context(), f, by, page.Args{First: &size})
				if err != nil {
					t.Fatal(err)
				}
				return len(p.Items)
			})
			if f.UserID != nil {
				continue
			}
			three := 3
			expectFewRows(t, db, "of users, "+name+" "+string(by), 20, func() (n int) {
				pages, err := db.Orders().ListByUsers(t.Context(), some, f, by, page.Args{First: &three})
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range pages {
					n += len(p.Items)
				}
				return n + len(some)
			})
		}
	}
}

// expectFewRows checks that a list reads at most so many rows of orders for each one that it returns.
func expectFewRows(t *testing.T, db *store.DB, name string, limit int, list func() (returned int)) {
	t.Helper()
	for range 9 {
		list()
	}
	scans, rows := readsOfOrders(t, db)
	returned := list()
	scansAfter, rowsAfter := readsOfOrders(t, db)
	if n := rowsAfter - rows; n > limit*(returned+1) || scansAfter != scans {
		t.Errorf("%s: reads %d rows, %d times all of them, and returns %d", name, n, scansAfter-scans, returned)
	}
}

// readsOfOrders returns how often the whole table was read, and how many of its rows in all.
func readsOfOrders(t *testing.T, db *store.DB) (scans, rows int) {
	t.Helper()
	db.Int(t.Context(), t, `SELECT 1 FROM pg_stat_force_next_flush()`)
	db.Int(t.Context(), t, `SELECT 1`) // the end of this one flushes
	return db.Int(t.Context(), t, `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'orders'`),
		db.Int(t.Context(), t, `SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'orders'`)
}
