package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// growing are characters that grow: in UTF-8, when they are escaped, when they are normalized
// and when their case is folded. U+FDFA becomes 18 characters.
var growing = []string{"\U0001F600", "&", "\"", "\\", "\u2028", "\uFDFA", "\u0390", "\u1FB7", "\uD7A3", "\uFB03", "Z"}

// pageThrough walks a list from one end to the other and back, a row at a time, and returns how
// many rows it has seen each way.
func pageThrough[T any](t *testing.T, name string, list func(page.Args) (page.Page[T], error)) (forwards, backwards int) {
	t.Helper()
	one := 1
	for args := (page.Args{First: &one}); ; forwards++ {
		p, err := list(args)
		if err != nil {
			t.Fatalf("%s: page %d: %v", name, forwards, err)
		}
		if !p.HasNext {
			break
		}
		args.After = &p.Cursors[0]
	}
	for args := (page.Args{Last: &one}); ; backwards++ {
		p, err := list(args)
		if err != nil {
			t.Fatalf("%s: page %d from the end: %v", name, backwards, err)
		}
		if !p.HasPrev {
			return forwards + 1, backwards + 1
		}
		args.Before = &p.Cursors[0]
	}
}

func TestCursors_of_the_longest_keys_page_on(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		users := 0
		for i, char := range growing {
			name := strings.Repeat(char, 199) + "x"
			p := givenProduct(t, db, fmt.Sprintf("S%063d", i), 1)
			_, err := db.Products().Update(t.Context(), claim.None, p.ID, func(p *order.Product) error {
				return p.Apply(order.ProductChange{Name: validate.Of(name)}, at)
			})
			if err != nil {
				t.Fatalf("%q: %v", char, err)
			}
			u, err := user.New(user.Profile{Username: strings.Repeat(char, 64)}, []auth.Role{auth.Customer}, nil, at)
			if err != nil {
				continue // not every character may stand in a user name
			}
			if _, err := db.Users().Create(t.Context(), claim.None, u, ""); err != nil {
				t.Fatalf("%q: %v", char, err)
			}
			users++
		}
		if users < 5 {
			t.Fatalf("%d characters may stand in a user name, want 5 or more", users)
		}
		for _, by := range []order.ProductOrderBy{
			order.ProductsByCreatedAsc, order.ProductsByCreatedDesc, order.ProductsByNameAsc, order.ProductsByNameDesc, order.ProductsByPriceAsc, order.ProductsByPriceDesc,
		} {
			forwards, backwards := pageThrough(t, string(by), func(args page.Args) (page.Page[*order.Product], error) {
				return db.Products().List(t.Context(), order.ProductFilter{}, by, args)
			})
			if forwards != len(growing) || backwards != len(growing) {
				t.Errorf("%s: %d products forwards and %d backwards, want %d", by, forwards, backwards, len(growing))
			}
		}
		for _, by := range []user.OrderBy{user.ByCreatedAsc, user.ByCreatedDesc, user.ByUsernameAsc, user.ByUsernameDesc} {
			forwards, backwards := pageThrough(t, string(by), func(args page.Args) (page.Page[*user.User], error) {
				return db.Users().List(t.Context(), user.Filter{}, by, args)
			})
			if forwards != users || backwards != users {
				t.Errorf("%s: %d users forwards and %d backwards, want %d", by, forwards, backwards, users)
			}
		}
	})
}

// TestCursors_hold_every_sort_key computes the sort key of each character, so that no list needs
// a longer cursor than is taken back.
func TestCursors_hold_every_sort_key(t *testing.T) {
	t.Parallel()
	longest := 0
	for r := rune(1); r <= '\U0010FFFF'; r++ {
		longest = max(longest, len(validate.SortKey(string(r))))
	}
	name := validate.SortKey(strings.Repeat("\uFDFA", 200))
	text := page.Cursor{Order: "CREATED_AT_DESC", Key: name, ID: "prd_01j9zq4m8ye7v9k2t3w5x6y7z8"}.String()
	if _, err := page.ParseCursor("CREATED_AT_DESC", text); err != nil || len(name) < longest || len(name) > validate.MaxSortKey || validate.MaxSortKey > page.MaxKey {
		t.Errorf("a sort key of %d bytes, of %d for one character, is taken back with %v, want at most %d bytes", len(name), longest, err, page.MaxKey)
	}
}

// TestMigrate_writes_the_sort_keys_of_stored_names checks the migration against names that were
// stored with other keys.
func TestMigrate_writes_the_sort_keys_of_stored_names(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		want := []string{"Éclair", "Eis", "E\u0301tui", "Zebra"}
		for i, name := range want {
			p := givenProduct(t, db, fmt.Sprint("S", i), 1)
			db.Exec(t, `UPDATE products SET name = ?, name_key = ? WHERE id = ?`, name, strings.Repeat("z", 4-i), string(p.ID))
		}
		db.Exec(t, `UPDATE users SET username_sort = ''`)
		u := givenUser(t, db)
		db.Exec(t, `UPDATE users SET username_sort = ''`)
		if err := db.WriteSortKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, err := db.Products().List(t.Context(), order.ProductFilter{}, order.ProductsByNameAsc, page.Args{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range p.Items {
			got = append(got, p.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("products by name: %q, want %q", got, want)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM users WHERE username_sort = ?`, validate.SortKey(u.Username)); n != 1 {
			t.Errorf("%d users have the sort key of %s, want 1", n, u.Username)
		}
	})
}
