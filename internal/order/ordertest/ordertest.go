// Package ordertest specifies what every order.Store and order.ProductStore
// does, as tests that each implementation runs.
package ordertest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Stores are the stores under test, on one empty database.
type Stores struct {
	Orders   order.Store
	Products order.ProductStore
	Customer func(t testing.TB) uid.User // makes an active account
	Inactive func(t testing.TB) uid.User // makes one that is deactivated
}

// at is the time of the tests: with digits that no database keeps.
var at = time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)

// stored is at, as it is read back.
var stored = at.Truncate(time.Microsecond)

var (
	orders   = cmpopts.IgnoreUnexported(order.Order{})
	products = cmpopts.IgnoreUnexported(order.Product{})
)

// Run runs the whole specification. newStores is called once for each test.
func Run(t *testing.T, newStores func(testing.TB) Stores) {
	t.Helper()
	for _, tt := range []struct {
		name string
		test func(*testing.T, Stores)
	}{
		{"a placed order is read back as it was placed", readsBackPlacedOrder},
		{"an order that is refused changes nothing", changesNothingWhenRefused},
		{"only an active account can order", requiresActiveAccount},
		{"cancelling returns the stock once", returnsStockOnce},
		{"a change without an event stores nothing", storesNothingWithoutEvent},
		{"a function that fails stores nothing", storesNothingAfterFailure},
		{"what does not exist is left out or not found", leavesOutMissing},
		{"a call is made once under its key", replaysCallUnderKey},
		{"a refused call leaves its key free", freesKeyOfRefusedCall},
		{"parallel calls under one key place one order", placesOneOrderPerKey},
		{"parallel orders never sell what is not there", neverOversells},
		{"orders that want the same products in other sequences do not deadlock", avoidsDeadlocks},
		{"a product is changed and read back", readsBackChangedProduct},
		{"a SKU and a legacy id belong to one product", refusesTakenNames},
		{"stock is adjusted apart from its product", adjustsStock},
		{"products are filtered and sorted", listsProducts},
		{"orders are filtered and sorted", listsOrders},
		{"orders of many users are paged for each", listsByUsers},
		{"cursors of other lists are refused", refusesForeignCursors},
		{"text that no database takes matches nothing", matchesNoUnstorableText},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, newStores(t))
		})
	}
}

func givenProduct(t testing.TB, s Stores, sku string, stock int) *order.Product {
	t.Helper()
	p, st, err := order.NewProduct(order.ProductInput{
		SKU: sku, Name: "The " + sku, Price: money.Money{Minor: 250, Currency: "EUR"}, Stock: stock, Active: true,
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	p, err = s.Products.Create(t.Context(), claim.None, p, st)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantOf(sku string, n int) order.Want { return order.Want{SKU: sku, Quantity: n} }

// placeOrder places an order the way the service does.
func placeOrder(t testing.TB, s Stores, customer uid.User, when time.Time, wants ...order.Want) (*order.Order, error) {
	t.Helper()
	return s.Orders.Place(t.Context(), claim.None, customer, wants, func(offers map[string]order.Offer) (*order.Order, error) {
		return order.Place(order.Details{UserID: customer}, wants, offers, when)
	})
}

func mustPlace(t testing.TB, s Stores, customer uid.User, when time.Time, wants ...order.Want) *order.Order {
	t.Helper()
	o, err := placeOrder(t, s, customer, when, wants...)
	if err != nil {
		t.Fatalf("place: %v", err)
	}
	return o
}

func stockOf(t testing.TB, s Stores, id uid.Product) int {
	t.Helper()
	found, err := s.Products.Stocks(t.Context(), []uid.Product{id})
	if err != nil || found[id] == nil {
		t.Fatalf("Stocks(%s) = %v, %v", id, found, err)
	}
	return found[id].Quantity
}

func readBack(t testing.TB, s Stores, id uid.Order) *order.Order {
	t.Helper()
	found, err := s.Orders.ByIDs(t.Context(), []uid.Order{id})
	if err != nil || found[id] == nil {
		t.Fatalf("ByIDs(%s) = %v, %v", id, found, err)
	}
	return found[id]
}

func countOrders(t testing.TB, s Stores) int {
	t.Helper()
	n, err := s.Orders.Count(t.Context(), order.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func readsBackPlacedOrder(t *testing.T, s Stores) {
	customer, cup, pot := s.Customer(t), givenProduct(t, s, "cup", 10), givenProduct(t, s, "pot", 5)
	o := mustPlace(t, s, customer, at, wantOf("pot", 2), wantOf("cup", 3))
	if diff := cmp.Diff(o, readBack(t, s, o.ID), orders); diff != "" {
		t.Errorf("what Place returns differs from what is read back (-returned +read):\n%s", diff)
	}
	if o.Status != order.Pending || o.ItemCount != 2 || o.Total != (money.Money{Minor: 1250, Currency: "EUR"}) || !o.PlacedAt.Equal(stored) {
		t.Errorf("placed %+v", o)
	}
	items, err := s.Orders.Items(t.Context(), []uid.Order{o.ID})
	if err != nil {
		t.Fatal(err)
	}
	eur := func(minor int64) money.Money { return money.Money{Minor: minor, Currency: "EUR"} }
	wantItems := []order.Item{
		{OrderID: o.ID, Line: 1, ProductID: pot.ID, SKU: "pot", Name: "The pot", Quantity: 2, UnitPrice: eur(250), Total: eur(500)},
		{OrderID: o.ID, Line: 2, ProductID: cup.ID, SKU: "cup", Name: "The cup", Quantity: 3, UnitPrice: eur(250), Total: eur(750)},
	}
	if diff := cmp.Diff(wantItems, items[o.ID]); diff != "" {
		t.Errorf("Items (-want +got):\n%s", diff)
	}
	if got := stockOf(t, s, cup.ID); got != 7 {
		t.Errorf("stock of cups = %d, want 7", got)
	}
	if got := stockOf(t, s, pot.ID); got != 3 {
		t.Errorf("stock of pots = %d, want 3", got)
	}
}

func changesNothingWhenRefused(t *testing.T, s Stores) {
	customer, cup, pot := s.Customer(t), givenProduct(t, s, "cup", 10), givenProduct(t, s, "pot", 1)
	for name, wants := range map[string][]order.Want{
		"an unknown product": {wantOf("cup", 1), wantOf("jug", 1)},
		"too few of one":     {wantOf("cup", 1), wantOf("pot", 2)},
	} {
		if _, err := placeOrder(t, s, customer, at, wants...); err == nil {
			t.Errorf("placing %s succeeded", name)
		}
	}
	if c, p, n := stockOf(t, s, cup.ID), stockOf(t, s, pot.ID), countOrders(t, s); c != 10 || p != 1 || n != 0 {
		t.Errorf("after refusals cups, pots, orders = %d, %d, %d, want 10, 1, 0", c, p, n)
	}
}

func requiresActiveAccount(t *testing.T, s Stores) {
	givenProduct(t, s, "cup", 10)
	if _, err := placeOrder(t, s, s.Inactive(t), at, wantOf("cup", 1)); !fault.Is(err, fault.UserNotActive) {
		t.Errorf("placing for a deactivated account gave %v", err)
	}
	if _, err := placeOrder(t, s, uid.NewUser(at), at, wantOf("cup", 1)); !fault.Is(err, fault.UserNotFound) {
		t.Errorf("placing for an unknown account gave %v", err)
	}
}

func returnsStockOnce(t *testing.T, s Stores) {
	customer, cup := s.Customer(t), givenProduct(t, s, "cup", 10)
	o := mustPlace(t, s, customer, at, wantOf("cup", 4))
	cancel := func(o *order.Order) error { return o.Cancel("", at) }
	for range 2 {
		got, err := s.Orders.Update(t.Context(), claim.None, o.ID, cancel)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != order.Cancelled || got.Version != 2 {
			t.Errorf("cancelled order has status %s and version %d, want CANCELLED and 2", got.Status, got.Version)
		}
		if diff := cmp.Diff(got, readBack(t, s, o.ID), orders); diff != "" {
			t.Errorf("what Update returns differs from what is read back (-returned +read):\n%s", diff)
		}
		if n := stockOf(t, s, cup.ID); n != 10 {
			t.Errorf("stock = %d, want 10", n)
		}
	}
}

func storesNothingWithoutEvent(t *testing.T, s Stores) {
	givenProduct(t, s, "cup", 10)
	o := mustPlace(t, s, s.Customer(t), at, wantOf("cup", 4))
	got, err := s.Orders.Update(t.Context(), claim.None, o.ID, func(o *order.Order) error {
		o.Note = "changed without an event"
		return nil
	})
	if err != nil || got.Note != "" {
		t.Errorf("Update = %+v, %v; want the order as it is stored", got, err)
	}
}

func storesNothingAfterFailure(t *testing.T, s Stores) {
	cup := givenProduct(t, s, "cup", 10)
	o := mustPlace(t, s, s.Customer(t), at, wantOf("cup", 4))
	no := errors.New("no")
	_, err := s.Orders.Update(t.Context(), claim.None, o.ID, func(o *order.Order) error { return errors.Join(o.Cancel("", at), no) })
	if !errors.Is(err, no) {
		t.Errorf("Update = %v, want the function's error", err)
	}
	if got := readBack(t, s, o.ID); got.Status != order.Pending || stockOf(t, s, cup.ID) != 6 {
		t.Errorf("after a failure the order is %s and the stock %d, want PENDING and 6", got.Status, stockOf(t, s, cup.ID))
	}
}

func leavesOutMissing(t *testing.T, s Stores) {
	cup := givenProduct(t, s, "cup", 10)
	found, err := s.Products.ByIDs(t.Context(), []uid.Product{cup.ID, uid.NewProduct(at)})
	if err != nil || len(found) != 1 {
		t.Errorf("ByIDs = %v, %v; want the one that exists", found, err)
	}
	if _, err := s.Products.BySKU(t.Context(), "CUP"); !fault.Is(err, order.CodeProductNotFound) {
		t.Errorf("BySKU(CUP) gave %v, want PRODUCT_NOT_FOUND: case counts", err)
	}
	if _, err := s.Orders.Update(t.Context(), claim.None, uid.NewOrder(at), func(*order.Order) error { return nil }); !fault.Is(err, order.CodeOrderNotFound) {
		t.Errorf("updating no order gave %v", err)
	}
	if _, err := s.Products.Update(t.Context(), claim.None, uid.NewProduct(at), func(*order.Product) error { return nil }); !fault.Is(err, order.CodeProductNotFound) {
		t.Errorf("updating no product gave %v", err)
	}
}

func readsBackChangedProduct(t *testing.T, s Stores) {
	p := givenProduct(t, s, "cup", 10)
	change := order.ProductChange{Name: validate.Of("A mug"), Active: validate.Of(false), LegacyID: validate.Of(ptr("17"))}
	got, err := s.Products.Update(t.Context(), claim.None, p.ID, func(p *order.Product) error { return p.Apply(change, at.Add(time.Hour)) })
	if err != nil {
		t.Fatal(err)
	}
	want := *p
	want.Name, want.Active, want.LegacyID, want.Version, want.UpdatedAt = "A mug", false, ptr("17"), 2, stored.Add(time.Hour)
	if diff := cmp.Diff(&want, got, products); diff != "" {
		t.Errorf("Update (-want +got):\n%s", diff)
	}
	read, err := s.Products.BySKU(t.Context(), "cup")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, read, products); diff != "" {
		t.Errorf("BySKU (-want +got):\n%s", diff)
	}
}

func refusesTakenNames(t *testing.T, s Stores) {
	cup, pot := givenProduct(t, s, "cup", 1), givenProduct(t, s, "pot", 1)
	set := func(id uid.Product, c order.ProductChange) error {
		_, err := s.Products.Update(t.Context(), claim.None, id, func(p *order.Product) error { return p.Apply(c, at) })
		return err
	}
	if err := set(cup.ID, order.ProductChange{LegacyID: validate.Of(ptr("5"))}); err != nil {
		t.Fatal(err)
	}
	for code, change := range map[fault.Code]order.ProductChange{
		order.CodeSKUTaken:  {SKU: validate.Of("cup")},
		fault.LegacyIDTaken: {LegacyID: validate.Of(ptr("5"))},
	} {
		if err := set(pot.ID, change); !fault.Is(err, code) || fault.From(err).Kind() != fault.KindConflict || len(fault.From(err).Path) != 1 {
			t.Errorf("a change to a name that is taken gave %v, want a Conflict %s with its path", err, code)
		}
	}
}

func adjustsStock(t *testing.T, s Stores) {
	p := givenProduct(t, s, "cup", 10)
	got, err := s.Products.UpdateStock(t.Context(), claim.None, p.ID, func(p *order.Product, st *order.Stock) error { return p.Adjust(st, -4, at) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, got, products); diff != "" {
		t.Errorf("adjusting the stock changed the product (-before +after):\n%s", diff)
	}
	found, err := s.Products.Stocks(t.Context(), []uid.Product{p.ID})
	if err != nil {
		t.Fatal(err)
	}
	want := &order.Stock{ProductID: p.ID, Quantity: 6, Version: 2, UpdatedAt: stored}
	if diff := cmp.Diff(want, found[p.ID]); diff != "" {
		t.Errorf("Stocks (-want +got):\n%s", diff)
	}
	_, err = s.Products.UpdateStock(t.Context(), claim.None, p.ID, func(p *order.Product, st *order.Stock) error { return p.Adjust(st, -7, at) })
	if !fault.Is(err, order.CodeStockInsufficient) {
		t.Errorf("taking more than there is gave %v", err)
	}
}

func ptr[T any](v T) *T { return &v }
