package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// acquireLease acquires a free lease for a minute.
func acquireLease(t testing.TB, db *store.DB, name, owner string) lease.Lease {
	t.Helper()
	l, ok, err := db.Leases().Acquire(t.Context(), name, owner, 0, time.Minute)
	if err != nil || !ok {
		t.Fatalf("Acquire(%s, %s) = %v, %v, want the reader", name, owner, ok, err)
	}
	return l
}

// expireLeases expires the leases of all readers.
func expireLeases(t testing.TB, db *store.DB) {
	t.Helper()
	db.Exec(t, `UPDATE readers SET expires_at = ?`, time.Now().UTC().Add(-time.Second).Truncate(time.Microsecond))
}

func TestLeases_have_one_owner_at_a_time(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		o := db.Leases()
		mine := acquireLease(t, db, "mail", "a")
		if _, ok, err := o.Acquire(t.Context(), "mail", "b", 0, time.Minute); ok || err != nil {
			t.Errorf("another owner acquired a lease that is held: %v, %v", ok, err)
		}
		acquireLease(t, db, "other", "b")
		again := acquireLease(t, db, "mail", "a")
		if again.Epoch != mine.Epoch+1 {
			t.Errorf("the owner's second epoch is %d, want %d", again.Epoch, mine.Epoch+1)
		}
		if err := o.Release(t.Context(), mine); err != nil { // of an epoch that has passed
			t.Fatal(err)
		}
		if _, ok, _ := o.Acquire(t.Context(), "mail", "b", 0, time.Minute); ok {
			t.Error("a release under an old epoch released the lease")
		}
		if err := o.Release(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		acquireLease(t, db, "mail", "b")
	})
}

func TestLeases_Renew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		then func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease // what happens before a save
		to   event.Position
		lost bool
		want event.Position // stored afterwards
	}{
		{"moves the offset", nil, 9, false, 9},
		{"never moves it back", nil, 3, false, 5},
		{"stores nothing once the lease expired", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			expireLeases(t, db)
			return mine
		}, 9, true, 5},
		{"stores nothing after another owner acquired the lease", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			expireLeases(t, db)
			acquireLease(t, db, "mail", "b")
			return mine
		}, 9, true, 5},
		{"stores nothing in an epoch of its own that has passed", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			acquireLease(t, db, "mail", "a")
			return mine
		}, 9, true, 5},
		{"stores nothing after a restore", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			if err := db.RenewTimeline(t.Context()); err != nil {
				t.Fatal(err)
			}
			return mine
		}, 9, true, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testenv.EachDB(t, func(t *testing.T, db *store.DB) {
				o := db.Leases()
				mine, err := o.Renew(t.Context(), acquireLease(t, db, "mail", "a"), 5, time.Minute)
				if err != nil || mine.Position != 5 {
					t.Fatalf("Renew(5) = %+v, %v", mine, err)
				}
				before, err := o.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if tt.then != nil {
					mine = tt.then(t, db, mine)
				}
				if _, err := o.Renew(t.Context(), mine, tt.to, time.Minute); errors.Is(err, lease.ErrLost) != tt.lost || !tt.lost && err != nil {
					t.Errorf("Renew(%d) = %v, want lost %v", tt.to, err, tt.lost)
				}
				all, err := o.List(t.Context())
				if err != nil || len(all) != 1 || all[0].Name != "mail" || all[0].Position != tt.want {
					t.Errorf("List = %+v, %v, want mail at %d", all, err, tt.want)
				}
				if moved := !all[0].MovedAt.Equal(before[0].MovedAt); moved != (tt.want != 5) {
					t.Errorf("the offset moved at %v, before it did at %v", all[0].MovedAt, before[0].MovedAt)
				}
			})
		})
	}
}

func TestLeases_a_new_reader_begins_at_the_given_start(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		for _, start := range []event.Position{7, 1000} { // the second time it is not new
			got, ok, err := db.Leases().Acquire(t.Context(), "late", "a", start, time.Minute)
			if err != nil || !ok || got.Position != 7 {
				t.Errorf("Acquire from %d = %+v, %v, %v, want the offset 7", start, got, ok, err)
			}
		}
	})
}

func TestLeases_Delete(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		o := db.Leases()
		mine := acquireLease(t, db, "mail", "a")
		if deleted, err := o.Delete(t.Context(), "mail"); deleted || err != nil {
			t.Errorf("Delete of a reader with an owner = %v, %v, want false", deleted, err)
		}
		if err := o.Release(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} { // the second time there is none
			if deleted, err := o.Delete(t.Context(), "mail"); deleted != want || err != nil {
				t.Errorf("Delete = %v, %v, want %v", deleted, err, want)
			}
		}
		if _, err := o.Renew(t.Context(), mine, 9, time.Minute); !errors.Is(err, lease.ErrLost) {
			t.Errorf("Renew of a deleted reader = %v, want ErrLost", err)
		}
	})
}
