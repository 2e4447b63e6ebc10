package ordertest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// placeUnderKey returns a function that places an order of the customer under one
// idempotency key; calls with another body have another fingerprint.
func placeUnderKey(t testing.TB, customer uid.User, body byte) (call func(Stores, ...order.Want) (*order.Order, error)) {
	t.Helper()
	cl := claim.Call{Caller: customer, Key: "k", Fingerprint: [32]byte{body}}
	return func(s Stores, wants ...order.Want) (*order.Order, error) {
		return s.Orders.Place(t.Context(), cl, customer, wants, func(offers map[string]order.Offer) (*order.Order, error) {
			return order.Place(order.Details{UserID: customer}, wants, offers, at)
		})
	}
}

func replaysCallUnderKey(t *testing.T, s Stores) {
	customer, other := s.Customer(t), s.Customer(t)
	cup := givenProduct(t, s, "cup", 10)
	first, err := placeUnderKey(t, customer, 1)(s, wantOf("cup", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Orders.Update(t.Context(), claim.None, first.ID, func(o *order.Order) error { return o.Pay(at) }); err != nil {
		t.Fatal(err)
	}
	again, err := placeUnderKey(t, customer, 1)(s, wantOf("cup", 1))
	if err != nil || again.ID != first.ID || again.Status != order.Paid {
		t.Errorf("the second call = %+v, %v; want the first order as it is now", again, err)
	}
	if _, err := placeUnderKey(t, customer, 2)(s, wantOf("cup", 2)); !fault.Is(err, fault.IdempotencyKeyReused) {
		t.Errorf("another call under the key gave %v", err)
	}
	if o, err := placeUnderKey(t, other, 2)(s, wantOf("cup", 2)); err != nil || o.ID == first.ID {
		t.Errorf("the key of another user = %v, %v; want an order of its own", o, err)
	}
	if n := stockOf(t, s, cup.ID); n != 7 {
		t.Errorf("stock = %d, want 7", n)
	}
}

func freesKeyOfRefusedCall(t *testing.T, s Stores) {
	customer := s.Customer(t)
	cup := givenProduct(t, s, "cup", 0)
	if _, err := placeUnderKey(t, customer, 1)(s, wantOf("cup", 1)); !fault.Is(err, order.CodeStockInsufficient) {
		t.Fatalf("placing what is sold out gave %v", err)
	}
	if _, err := s.Products.UpdateStock(t.Context(), claim.None, cup.ID, func(p *order.Product, st *order.Stock) error { return p.Adjust(st, 3, at) }); err != nil {
		t.Fatal(err)
	}
	if _, err := placeUnderKey(t, customer, 1)(s, wantOf("cup", 1)); err != nil {
		t.Errorf("the same call after the refusal gave %v", err)
	}
}

// runParallel runs fn n times at once and returns what went wrong, by code.
func runParallel(n int, fn func(i int) error) map[fault.Code]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[fault.Code]int{}
	for i := range n {
		wg.Go(func() {
			err := fn(i)
			code := fault.Code("")
			if err != nil {
				code = fault.From(err).Code
				if code == fault.Internal {
					code = fault.Code(err.Error())
				}
			}
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	wg.Wait()
	return codes
}

func placesOneOrderPerKey(t *testing.T, s Stores) {
	const calls = 200
	customer, cup := s.Customer(t), givenProduct(t, s, "cup", 10)
	var mu sync.Mutex
	ids := map[uid.Order]int{}
	codes := runParallel(calls, func(int) error {
		o, err := placeUnderKey(t, customer, 1)(s, wantOf("cup", 1))
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			ids[o.ID]++
		}
		return err
	})
	if len(ids) != 1 || codes[""]+codes[fault.IdempotencyInFlight] != calls || countOrders(t, s) != 1 || stockOf(t, s, cup.ID) != 9 {
		t.Errorf("%d duplicates ended as %v with %d orders, %d stored, stock %d; want one order and stock 9",
			calls, codes, len(ids), countOrders(t, s), stockOf(t, s, cup.ID))
	}
}

func neverOversells(t *testing.T, s Stores) {
	const buyers, stock = 64, 100
	customer := s.Customer(t)
	skus := []string{"a", "b", "c"}
	ids := map[string]uid.Product{}
	for _, sku := range skus {
		ids[sku] = givenProduct(t, s, sku, stock).ID
	}
	codes := runParallel(buyers, func(i int) error {
		o, err := placeOrder(t, s, customer, at, wantOf(skus[i%3], 3), wantOf(skus[(i+1)%3], 2))
		if err != nil || i%4 > 0 {
			return err
		}
		_, err = s.Orders.Update(t.Context(), claim.None, o.ID, func(o *order.Order) error { return o.Cancel("", at) })
		return err
	})
	if codes[""]+codes[order.CodeStockInsufficient] != buyers {
		t.Errorf("%d buyers ended as %v, want success or STOCK_INSUFFICIENT", buyers, codes)
	}
	held := heldBy(t, s)
	for sku, id := range ids {
		if left := stockOf(t, s, id); left < 0 || left+held[sku] != stock {
			t.Errorf("%s: stock %d and held %d, want a sum of %d", sku, left, held[sku], stock)
		}
	}
}

// heldBy adds up what the orders hold, by SKU.
func heldBy(t testing.TB, s Stores) map[string]int {
	t.Helper()
	all := listAllPages(t, func(args page.Args) (page.Page[*order.Order], error) {
		return s.Orders.List(t.Context(), order.Filter{}, order.ByPlacedAsc, args)
	})
	held := map[string]int{}
	for _, o := range all {
		items, err := s.Orders.Items(t.Context(), []uid.Order{o.ID})
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items[o.ID] {
			if o.Holds() {
				held[it.SKU] += it.Quantity
			}
		}
	}
	return held
}

func avoidsDeadlocks(t *testing.T, s Stores) {
	customer := s.Customer(t)
	const skus = 20
	for i := range skus {
		givenProduct(t, s, fmt.Sprintf("p%02d", i), 10_000)
	}
	codes := runParallel(64, func(n int) error {
		var wants []order.Want
		for i := range skus {
			at := (i + n) % skus
			if n%2 == 0 {
				at = skus - 1 - at
			}
			wants = append(wants, wantOf(fmt.Sprintf("p%02d", at), 1))
		}
		o, err := placeOrder(t, s, customer, at, wants...)
		if err != nil || n%3 > 0 {
			return err
		}
		_, err = s.Orders.Update(t.Context(), claim.None, o.ID, func(o *order.Order) error { return o.Cancel("", at) })
		return err
	})
	if codes[""] != 64 {
		t.Errorf("64 crossing orders ended as %v, want all placed", codes)
	}
}
