package store_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestCounts_end_at_a_limit(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		add := func(from, to int) {
			db.Exec(t, `INSERT INTO legacy_usage (id, route, client, calls, first_seen_at, last_seen_at)
				WITH RECURSIVE numbers (n) AS (SELECT CAST(? AS INTEGER) UNION ALL SELECT n + 1 FROM numbers WHERE n < CAST(? AS INTEGER))
				SELECT 'id' || n, 'GET /a', 'client', 1, '2026-03-01', '2026-03-01' FROM numbers`, from, to)
		}
		count := func(want int) {
			t.Helper()
			if n, err := db.LegacyUsage().Count(t.Context()); n != want || err != nil {
				t.Errorf("counted %d rows, %v; want %d", n, err, want)
			}
		}
		count(0)
		add(1, page.MaxCount)
		count(page.MaxCount)
		add(page.MaxCount+1, page.MaxCount+50)
		count(page.MaxCount + 1)
	})
}
