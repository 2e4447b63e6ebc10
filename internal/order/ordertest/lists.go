package ordertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// listAllPages reads a list to its end, in pages of two.
func listAllPages[T any](t testing.TB, list func(page.Args) (page.Page[T], error)) []T {
	t.Helper()
	var all []T
	args := page.Args{First: ptr(2)}
	for {
		p, err := list(args)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Items...)
		if !p.HasNext {
			return all
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}

func listsProducts(t *testing.T, s Stores) {
	for i, name := range []string{"banana", "Apple", "apple", "Ärmel", "cherry"} {
		p := givenProduct(t, s, fmt.Sprint("s", i), 1)
		_, err := s.Products.Update(t.Context(), claim.None, p.ID, func(p *order.Product) error {
			price := p.Price
			price.Minor = int64(100 * (i % 3))
			return p.Apply(order.ProductChange{Name: validate.Of(name), Price: validate.Of(price), Active: validate.Of(i != 4)}, at)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	names := func(f order.ProductFilter, by order.ProductOrderBy) string {
		return joinNames(listAllPages(t, func(args page.Args) (page.Page[*order.Product], error) {
			return s.Products.List(t.Context(), f, by, args)
		}), func(p *order.Product) string { return strings.ToLower(p.Name) })
	}
	for _, tt := range []struct {
		f    order.ProductFilter
		by   order.ProductOrderBy
		want string
	}{
		{order.ProductFilter{}, order.ProductsByNameAsc, "apple apple ärmel banana cherry"},
		{order.ProductFilter{}, order.ProductsByNameDesc, "cherry banana ärmel apple apple"},
		{order.ProductFilter{Active: ptr(true)}, order.ProductsByNameAsc, "apple apple ärmel banana"},
		{order.ProductFilter{SKUs: []string{"s0", "s4", "none"}}, order.ProductsByNameAsc, "banana cherry"},
		{order.ProductFilter{SKUs: []string{}}, order.ProductsByNameAsc, ""},
		{order.ProductFilter{Currency: ptr("USD")}, order.ProductsByNameAsc, ""},
		{order.ProductFilter{LegacyID: ptr("1")}, order.ProductsByNameAsc, ""},
	} {
		if got := names(tt.f, tt.by); got != tt.want {
			t.Errorf("List(%+v, %s) = %q, want %q", tt.f, tt.by, got, tt.want)
		}
	}
	var prices []int64
	for _, p := range listAllPages(t, func(args page.Args) (page.Page[*order.Product], error) {
		return s.Products.List(t.Context(), order.ProductFilter{}, order.ProductsByPriceDesc, args)
	}) {
		prices = append(prices, p.Price.Minor)
	}
	if diff := cmp.Diff([]int64{200, 100, 100, 0, 0}, prices); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
	if n, err := s.Products.Count(t.Context(), order.ProductFilter{Active: ptr(true)}); n != 4 || err != nil {
		t.Errorf("Count of active products = %d, %v; want 4", n, err)
	}
}

func joinNames[T any](rows []T, name func(T) string) string {
	var b []string
	for _, row := range rows {
		b = append(b, name(row))
	}
	return strings.Join(b, " ")
}

func listsOrders(t *testing.T, s Stores) {
	givenProduct(t, s, "cup", 1000)
	ann, bob := s.Customer(t), s.Customer(t)
	var placed []*order.Order
	for i := range 6 {
		customer := []uid.User{ann, bob}[i%2]
		placed = append(placed, mustPlace(t, s, customer, at.Add(time.Duration(i/2)*time.Minute), wantOf("cup", i%3+1)))
	}
	paid, err := s.Orders.Update(t.Context(), claim.None, placed[3].ID, func(o *order.Order) error { return o.Pay(at) })
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		f    order.Filter
		want []*order.Order
	}{
		{"all", order.Filter{}, placed},
		{"of one user", order.Filter{UserID: &ann}, []*order.Order{placed[0], placed[2], placed[4]}},
		{"in one status", order.Filter{Status: []order.Status{order.Paid, order.Shipped}}, []*order.Order{paid}},
		{"in no status", order.Filter{Status: []order.Status{}}, nil},
		{"by number", order.Filter{Number: &placed[5].Number}, placed[5:]},
		{"by a legacy id", order.Filter{LegacyID: ptr("9")}, nil},
		{"from a minute on", order.Filter{PlacedAfter: ptr(stored.Add(time.Minute))}, placed[2:]},
		{"before a minute", order.Filter{PlacedBefore: ptr(stored.Add(time.Minute))}, placed[:2]},
	} {
		for by, less := range sortedOrders() {
			want := slices.SortedFunc(slices.Values(tt.want), less)
			got := listAllPages(t, func(args page.Args) (page.Page[*order.Order], error) {
				return s.Orders.List(t.Context(), tt.f, by, args)
			})
			if joinNames(got, orderID) != joinNames(want, orderID) {
				t.Errorf("List %s by %s = %s, want %s", tt.name, by, joinNames(got, orderID), joinNames(want, orderID))
			}
		}
		if n, err := s.Orders.Count(t.Context(), tt.f); n != len(tt.want) || err != nil {
			t.Errorf("Count %s = %d, %v; want %d", tt.name, n, err, len(tt.want))
		}
	}
}

func orderID(o *order.Order) string { return string(o.ID) }

// sortedOrders is the model of each order of a list.
func sortedOrders() map[order.OrderBy]func(a, b *order.Order) int {
	byPlaced := func(a, b *order.Order) int {
		return cmpOr(a.PlacedAt.Compare(b.PlacedAt), strings.Compare(string(a.ID), string(b.ID)))
	}
	byTotal := func(a, b *order.Order) int {
		return cmpOr(int(a.Total.Minor-b.Total.Minor), strings.Compare(string(a.ID), string(b.ID)))
	}
	desc := func(f func(a, b *order.Order) int) func(a, b *order.Order) int {
		return func(a, b *order.Order) int { return -f(a, b) }
	}
	return map[order.OrderBy]func(a, b *order.Order) int{
		order.ByPlacedAsc: byPlaced, order.ByPlacedDesc: desc(byPlaced), order.ByTotalAsc: byTotal, order.ByTotalDesc: desc(byTotal),
	}
}

func cmpOr(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

func listsByUsers(t *testing.T, s Stores) {
	givenProduct(t, s, "cup", 1000)
	users := []uid.User{s.Customer(t), s.Customer(t), s.Customer(t)}
	for i := range 7 {
		mustPlace(t, s, users[i%2], at.Add(time.Duration(i)*time.Minute), wantOf("cup", i%3+1))
	}
	middle, err := s.Orders.List(t.Context(), order.Filter{UserID: &users[0]}, order.ByPlacedAsc, page.Args{First: ptr(2)})
	if err != nil {
		t.Fatal(err)
	}
	cursor := middle.Cursors[1]
	for name, args := range map[string]page.Args{
		"the default":       {},
		"first":             {First: ptr(2)},
		"first of none":     {First: ptr(0)},
		"last":              {Last: ptr(2)},
		"first after":       {First: ptr(1), After: &cursor},
		"last before":       {Last: ptr(1), Before: &cursor},
		"after and before":  {After: &middle.Cursors[0], Before: &cursor},
		"more than one has": {First: ptr(50)},
		"behind some":       {First: ptr(2), After: ptr(page.SkipCursor(2))},
		"behind all":        {After: ptr(page.SkipCursor(9))},
	} {
		for by := range sortedOrders() {
			if (args.After == &cursor || args.After == &middle.Cursors[0] || args.Before != nil) && by != order.ByPlacedAsc {
				continue
			}
			f := order.Filter{Status: []order.Status{order.Pending}}
			got, err := s.Orders.ListByUsers(t.Context(), users, f, by, args)
			if err != nil {
				t.Fatalf("%s by %s: %v", name, by, err)
			}
			counts, err := s.Orders.CountByUsers(t.Context(), users, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range users {
				f.UserID = &u
				want, err := s.Orders.List(t.Context(), f, by, args)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got[u], orders, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s by %s: page of one of many differs from the page of its own (-own +many):\n%s", name, by, diff)
				}
				if n, err := s.Orders.Count(t.Context(), f); n != counts[u] || err != nil {
					t.Errorf("%s by %s: one of many has %d orders, on its own %d, %v", name, by, counts[u], n, err)
				}
			}
		}
	}
}

func refusesForeignCursors(t *testing.T, s Stores) {
	for name, c := range map[string]page.Cursor{
		"of another order":      {Order: string(order.ByTotalAsc), Key: "1", ID: "ord_1"},
		"with a key of no time": {Order: string(order.ByPlacedAsc), Key: "yesterday", ID: "ord_1"},
		"with an endless year":  {Order: string(order.ByPlacedAsc), Key: "292277026596-12-04T15:30:07Z", ID: "ord_1"},
		"with nanoseconds":      {Order: string(order.ByPlacedAsc), Key: "2026-01-01T00:00:00.000000001Z", ID: "ord_1"},
	} {
		text := c.String()
		if _, err := s.Orders.List(t.Context(), order.Filter{}, order.ByPlacedAsc, page.Args{After: &text}); !fault.Is(err, fault.CursorInvalid) {
			t.Errorf("a cursor %s gave %v, want CURSOR_INVALID", name, err)
		}
	}
	text := page.Cursor{Order: string(order.ByPlacedAsc), Key: "0000-01-01T00:00:00Z", ID: "anything"}.String()
	if p, err := s.Orders.List(t.Context(), order.Filter{}, order.ByPlacedAsc, page.Args{After: &text}); err != nil || len(p.Items) != 0 {
		t.Errorf("a cursor before all times gave %v, %v", p, err)
	}
}

func matchesNoUnstorableText(t *testing.T, s Stores) {
	for _, odd := range []string{"a\x00b", "\xff\xfe"} {
		if n, err := s.Orders.Count(t.Context(), order.Filter{Number: &odd}); n != 0 || err != nil {
			t.Errorf("Count of number %q = %d, %v", odd, n, err)
		}
		if n, err := s.Products.Count(t.Context(), order.ProductFilter{SKUs: []string{odd}, Currency: &odd}); n != 0 || err != nil {
			t.Errorf("Count of SKU %q = %d, %v", odd, n, err)
		}
		if _, err := s.Products.BySKU(t.Context(), odd); !fault.Is(err, order.CodeProductNotFound) {
			t.Errorf("BySKU(%q) gave %v", odd, err)
		}
	}
}
