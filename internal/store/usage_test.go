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
