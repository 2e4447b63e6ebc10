package store_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/user"
)

// relay forwards connections to a PostgreSQL, and counts how often a client sends after the server did.
type relay struct {
	url   string
	trips atomic.Int64
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	u.Host = l.Addr().String()
	r := &relay{url: u.String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go r.forward(client, server)
		}
	}()
	return r
}

func (r *relay) forward(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var answered atomic.Bool
	answered.Store(true)
	copyBytes := func(from, to net.Conn, seen func()) {
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			if n > 0 {
				seen()
				if _, err := to.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				_ = to.Close()
				return
			}
		}
	}
	go copyBytes(server, client, func() { answered.Store(true) })
	copyBytes(client, server, func() {
		if answered.Swap(false) {
			r.trips.Add(1)
		}
	})
}

// A statement that a connection runs for the first time is prepared, in a round trip of its own.
func TestTransactions_take_few_round_trips(t *testing.T) {
	t.Parallel()
	r := newRelay(t, testenv.Postgres(t))
	db := testenv.Open(t, store.Config{URL: r.url, MaxConns: 1})
	who := givenUser(t, db).ID
	for _, sku := range []string{"cup", "pot", "tea"} {
		givenProduct(t, db, sku, 100)
	}
	place := func(cl claim.Claim) func() error {
		return func() error { _, err := placeOrder(t.Context(), cl, db, who, "cup", "pot", "tea"); return err }
	}
	keys := 0
	for name, call := range map[string]struct {
		run  func() error
		want int64
	}{
		"an order":                        {place(claim.None), 2},
		"an order under a key":            {func() error { keys++; return place(callUnder(who, fmt.Sprint(keys)))() }, 3},
		"an order that is refused":        {func() error { return refused(placeOrder(t.Context(), claim.None, db, who, "nothing")) }, 2}, // with ROLLBACK
		"an order of an unknown customer": {func() error { return refused(placeOrder(t.Context(), claim.None, db, "usr_0", "cup")) }, 2},
		"a change of an account by ent": {func() error {
			keys++
			_, err := db.Users().Update(t.Context(), claim.None, who, func(u *user.User) error { return u.Apply(user.Change{Name: fieldOf(fmt.Sprint(keys))}, 0, at) })
			return err
		}, 4},
	} {
		for range 2 { // the first prepares statements
			if err := call.run(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		before := r.trips.Load()
		if err := call.run(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := r.trips.Load() - before; n != call.want {
			t.Errorf("%s takes %d round trips, want %d", name, n, call.want)
		}
	}
}

// refused returns nil for an order that is refused.
func refused(o *order.Order, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && o == nil && f.Kind() != fault.KindInternal {
		return nil
	}
	return fmt.Errorf("the order is %v, %w", o, err)
}

func TestTransaction_of_an_unknown_customer_or_duplicate_takes_nothing(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenProduct(t, db, "cup", 10)
		who := givenUser(t, db).ID
		if _, err := placeOrder(t.Context(), claim.None, db, "usr_0", "cup"); !fault.Is(err, fault.UserNotFound) {
			t.Errorf("an order of an unknown customer = %v, want USER_NOT_FOUND", err)
		}
		if _, err := placeOrder(t.Context(), claim.None, db, givenInactive(t, db).ID, "cup"); !fault.Is(err, fault.UserNotActive) {
			t.Errorf("an order of a deactivated customer = %v, want USER_NOT_ACTIVE", err)
		}
		for range 2 {
			if _, err := placeOrder(t.Context(), callUnder(who, "k"), db, who, "cup"); err != nil {
				t.Fatal(err)
			}
		}
		if n := db.Int(t.Context(), t, `SELECT quantity FROM stocks`); n != 9 {
			t.Errorf("%d units are left, want 9 after one order", n)
		}
	})
}
