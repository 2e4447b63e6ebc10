package store_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

var usedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// room is enough for every test.
var room = legacy.Bounds{Rows: 1000}

func newUsage(route, client string, calls int64, at time.Time) legacy.Usage {
	return legacy.Usage{Route: route, Client: client, Calls: calls, FirstSeenAt: at, LastSeenAt: at}
}

func addUsage(t *testing.T, db *store.DB, b legacy.Bounds, usage ...legacy.Usage) {
	t.Helper()
	if err := db.LegacyUsage().Add(t.Context(), usage, b); err != nil {
		t.Fatal(err)
	}
}

// allUsage reads every page, two at a time.
func allUsage(t *testing.T, db *store.DB) map[string]legacy.Usage {
	t.Helper()
	found := map[string]legacy.Usage{}
	two := 2
	for args := (page.Args{First: &two}); ; {
		p, err := db.LegacyUsage().List(t.Context(), args)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range p.Items {
			found[u.Route+" "+u.Client] = *u
		}
		if !p.HasNext {
			return found
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}

func TestLegacyUsage_adds_up(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		later := usedAt.Add(time.Hour)
		addUsage(t, db, room, newUsage("GET /b", "old", 1, usedAt), newUsage("GET /a", "old", 2, usedAt), newUsage("GET /a", "older", 3, usedAt))
		addUsage(t, db, room, newUsage("GET /a", "old", 5, later), newUsage("GET /c", "old", 1, later))
		addUsage(t, db, room, newUsage("GET /a", "old", 1, usedAt)) // from a node that was slow to store it
		want := map[string]legacy.Usage{
			"GET /a old":   {Route: "GET /a", Client: "old", Calls: 8, FirstSeenAt: usedAt, LastSeenAt: later},
			"GET /a older": newUsage("GET /a", "older", 3, usedAt),
			"GET /b old":   newUsage("GET /b", "old", 1, usedAt),
			"GET /c old":   newUsage("GET /c", "old", 1, later),
		}
		if diff := cmp.Diff(want, allUsage(t, db)); diff != "" {
			t.Errorf("the usage differs (-want +got):\n%s", diff)
		}
		if n, err := db.LegacyUsage().Count(t.Context()); n != 4 || err != nil {
			t.Errorf("Count = %d, %v, want 4", n, err)
		}
	})
}

func TestLegacyUsage_keeps_to_its_bound(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		three := legacy.Bounds{Rows: 3, Stale: usedAt}
		addUsage(t, db, three, newUsage("GET /a", "one", 1, usedAt.Add(-time.Hour)), newUsage("GET /a", "two", 1, usedAt))
		addUsage(t, db, three, newUsage("GET /a", "two", 1, usedAt), newUsage("GET /a", "three", 1, usedAt), newUsage("GET /a", "four", 1, usedAt))
		if got := allUsage(t, db); len(got) != 3 || got["GET /a two"].Calls != 2 || got["GET /a one"].Calls != 0 {
			t.Errorf("stale usage did not make room: %v", got)
		}
		addUsage(t, db, three, newUsage("GET /a", "two", 1, usedAt), newUsage("GET /a", "five", 1, usedAt), newUsage("GET /a", "six", 2, usedAt.Add(1)))
		got := allUsage(t, db)
		if got["GET /a two"].Calls != 3 || got["GET /a "+legacy.Others].Calls != 3 || len(got) != 4 {
			t.Errorf("clients without room gave %v, want them counted as %s", got, legacy.Others)
		}
	})
}

func TestLegacyUsage_loses_no_call_of_nodes_that_store_at_once(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		var nodes sync.WaitGroup
		for range 8 {
			nodes.Go(func() {
				var usage []legacy.Usage
				for i := range 20 {
					usage = append(usage, newUsage("GET /a", fmt.Sprint("client ", i), 1, usedAt))
				}
				addUsage(t, db, room, usage...)
			})
		}
		nodes.Wait()
		for key, u := range allUsage(t, db) {
			if u.Calls != 8 {
				t.Errorf("%s was called %d times, want 8", key, u.Calls)
			}
		}
	})
}

func TestLegacyUsage_adds_up_days_and_keeps_some(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		next := usedAt.Add(24 * time.Hour)
		addUsage(t, db, room, newUsage("GET /b", "old", 1, usedAt), newUsage("GET /a", "old", 2, usedAt), newUsage("GET /a", "older", 3, usedAt))
		addUsage(t, db, room, newUsage("GET /a", "old", 5, usedAt), newUsage("GET /a", "new", 7, next))
		all := []legacy.DayUsage{{Day: "2026-03-01", Route: "GET /a", Calls: 10}, {Day: "2026-03-01", Route: "GET /b", Calls: 1}, {Day: "2026-03-02", Route: "GET /a", Calls: 7}}
		checkDays(t, db, time.Time{}, all)
		checkDays(t, db, next, all[2:])
		addUsage(t, db, legacy.Bounds{Rows: 1000, Stale: next.Add(time.Hour)}, newUsage("GET /b", "old", 1, next))
		checkDays(t, db, time.Time{}, []legacy.DayUsage{all[2], {Day: "2026-03-02", Route: "GET /b", Calls: 1}})
	})
}

func checkDays(t *testing.T, db *store.DB, from time.Time, want []legacy.DayUsage) {
	t.Helper()
	got, err := db.LegacyUsage().Days(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the days from %v on differ (-want +got):\n%s", from, diff)
	}
}

func TestLegacyUsage_gives_no_row_to_names_of_clients_once_it_is_full(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		full := legacy.Bounds{Rows: 2}
		addUsage(t, db, full, newUsage("GET /a", "x", 1, usedAt), newUsage("GET /b (unknown)", "x", 1, usedAt))
		addUsage(t, db, full, newUsage("GET /c (unknown)", "x", 2, usedAt), newUsage("GET /d (unknown)", "x", 3, usedAt), newUsage("GET /a?colour", "x", 4, usedAt), newUsage("GET /b (unknown)", "x", 5, usedAt))
		got := allUsage(t, db)
		if len(got) != 3 || got[legacy.UnknownPath+" "+legacy.Others].Calls != 9 || got["GET /b (unknown) x"].Calls != 6 {
			t.Errorf("a full table holds %v, want the names it had and one row for others", got)
		}
	})
}
