package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// future is when a clock that is 40 days ahead ends a lease.
func future() time.Time { return time.Now().UTC().Add(40 * 24 * time.Hour).Truncate(time.Microsecond) }

func TestDB_Clock_is_measured_when_the_database_is_opened(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		if skew := db.Clock().Skew(); skew.Abs() > time.Second || time.Since(db.Clock().Now()).Abs() > time.Second {
			t.Errorf("the clock shows %v with a skew of %v, want the time of this machine, where the database is", db.Clock().Now(), skew)
		}
		if err := errors.Join(db.Clock().CheckSkew(), db.Clock().CheckAge()); err != nil {
			t.Errorf("the clock is not relied on: %v", err)
		}
	})
}

func TestLeases_with_more_left_than_their_length_are_void(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		leases := db.Leases()
		if _, ok, err := leases.Acquire(t.Context(), "mail", "a", 0, time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, ok, err := leases.Acquire(t.Context(), "mail", "b", 0, time.Minute); ok || err != nil {
			t.Errorf("Acquire of a lease that another owner has = %v, %v", ok, err)
		}
		db.Exec(t, `UPDATE readers SET expires_at = ? WHERE name = 'mail'`, future())
		if l, ok, err := leases.Acquire(t.Context(), "mail", "b", 0, time.Minute); !ok || err != nil || l.Epoch != 2 {
			t.Errorf("Acquire of a lease of the future = %+v, %v, %v, want its next epoch", l, ok, err)
		}
		seq, err := db.Sequence()
		if err != nil || seq == nil {
			return
		}
		defer seq.Close()
		if _, ok, err := seq.Acquire(t.Context(), "a", time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
		db.Exec(t, `UPDATE sequencer SET expires_at = ?`, future())
		if _, ok, err := seq.Acquire(t.Context(), "b", time.Minute); !ok || err != nil {
			t.Errorf("Acquire of a sequencer's lease of the future = %v, %v, want it", ok, err)
		}
	})
}

func TestRegistry_resets_leases_of_the_future(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenService(t, db, "echo")
		i := givenInstance(t, db, "echo", "a")
		mine := acquireLease(t, db, reconcilerLease, "me")
		for name, reset := range map[string]func() error{
			"Renew": func() error {
				return db.Registry().Renew(t.Context(), []registry.Renewal{{Instance: i.ID, Incarnation: i.Incarnation, TTL: i.TTL}})
			},
			"ExtendAllLeases": func() error { return db.Registry().ExtendAllLeases(t.Context(), mine) },
			"DueServices":     func() error { _, err := db.Registry().DueServices(t.Context(), time.Second, 10, 10); return err },
		} {
			db.Exec(t, `UPDATE leases SET expires_at = ?`, future())
			if err := reset(); err != nil {
				t.Fatal(err)
			}
			leases, err := db.Registry().Leases(t.Context(), []uid.Instance{i.ID})
			if left := time.Until(leases[i.ID].ExpiresAt); err != nil || left > i.TTL+time.Second || left < i.TTL/2 {
				t.Errorf("%s leaves a lease of the future with %v, %v, want its time to live of %v", name, left, err, i.TTL)
			}
		}
	})
}

func TestIdempotencyKey_of_a_clock_that_was_ahead(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		now := at
		db := testenv.Open(t, store.Config{URL: url, Now: func() time.Time { return now }})
		givenProduct(t, db, "cup", 10)
		who := givenUser(t, db).ID
		for ahead, repeated := range map[time.Duration]bool{time.Hour: true, 40 * 24 * time.Hour: false} {
			now = at.Add(ahead)
			first, err := placeOrder(t.Context(), callUnder(who, ahead.String()), db, who, "cup")
			if err != nil {
				t.Fatal(err)
			}
			now = at
			again, err := placeOrder(t.Context(), callUnder(who, ahead.String()), db, who, "cup")
			if err != nil || (again.ID == first.ID) != repeated {
				t.Errorf("a key that is %v ahead: the repeated call gave %v, %v, want the same order %v", ahead, again, err, repeated)
			}
		}
	})
}

func TestLeases_Rewind_moves_an_offset_without_an_owner_back(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		leases := db.Leases()
		l, _, err := leases.Acquire(t.Context(), "mail", "a", 10, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := leases.Rewind(t.Context(), "mail", 5); ok || err != nil {
			t.Errorf("Rewind of a reader with an owner = %v, %v, want nothing", ok, err)
		}
		if err := leases.Release(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		for to, want := range map[event.Position]bool{10: false, 12: false} {
			if ok, err := leases.Rewind(t.Context(), "mail", to); ok != want || err != nil {
				t.Errorf("Rewind to %d = %v, %v, want %v", to, ok, err, want)
			}
		}
		if ok, err := leases.Rewind(t.Context(), "mail", 5); !ok || err != nil {
			t.Errorf("Rewind = %v, %v", ok, err)
		}
		if next, ok, err := leases.Acquire(t.Context(), "mail", "b", 0, time.Minute); !ok || err != nil || next.Position != 5 || next.Epoch != 3 {
			t.Errorf("the next owner has %+v, %v, %v, want the offset 5 at epoch 3", next, ok, err)
		}
	})
}
