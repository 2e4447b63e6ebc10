package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// placeOrder places an order for customer, one unit of each SKU, in a context of its own.
func placeOrder(ctx context.Context, cl claim.Claim, db *store.DB, customer uid.User, skus ...string) (*order.Order, error) {
	var wants []order.Want
	for _, sku := range skus {
		wants = append(wants, order.Want{SKU: sku, Quantity: 1})
	}
	return db.Orders().Place(ctx, cl, customer, wants, func(offers map[string]order.Offer) (*order.Order, error) {
		return order.Place(order.Details{UserID: customer}, wants, offers, at)
	})
}

// callUnder returns the claim of a call by caller under an idempotency key.
func callUnder(caller uid.User, key string) claim.Call {
	return claim.Call{Caller: caller, Key: key, Fingerprint: [32]byte{1}}
}

func TestPlace_takes_ten_statements_however_many_lines(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		var seen []string
		db := testenv.Open(t, store.Config{URL: url, OnStatement: func(q string) { seen = append(seen, q) }})
		who := givenUser(t, db).ID
		var skus []string
		for i := range order.MaxLines {
			skus = append(skus, givenProduct(t, db, fmt.Sprint("sku", i), 10).SKU)
		}
		for _, lines := range []int{1, order.MaxLines} {
			seen = nil
			if _, err := placeOrder(t.Context(), callUnder(who, fmt.Sprint(lines)), db, who, skus[:lines]...); err != nil {
				t.Fatal(err)
			}
			if len(seen) != 10 {
				t.Errorf("an order of %d lines under an idempotency key took %d statements, want 10:\n%s", lines, len(seen), strings.Join(seen, "\n"))
			}
			seen = nil
			if _, err := placeOrder(t.Context(), claim.None, db, who, skus[:lines]...); err != nil {
				t.Fatal(err)
			}
			if len(seen) != 8 {
				t.Errorf("an order of %d lines took %d statements, want 8:\n%s", lines, len(seen), strings.Join(seen, "\n"))
			}
		}
	})
}

func TestTransaction_stores_its_events_and_what_it_touched(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		var notified []store.Touched
		db = db.WithHooks(store.Hooks{Committed: func(rows []store.Touched) { notified = append(notified, rows...) }})
		who := givenUser(t, db)
		cup := givenProduct(t, db, "cup", 10)
		notified = nil
		o, err := placeOrder(auth.With(t.Context(), &auth.Principal{UserID: who.ID, Credential: auth.APIKeyCredential("key_1")}), claim.None, db, who.ID, "cup")
		if err != nil {
			t.Fatal(err)
		}
		log := db.Log(t)
		last := log[len(log)-1]
		want := []store.Touched{{Entity: "stock", ID: string(cup.ID), Version: 2}, {Entity: "order", ID: string(o.ID), Version: 1}}
		if diff := cmp.Diff(want, last.Touched); diff != "" {
			t.Errorf("touched rows of the event (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, notified); diff != "" {
			t.Errorf("touched rows notified on commit (-want +got):\n%s", diff)
		}
		if last.Type != order.EventOrderPlaced || last.Actor != "key_1" || last.SubjectID != string(o.ID) || last.SubjectVersion != 1 || !uid.Is(uid.KindEvent, string(last.ID)) {
			t.Errorf("event = %+v", last)
		}
		if want := []string{string(who.ID), string(o.ID)}; !slices.Equal(last.Related, want) {
			t.Errorf("related = %v, want %v", last.Related, want)
		}
	})
}

func TestLog_positions_are_dense_on_SQLite_and_open_on_PostgreSQL(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenProduct(t, db, "cup", 1)
		who := givenUser(t, db).ID
		for range 3 { // two of them are refused and rolled back
			_, _ = placeOrder(t.Context(), claim.None, db, who, "cup")
		}
		for i, l := range db.Log(t) {
			dense := l.Position != nil && *l.Position == int64(i+1)
			if db.Dialect() == "postgres" && l.Position != nil || db.Dialect() != "postgres" && !dense {
				t.Errorf("position of event %d (%s) = %v", i+1, l.Type, l.Position)
			}
		}
	})
}

func TestTransaction_is_repeated_when_the_database_refuses_it(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	who := givenUser(t, db).ID
	db.Exec(t, `CREATE SEQUENCE tries`)
	db.Exec(t, `CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN
		CASE nextval('tries') WHEN 1 THEN RAISE SQLSTATE '40001'; WHEN 2 THEN RAISE SQLSTATE '40P01'; ELSE RETURN NEW; END CASE; END $$ LANGUAGE plpgsql`)
	db.Exec(t, `CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse()`)
	runs := 0
	u, err := db.Users().Update(t.Context(), claim.None, who, func(u *user.User) error {
		runs++
		return u.Apply(user.Change{Name: fieldOf("New")}, 0, at)
	})
	if err != nil || u.Version != 2 || runs != 3 {
		t.Errorf("Update = %+v, %v after %d runs; want version 2 after 3", u, err, runs)
	}
	if n := len(db.Log(t)); n != 2 {
		t.Errorf("the log has %d events, want 2: created and updated once", n)
	}
}

func TestTransaction_waits_for_another_writer_of_the_file(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	var begun atomic.Int32
	var release func()
	db := testenv.Open(t, store.Config{URL: url, LockTimeout: time.Millisecond, OnStatement: func(q string) {
		if q == "BEGIN" && begun.Add(1) == 3 {
			release()
		}
	}})
	who := givenUser(t, db).ID
	_, other := openPlain(t, url)
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	begun.Store(0)
	release = func() {
		if _, err := conn.ExecContext(t.Context(), `ROLLBACK`); err != nil {
			t.Error(err)
		}
	}
	if _, err := db.Users().Update(t.Context(), claim.None, who, renameUser); err != nil || begun.Load() != 3 {
		t.Errorf("Update = %v after %d tries, want success with the third", err, begun.Load())
	}
}

func TestTransaction_of_an_order_and_one_of_its_stock_do_not_block_each_other(t *testing.T) {
	t.Parallel()
	var begun atomic.Int32
	adjusting := make(chan struct{}, 8) // it has locked the product and goes for the stock
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t), OnStatement: func(q string) {
		switch {
		case q == "BEGIN":
			begun.Add(1)
		case strings.HasPrefix(q, `SELECT "stocks"`):
			adjusting <- struct{}{}
		}
	}})
	cup, who := givenProduct(t, db, "cup", 10), givenUser(t, db).ID
	begun.Store(0)
	done := make(chan error, 1)
	wants := []order.Want{{SKU: "cup", Quantity: 1}}
	_, err := db.Orders().Place(t.Context(), claim.None, who, wants, func(offers map[string]order.Offer) (*order.Order, error) {
		go func() {
			_, err := db.Products().UpdateStock(t.Context(), claim.None, cup.ID, func(p *order.Product, s *order.Stock) error { return p.Adjust(s, 5, at) })
			done <- err
		}()
		<-adjusting
		return order.Place(order.Details{UserID: who}, wants, offers, at)
	})
	if err := errors.Join(err, <-done); err != nil || begun.Load() != 2 {
		t.Errorf("an order and a change of its product's stock = %v in %d transactions, want success in 2", err, begun.Load())
	}
}

func renameUser(u *user.User) error { return u.Apply(user.Change{Name: fieldOf("New")}, 0, at) }

// openLosingCommits opens a PostgreSQL whose connection dies when the first COMMIT after
// arm is sent.
func openLosingCommits(t *testing.T) (db *store.DB, arm func()) {
	t.Helper()
	var armed atomic.Bool
	url := testenv.Postgres(t)
	_, killer := openPlain(t, url)
	db = testenv.Open(t, store.Config{URL: url, OnStatement: func(q string) {
		if q == "COMMIT" && armed.CompareAndSwap(true, false) {
			killIdleTransactions(t, killer)
		}
	}})
	return db, func() { armed.Store(true) }
}

func killIdleTransactions(t *testing.T, db *sql.DB) {
	t.Helper()
	_, err := db.Exec(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
		WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()`)
	if err != nil {
		t.Error(err)
	}
}

func TestCommit_of_unknown_outcome_is_reported(t *testing.T) {
	t.Parallel()
	db, arm := openLosingCommits(t)
	givenProduct(t, db, "cup", 10)
	who := givenUser(t, db).ID
	notified := 0
	db = db.WithHooks(store.Hooks{Committed: func([]store.Touched) { notified++ }})
	arm()
	_, err := placeOrder(t.Context(), claim.None, db, who, "cup")
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.From(err).Message, "look whether it was made") || notified != 1 {
		t.Errorf("Place = %v, notified %d times; want UNAVAILABLE with advice, and the caches notified once", err, notified)
	}
}

func TestCommit_of_unknown_outcome_is_repeated_under_an_idempotency_key(t *testing.T) {
	t.Parallel()
	db, arm := openLosingCommits(t)
	givenProduct(t, db, "cup", 10)
	who := givenUser(t, db).ID
	arm()
	o, err := placeOrder(t.Context(), callUnder(who, "k"), db, who, "cup")
	if err != nil {
		t.Fatalf("Place = %v, want success with the second try", err)
	}
	again, err := placeOrder(t.Context(), callUnder(who, "k"), db, who, "cup")
	if n, _ := db.Orders().Count(t.Context(), order.Filter{}); err != nil || again.ID != o.ID || n != 1 {
		t.Errorf("the call again = %v, %v with %d orders; want the one order", again, err, n)
	}
}

func TestCall_in_flight_is_a_conflict(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t), LockTimeout: 50 * time.Millisecond})
	who := givenUser(t, db).ID
	entered, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := db.Users().Update(t.Context(), callUnder(who, "k"), who, func(u *user.User) error {
			close(entered)
			<-leave
			return renameUser(u)
		})
		if err != nil {
			t.Errorf("the first call = %v", err)
		}
	})
	<-entered
	if _, err := db.Users().Update(t.Context(), callUnder(who, "k"), who, renameUser); !fault.Is(err, fault.IdempotencyInFlight) {
		t.Errorf("the second call = %v, want IDEMPOTENCY_IN_FLIGHT", err)
	}
	if _, err := db.Users().Update(t.Context(), claim.None, who, renameUser); !fault.Is(err, fault.Unavailable) {
		t.Errorf("another call that waits for the row = %v, want UNAVAILABLE", err)
	}
	close(leave)
	wg.Wait()
}

func TestIdempotencyKey_expires_after_a_day(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		now := at
		db := testenv.Open(t, store.Config{URL: url, Now: func() time.Time { return now }})
		givenProduct(t, db, "cup", 10)
		who := givenUser(t, db).ID
		first, err := placeOrder(t.Context(), callUnder(who, "k"), db, who, "cup")
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(24 * time.Hour)
		second, err := placeOrder(t.Context(), callUnder(who, "k"), db, who, "cup")
		if err != nil || second.ID == first.ID {
			t.Errorf("the call a day later = %v, %v; want an order of its own", second, err)
		}
		if n, err := db.PurgeExpired(t.Context()); n != 0 || err != nil {
			t.Errorf("PurgeExpired of live keys = %d, %v", n, err)
		}
		now = now.Add(24 * time.Hour)
		if n, err := db.PurgeExpired(t.Context()); n != 1 || err != nil {
			t.Errorf("PurgeExpired = %d, %v; want 1", n, err)
		}
	})
}

func TestTransaction_ends_with_its_context(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		who := givenUser(t, db).ID
		ctx, cancel := context.WithCancel(t.Context())
		_, err := db.Users().Update(ctx, claim.None, who, func(u *user.User) error { cancel(); return renameUser(u) })
		if fault.From(err).Kind() != fault.KindTimeout {
			t.Errorf("Update = %v, want a Timeout", err)
		}
		found, err := db.Users().ByIDs(t.Context(), []uid.User{who})
		if err != nil || found[who].Version != 1 {
			t.Errorf("after a cancelled change the account is %+v, %v; want version 1", found[who], err)
		}
	})
}

func TestTransaction_that_touches_rows_must_record_an_event(t *testing.T) {
	t.Parallel()
	db := testenv.DB(t)
	if err := db.Touch(t.Context()); err == nil || fault.From(err).Kind() != fault.KindInternal {
		t.Errorf("a transaction whose rows no other node would invalidate ended with %v, want an internal error", err)
	}
}

func TestTransaction_refuses_a_claim_that_is_nil(t *testing.T) {
	t.Parallel()
	db := testenv.DB(t)
	if _, err := db.Users().Update(t.Context(), nil, givenUser(t, db).ID, renameUser); err == nil || fault.From(err).Kind() != fault.KindInternal {
		t.Errorf("Update with a nil claim = %v, want an internal error", err)
	}
}

func TestHooks_are_called_after_the_connection_is_free(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		db := testenv.Open(t, store.Config{URL: url, MaxConns: 1})
		notified := 0
		db = db.WithHooks(store.Hooks{Committed: func([]store.Touched) {
			notified++
			if err := db.Ping(t.Context()); err != nil { // waits for the only connection
				t.Error(err)
			}
		}})
		givenUser(t, db)
		if notified != 1 {
			t.Errorf("Committed was called %d times, want once", notified)
		}
	})
}
