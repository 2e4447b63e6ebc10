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

// tenured takes a reader that nobody owns, for a minute.
func tenured(t testing.TB, db *store.DB, name, holder string) lease.Lease {
	t.Helper()
	tenure, ok, err := db.Leases().Acquire(t.Context(), name, holder, 0, time.Minute)
	if err != nil || !ok {
		t.Fatalf("Take(%s, %s) = %v, %v, want the reader", name, holder, ok, err)
	}
	return tenure
}

// lapse ends the leases of all readers as time would.
func lapse(t testing.TB, db *store.DB) {
	t.Helper()
	db.Exec(t, `UPDATE readers SET expires_at = ?`, time.Now().UTC().Add(-time.Second).Truncate(time.Microsecond))
}

func TestOffsets_one_owner_at_a_time(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		o := db.Leases()
		mine := tenured(t, db, "mail", "a")
		if _, ok, err := o.Acquire(t.Context(), "mail", "b", 0, time.Minute); ok || err != nil {
			t.Errorf("another took an owned reader: %v, %v", ok, err)
		}
		tenured(t, db, "other", "b")
		again := tenured(t, db, "mail", "a")
		if again.Epoch != mine.Epoch+1 {
			t.Errorf("the owner's second epoch is %d, want %d", again.Epoch, mine.Epoch+1)
		}
		if err := o.Release(t.Context(), mine); err != nil { // of an epoch that has passed
			t.Fatal(err)
		}
		if _, ok, _ := o.Acquire(t.Context(), "mail", "b", 0, time.Minute); ok {
			t.Error("a release by an old tenure gave the reader away")
		}
		if err := o.Release(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		tenured(t, db, "mail", "b")
	})
}

func TestOffsets_Save(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		then func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease // what happens before a save
		to   event.Position
		lost bool
		want event.Position // stored afterwards
	}{
		{"moves the place on", nil, 9, false, 9},
		{"never moves it back", nil, 3, false, 5},
		{"stores nothing once the lease expired", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			lapse(t, db)
			return mine
		}, 9, true, 5},
		{"stores nothing once another took over", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			lapse(t, db)
			tenured(t, db, "mail", "b")
			return mine
		}, 9, true, 5},
		{"stores nothing in an epoch of its own that has passed", func(t *testing.T, db *store.DB, mine lease.Lease) lease.Lease {
			tenured(t, db, "mail", "a")
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
				mine, err := o.Renew(t.Context(), tenured(t, db, "mail", "a"), 5, time.Minute)
				if err != nil || mine.Position != 5 {
					t.Fatalf("Save(5) = %+v, %v", mine, err)
				}
				before, err := o.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if tt.then != nil {
					mine = tt.then(t, db, mine)
				}
				if _, err := o.Renew(t.Context(), mine, tt.to, time.Minute); errors.Is(err, lease.ErrLost) != tt.lost || !tt.lost && err != nil {
					t.Errorf("Save(%d) = %v, want lost %v", tt.to, err, tt.lost)
				}
				all, err := o.List(t.Context())
				if err != nil || len(all) != 1 || all[0].Name != "mail" || all[0].Position != tt.want {
					t.Errorf("List = %+v, %v, want mail at %d", all, err, tt.want)
				}
				if moved := !all[0].MovedAt.Equal(before[0].MovedAt); moved != (tt.want != 5) {
					t.Errorf("the place moved at %v, before it did at %v", all[0].MovedAt, before[0].MovedAt)
				}
			})
		})
	}
}

func TestOffsets_a_new_reader_begins_where_it_is_told(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		for _, start := range []event.Position{7, 1000} { // the second time it is not new
			got, ok, err := db.Leases().Acquire(t.Context(), "late", "a", start, time.Minute)
			if err != nil || !ok || got.Position != 7 {
				t.Errorf("Take from %d = %+v, %v, %v, want the place 7", start, got, ok, err)
			}
		}
	})
}

func TestOffsets_Forget(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		o := db.Leases()
		mine := tenured(t, db, "mail", "a")
		if forgotten, err := o.Delete(t.Context(), "mail"); forgotten || err != nil {
			t.Errorf("Forget of a reader that somebody owns = %v, %v, want false", forgotten, err)
		}
		if err := o.Release(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} { // the second time there is none
			if forgotten, err := o.Delete(t.Context(), "mail"); forgotten != want || err != nil {
				t.Errorf("Forget = %v, %v, want %v", forgotten, err, want)
			}
		}
		if _, err := o.Renew(t.Context(), mine, 9, time.Minute); !errors.Is(err, lease.ErrLost) {
			t.Errorf("Save of a reader that is forgotten = %v, want ErrLeaseLost", err)
		}
	})
}
