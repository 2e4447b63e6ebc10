package demo_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		accounts, err := demo.FillShop(t.Context(), db, hash)
		if err != nil {
			t.Fatal(err)
		}
		roles := map[string]bool{}
		for _, a := range accounts {
			roles[string(a.Roles[0])] = true
			stored, err := db.Sessions().AccountByLogin(t.Context(), a.Username)
			if err != nil || stored.PasswordHash != "hash of "+a.Password {
				t.Errorf("account %s = %+v, %v; want the hash of its password", a.Username, stored, err)
			}
		}
		if len(roles) != 4 {
			t.Errorf("roles of the demo = %v, want all four", roles)
		}
		for _, s := range order.Statuses() {
			if n, err := db.Orders().Count(t.Context(), order.Filter{Status: []order.Status{s}}); n == 0 || err != nil {
				t.Errorf("orders that are %s = %d, %v; want some", s, n, err)
			}
		}
		active, three := true, 3
		shown, err := db.Products().List(t.Context(), order.ProductFilter{Active: &active}, order.ProductsByCreatedDesc, page.Args{First: &three})
		if err != nil || len(shown.Items) != three {
			t.Fatalf("products = %v, %v", shown.Items, err)
		}
		for _, p := range shown.Items {
			if stock, err := db.Products().Stocks(t.Context(), []uid.Product{p.ID}); err != nil || stock[p.ID].Quantity < 10 {
				t.Errorf("the first query shows %s, of which there are %+v, %v; want some", p.SKU, stock[p.ID], err)
			}
		}
		wantSound(t, db)
		if again, err := demo.FillShop(t.Context(), db, hash); again != nil || err != nil {
			t.Errorf("a second Demo = %v, %v; want nothing", again, err)
		}
	})
}

func hash(password string, _ ...string) (string, error) { return "hash of " + password, nil }

func TestFill_is_deterministic_and_sound(t *testing.T) {
	t.Parallel()
	size := demo.Size{Users: 300, Orders: 1500, Lines: 3}
	var first page.Page[*order.Order]
	for _, url := range []string{testenv.SQLite(t), testenv.SQLite(t), testenv.Postgres(t)} {
		db := testenv.Open(t, store.Config{URL: url})
		steps := 0
		if err := demo.FillRandom(t.Context(), db, size, func(done, total int) { steps += min(done, total) }); err != nil {
			t.Fatal(err)
		}
		wantSound(t, db)
		if n, err := db.Orders().Count(t.Context(), order.Filter{}); n != size.Orders || err != nil {
			t.Errorf("orders = %d, %v; want %d", n, err, size.Orders)
		}
		got, err := db.Orders().List(t.Context(), order.Filter{}, order.ByTotalDesc, page.Args{})
		if err != nil {
			t.Fatal(err)
		}
		if first.Items == nil {
			first = got
		}
		if diff := cmp.Diff(first, got, cmpopts.IgnoreUnexported(order.Order{})); diff != "" {
			t.Errorf("the second database differs from the first (-first +second):\n%s", diff)
		}
		if err := demo.FillRandom(t.Context(), db, size, func(int, int) {}); !errors.Is(err, demo.ErrNotEmpty) || steps == 0 {
			t.Errorf("filling a full database gave %v after %d steps, want ErrNotEmpty", err, steps)
		}
	}
}

func TestFill_RefusesSizes(t *testing.T) {
	t.Parallel()
	db := testenv.DB(t)
	for _, size := range []demo.Size{{Lines: 1}, {Users: 1}, {Users: 1, Lines: 101}, {Users: 1, Orders: -1, Lines: 1}} {
		if err := demo.FillRandom(t.Context(), db, size, func(int, int) {}); err == nil {
			t.Errorf("Fill(%+v) succeeded", size)
		}
	}
	if n, err := db.Users().Count(t.Context(), user.Filter{IDs: []uid.User{}}); n != 0 || err != nil {
		t.Errorf("users after refusals = %d, %v", n, err)
	}
}

func wantSound(t *testing.T, db *store.DB) {
	t.Helper()
	found, err := db.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Errorf("audit: not true that %s: %s %s", f.Check, f.Subject, f.Detail)
	}
}
