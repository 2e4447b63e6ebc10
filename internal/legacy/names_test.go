package legacy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/uid"
)

// signedIn is a call by a user with a program of that name.
func signedIn(id uid.User, agent string) context.Context {
	return auth.With(by(agent), &auth.Principal{UserID: id, Credential: auth.SessionCredential("ses_1")})
}

func TestCounter_names_paths_that_are_not_served(t *testing.T) {
	t.Parallel()
	m := &memory{calls: map[string]int64{}}
	count(t, m, legacy.CounterConfig{}, func(c *legacy.Counter) {
		ada := signedIn("usr_1", "shop/1")
		for _, path := range []string{
			"/api/v1/carts/17/lines", "/api/v1/carts/18/lines/", "/carts/3f2a9c", "/carts/550e8400-e29b-41d4-a716-446655440000", "/orders.php", "/users/{id}",
			"/%3Cscript%3E", "/<b>/x\ny", "/a/b/c/d/e/f/g/h", "/" + strings.Repeat("x", 31),
		} {
			c.CountUnknown(ada, "GET", path)
		}
		c.CountUnknown(ada, "BREW", "/pot")
		c.CountUnknown(by("scanner"), "GET", "/wp-login.php")
		c.CountUnknown(by("other scanner"), "POST", "/cgi-bin/x")
	})
	want := map[string]int64{
		"GET /api/v1/carts/{id}/lines (unknown), shop/1": 2, "GET /carts/{id} (unknown), shop/1": 2, "GET /orders.php (unknown), shop/1": 1,
		"GET /users/{id} (unknown), shop/1": 1, "GET /{id} (unknown), shop/1": 2, "GET /{id}/{id} (unknown), shop/1": 1, "GET /a/b/c/d/e/f/… (unknown), shop/1": 1,
		"OTHER /pot (unknown), shop/1": 1, "(unknown path), (all others)": 2,
	}
	if diff := cmp.Diff(want, m.calls); diff != "" {
		t.Errorf("the calls differ (-want +got):\n%s", diff)
	}
}

func TestCounter_bounds_the_names_that_clients_make_up(t *testing.T) {
	t.Parallel()
	m := &memory{calls: map[string]int64{}}
	words := func(n int) string { return strings.Repeat("a", n%29+1) + "/" + strings.Repeat("b", n/29+1) }
	count(t, m, legacy.CounterConfig{Pending: 10_000}, func(c *legacy.Counter) {
		for user := range 30 {
			for n := range 30 {
				c.CountUnknown(signedIn(uid.User(fmt.Sprint("usr_", user)), "x"), "GET", fmt.Sprintf("/%s/%s", strings.Repeat("u", user%28+1)+strings.Repeat("w", user/28), words(n)))
			}
		}
		for n := range 1000 {
			c.CountIgnored(by("x"), "GET /users", fmt.Sprint("p", n))
		}
	})
	paths, parameters := 0, 0
	for name := range m.calls {
		if strings.Contains(name, " (unknown), ") {
			paths++
		}
		if strings.Contains(name, "?") {
			parameters++
		}
	}
	if paths != 200 || m.calls["(unknown path), x"] != 700 {
		t.Errorf("there are %d named paths and %d calls of others, want 200 and 700", paths, m.calls["(unknown path), x"])
	}
	if parameters != 21 || m.calls["GET /users?(others), x"] != 980 {
		t.Errorf("there are %d named parameters and %d calls with others, want 21 and 980", parameters, m.calls["GET /users?(others), x"])
	}
}

func TestByDay_sums_up_routes(t *testing.T) {
	t.Parallel()
	night := time.Date(2026, 3, 1, 23, 59, 59, 0, time.FixedZone("", -3600)) // the next day in UTC
	got := legacy.ByDay([]legacy.Usage{
		{Route: "GET /users", Client: "a", Calls: 1, LastSeenAt: night}, {Route: "GET /users", Client: "b", Calls: 2, LastSeenAt: night},
		{Route: "GET /users?colour", Client: "a", Calls: 1, LastSeenAt: night}, {Route: "GET /carts (unknown)", Calls: 3, LastSeenAt: night},
		{Route: legacy.UnknownPath, Calls: 4, LastSeenAt: night.Add(-time.Hour)}, {Route: legacy.UnknownPath, Calls: 5, LastSeenAt: night},
	})
	want := []legacy.DayUsage{
		{Day: "2026-03-01", Route: legacy.UnknownPath, Calls: 4}, {Day: "2026-03-02", Route: legacy.UnknownPath, Calls: 8}, {Day: "2026-03-02", Route: "GET /users", Calls: 3},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the days differ (-want +got):\n%s", diff)
	}
}
