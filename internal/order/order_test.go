package order

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newOffer(t *testing.T, sku string, minor int64, currency string, stock int) Offer {
	t.Helper()
	p, s, err := NewProduct(ProductInput{SKU: sku, Name: sku, Price: money.Money{Minor: minor, Currency: currency}, Stock: stock, Active: true}, at)
	if err != nil {
		t.Fatal(err)
	}
	return Offer{p, s}
}

func offersBySKU(os ...Offer) map[string]Offer {
	m := make(map[string]Offer)
	for _, o := range os {
		m[o.Product.SKU] = o
	}
	return m
}

func TestPlace_prices_from_products_and_takes_the_stock(t *testing.T) {
	t.Parallel()
	stock := offersBySKU(newOffer(t, "A", 250, "EUR", 10), newOffer(t, "B", 999, "EUR", 1))
	o, err := Place(Details{UserID: uid.NewUser(at), Note: "ring twice"}, []Want{{"A", 4}, {"B", 1}}, stock, at)
	if err != nil {
		t.Fatal(err)
	}
	if want := (money.Money{Minor: 1999, Currency: "EUR"}); o.Total != want || o.ItemCount != 2 || o.Status != Pending {
		t.Errorf("placed %+v, %d lines, %s, want %+v, 2 lines, PENDING", o.Total, o.ItemCount, o.Status, want)
	}
	if a, b := stock["A"].Stock, stock["B"].Stock; a.Quantity != 6 || b.Quantity != 0 || a.Version != 2 {
		t.Errorf("stocks are %+v and %+v, want 6 and 0 at version 2", a, b)
	}
	evs := o.TakeEvents()
	if len(evs) != 1 || evs[0].Type != EventOrderPlaced || !slices.Equal(evs[0].Related, []string{string(o.UserID)}) {
		t.Fatalf("recorded %+v, want one order.placed related to the user", evs)
	}
	if strings.Contains(string(evs[0].Data), "ring twice") {
		t.Error("the event shows the customer's note")
	}
}

func TestPlace_refuses_and_leaves_the_stock(t *testing.T) {
	t.Parallel()
	many := make([]Want, MaxLines+1)
	for i := range many {
		many[i] = Want{fmt.Sprint("S", i), 1}
	}
	tests := []struct {
		name  string
		wants []Want
		code  fault.Code
		path  []string
	}{
		{"no lines", nil, CodeOrderLinesInvalid, []string{"items"}},
		{"too many lines", many, CodeOrderLinesInvalid, []string{"items"}},
		{"nothing of a product", []Want{{"A", 0}}, CodeQuantityInvalid, []string{"items", "0", "quantity"}},
		{"less than nothing", []Want{{"A", 1}, {"B", -1}}, CodeQuantityInvalid, []string{"items", "1", "quantity"}},
		{"one SKU in two lines", []Want{{"A", 1}, {"A", 1}}, CodeOrderLinesInvalid, []string{"items", "1", "sku"}},
		{"an unknown SKU", []Want{{"A", 1}, {"none", 1}}, CodeProductNotFound, []string{"items", "1", "sku"}},
		{"a SKU with a NUL", []Want{{"\x00", 1}}, CodeProductNotFound, []string{"items", "0", "sku"}},
		{"more than there is", []Want{{"A", 1}, {"B", 2}}, CodeStockInsufficient, []string{"items", "1", "quantity"}},
		{"two currencies", []Want{{"A", 1}, {"USD", 1}}, CodeCurrencyMixed, []string{"items", "1", "sku"}},
		{"what is not for sale", []Want{{"old", 1}}, CodeProductNotFound, []string{"items", "0", "sku"}},
		{"a total too large", []Want{{"dear", 2}}, CodeTotalTooLarge, []string{"items", "0", "quantity"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			old := newOffer(t, "old", 1, "EUR", 5)
			old.Product.Active = false
			stock := offersBySKU(newOffer(t, "A", 250, "EUR", 10), newOffer(t, "B", 1, "EUR", 1), newOffer(t, "USD", 1, "USD", 1), old,
				newOffer(t, "dear", money.Max, "EUR", 5))
			_, err := Place(Details{UserID: uid.NewUser(at)}, tt.wants, stock, at)
			f := fault.From(err)
			if f.Code != tt.code || !slices.Equal(f.Path, tt.path) {
				t.Errorf("Place gave %v at %v, want %s at %v", err, f.Path, tt.code, tt.path)
			}
			if stock["A"].Stock.Quantity != 10 {
				t.Errorf("stock of A is %d, want 10", stock["A"].Stock.Quantity)
			}
		})
	}
}

func TestPlace_tells_staff_what_is_not_for_sale(t *testing.T) {
	t.Parallel()
	old := newOffer(t, "old", 1, "EUR", 5)
	old.Product.Active = false
	offers := offersBySKU(old)
	_, err := Place(Details{UserID: uid.NewUser(at), ByStaff: true}, []Want{{"old", 1}}, offers, at)
	if f := fault.From(err); f.Code != CodeProductNotActive || !slices.Equal(f.Path, []string{"items", "0", "sku"}) {
		t.Errorf("Place gave %v, want PRODUCT_NOT_ACTIVE", err)
	}
	_, hidden := Place(Details{UserID: uid.NewUser(at)}, []Want{{"old", 1}}, offers, at)
	_, absent := Place(Details{UserID: uid.NewUser(at)}, []Want{{"old", 1}}, offersBySKU(), at)
	if hidden.Error() != absent.Error() {
		t.Errorf("a customer gets %v for a hidden product, and %v for an absent one", hidden, absent)
	}
}

// TestMoves walks every move from every state: what the table allows succeeds
// with one event and one version more, staying put does nothing, all else is
// refused without a trace.
func TestMoves_follow_the_state_table(t *testing.T) {
	t.Parallel()
	do := map[Status]func(*Order) error{
		Paid:      func(o *Order) error { return o.Pay(at) },
		Cancelled: func(o *Order) error { return o.Cancel("", at) },
		Shipped:   func(o *Order) error { return o.Ship(at) },
		Delivered: func(o *Order) error { return o.Deliver(at) },
		Refunded:  func(o *Order) error { return o.Refund(at) },
	}
	for _, from := range Statuses() {
		for to, move := range do {
			o := (&Order{ID: uid.NewOrder(at), Status: from, Version: 7}).Loaded()
			allowed := slices.Contains(o.NextStatuses(), to)
			err := move(o)
			evs := len(o.TakeEvents())
			switch {
			case from == to && (err != nil || o.Version != 7 || evs != 0):
				t.Errorf("%s to itself: %v, version %d, %d events; want nothing to happen", from, err, o.Version, evs)
			case from != to && allowed && (err != nil || o.Status != to || o.Version != 8 || evs != 1):
				t.Errorf("%s to %s: %v, now %s at version %d with %d events", from, to, err, o.Status, o.Version, evs)
			case from != to && !allowed && (fault.From(err).Kind() != fault.KindConflict || o.Status != from || evs != 0):
				t.Errorf("%s to %s: %v, now %s; want a conflict and no change", from, to, err, o.Status)
			}
		}
	}
}

func TestStock_returns_with_what_never_shipped(t *testing.T) {
	t.Parallel()
	tests := []struct {
		from Status
		move func(*Order) error
		want bool
	}{
		{Pending, func(o *Order) error { return o.Cancel("", at) }, true},
		{Paid, func(o *Order) error { return o.Refund(at) }, true},
		{Shipped, func(o *Order) error { return o.Refund(at) }, false},
		{Delivered, func(o *Order) error { return o.Refund(at) }, false},
		{Paid, func(o *Order) error { return o.Ship(at) }, false},
		{Cancelled, func(o *Order) error { return o.Cancel("", at) }, false},
	}
	for _, tt := range tests {
		o := (&Order{Status: tt.from}).Loaded()
		if err := tt.move(o); err != nil || o.ReturnsStock() != tt.want {
			t.Errorf("from %s to %s: ReturnsStock = %v, %v, want %v", tt.from, o.Status, o.ReturnsStock(), err, tt.want)
		}
	}
}

func TestRequestRefund_keeps_a_paid_order_from_shipping(t *testing.T) {
	t.Parallel()
	o := (&Order{ID: uid.NewOrder(at), Status: Paid, Version: 2}).Loaded()
	if err := o.RequestRefund("too late", at); err != nil || o.RefundRequestedAt == nil || o.Version != 3 {
		t.Fatalf("RequestRefund gave %v, order %+v", err, o)
	}
	if err := o.RequestRefund("again", at); err != nil || o.Version != 3 || len(o.TakeEvents()) != 1 {
		t.Errorf("asking again gave %v at version %d, want nothing to happen", err, o.Version)
	}
	if err := o.Ship(at); !fault.Is(err, CodeOrderNotShippable) {
		t.Errorf("Ship gave %v, want ORDER_NOT_SHIPPABLE", err)
	}
	if diff := cmp.Diff([]Status{Refunded}, o.NextStatuses()); diff != "" {
		t.Errorf("NextStatuses (-want +got):\n%s", diff)
	}
}

func TestApply_changes_a_product_once(t *testing.T) {
	t.Parallel()
	p := newOffer(t, "A", 100, "EUR", 1).Product
	p.TakeEvents()
	same := ProductChange{Name: validate.Of("A"), Active: validate.Of(true)}
	if err := p.Apply(same, at); err != nil || p.Version != 1 || len(p.TakeEvents()) != 0 {
		t.Errorf("a change that changes nothing gave %v at version %d", err, p.Version)
	}
	if err := p.Apply(ProductChange{Price: validate.Of(money.Money{Minor: 5, Currency: "USD"})}, at); err != nil || p.Version != 2 || len(p.TakeEvents()) != 1 {
		t.Errorf("a new price gave %v at version %d", err, p.Version)
	}
	if err := p.Apply(ProductChange{SKU: validate.Of("with space")}, at); !fault.Is(err, CodeSKUInvalid) || p.SKU != "A" {
		t.Errorf("a bad SKU gave %v, product is now %q", err, p.SKU)
	}
}

// TestStock_is_conserved places, cancels, ships, refunds and adjusts at random:
// stock plus what unshipped orders hold changes only by shipping and by hand.
func TestStock_is_conserved(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		offer := newOffer(t, "A", 100, "EUR", 50)
		expected, orders := 50, []*Order{}
		for range 300 {
			switch o := pickOrder(rnd, orders); {
			case o == nil || rnd.IntN(3) == 0:
				if o, err := Place(Details{}, []Want{{"A", 1 + rnd.IntN(20)}}, offersBySKU(offer), at); err == nil {
					orders = append(orders, o)
				}
			case rnd.IntN(5) == 0:
				by := rnd.IntN(21) - 10
				if offer.Product.Adjust(offer.Stock, by, at) == nil {
					expected += by
				}
			default:
				o.Loaded()
				if shipped := changeRandomly(rnd, o); shipped {
					expected -= o.Items()[0].Quantity
				}
				if o.ReturnsStock() {
					offer.Stock.Quantity += o.Items()[0].Quantity
				}
			}
			held := 0
			for _, o := range orders {
				if o.Holds() {
					held += o.Items()[0].Quantity
				}
			}
			if offer.Stock.Quantity < 0 || offer.Stock.Quantity+held != expected {
				t.Fatalf("seed %d: stock %d plus held %d, want %d in all", seed, offer.Stock.Quantity, held, expected)
			}
		}
	}
}

func pickOrder(rnd *rand.Rand, orders []*Order) *Order {
	if len(orders) == 0 {
		return nil
	}
	return orders[rnd.IntN(len(orders))]
}

// changeRandomly makes one random move and reports whether the order shipped by it.
func changeRandomly(rnd *rand.Rand, o *Order) (shipped bool) {
	before := o.Status
	moves := []func(time.Time) error{o.Pay, o.Ship, o.Deliver, o.Refund, func(at time.Time) error { return o.Cancel("", at) }}
	_ = moves[rnd.IntN(len(moves))](at) // a refusal is a fine outcome here
	return before == Paid && o.Status == Shipped
}

func TestParseNumber_takes_what_people_write(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"K7M1P-Q9X0T", "k7m1p-q9x0t", "K7M1PQ9X0T", " k7m1p q9x0t ", "K7-M1-PQ-9X-0T", "k7mLp-q9xOt", "K7MIP-Q9X0T"} {
		if got := ParseNumber(s); got != "K7M1P-Q9X0T" {
			t.Errorf("ParseNumber(%q) = %q, want K7M1P-Q9X0T", s, got)
		}
	}
	for _, s := range []string{"", "-", "K7M1P", "K7M1P-Q9X0TT", "\xff"} {
		if got := ParseNumber(s); got != s {
			t.Errorf("ParseNumber(%q) = %q, want it as it is", s, got)
		}
	}
}
