package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// numberedEvents returns the events that match, once all have positions.
func numberedEvents(t *testing.T, db *store.DB, f event.Filter) []*event.Event {
	t.Helper()
	if seq := newSequence(t, db); seq != nil {
		l, ok, err := seq.Acquire(t.Context(), "test", time.Minute)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if _, _, err := seq.AssignPositions(t.Context(), l, time.Minute, 1000); err != nil {
			t.Fatal(err)
		}
	}
	events, err := db.Events().Read(t.Context(), f, eventlog.Span{Limit: 100})
	if err != nil || len(events) == 0 {
		t.Fatalf("Read = %d events, %v", len(events), err)
	}
	return events
}

func TestDeadLetters_hold_no_personal_data_of_a_deleted_user(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]string{
		"while the log still has the events": "",
		"when retention removed them":        `DELETE FROM events`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testenv.EachDB(t, func(t *testing.T, db *store.DB) {
				who := givenUser(t, db)
				givenProduct(t, db, "cup", 10)
				o, err := placeOrder(t.Context(), claim.None, db, who.ID, "cup")
				if err == nil {
					_, err = db.Orders().Update(t.Context(), claim.None, o.ID, func(o *order.Order) error { return o.Cancel("my secret reason", at) })
				}
				if err != nil {
					t.Fatal(err)
				}
				held := acquireLease(t, db, "c", "me")
				read := numberedEvents(t, db, event.Filter{UserID: who.ID}) // as a consumer that retries has them
				givenUser(t, db)
				if _, err := db.Users().UpdateCountingAdmins(t.Context(), claim.None, who.ID, func(u *user.User, others int) error { return u.Delete(others, at) }); err != nil {
					t.Fatal(err)
				}
				if meanwhile != "" {
					db.Exec(t, meanwhile)
				}
				for _, e := range read {
					if err := db.DeadLetters().Park(t.Context(), held, e, consumer.Failure{Attempts: 10}); err != nil {
						t.Fatal(err)
					}
				}
				letters, err := db.DeadLetters().List(t.Context(), consumer.DeadLetterFilter{}, page.Args{})
				if err != nil || len(letters.Items) != len(read) {
					t.Fatalf("List = %d letters, %v, want %d", len(letters.Items), err, len(read))
				}
				for _, l := range letters.Items {
					data := string(l.Event.Data)
					if strings.Contains(data, *who.Email) || strings.Contains(data, "secret") {
						t.Errorf("the dead letter of %s holds %s", l.Event.Type, data)
					}
					if l.Event.SubjectID == string(o.ID) && !strings.Contains(data, o.Number) {
						t.Errorf("the dead letter of %s holds nothing of the order any more: %s", l.Event.Type, data)
					}
				}
			})
		})
	}
}

func TestDeadLetters_DropExpired_takes_those_that_wait_for_too_long(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		now := at
		db := testenv.Open(t, store.Config{URL: url, Now: func() time.Time { return now }})
		letters, held, cause := db.DeadLetters(), acquireLease(t, db, "c", "me"), consumer.Failure{Attempts: 10, Code: "INTERNAL"}
		var products []*order.Product
		for _, sku := range []string{"old", "requested", "tried", "replayed", "new"} {
			products = append(products, givenProduct(t, db, sku, 1))
			changeProduct(t, db, products[len(products)-1])
		}
		parkAll := func(which *order.Product) (parked []*consumer.DeadLetter) {
			for _, e := range numberedEvents(t, db, event.Filter{SubjectID: string(which.ID)}) {
				if err := letters.Park(t.Context(), held, e, cause); err != nil {
					t.Fatal(err)
				}
			}
			subject := string(which.ID)
			found, err := letters.List(t.Context(), consumer.DeadLetterFilter{SubjectID: &subject}, page.Args{})
			if err != nil || len(found.Items) != 2 {
				t.Fatalf("%d dead letters, %v", len(found.Items), err)
			}
			return found.Items
		}
		parked := map[int][]*consumer.DeadLetter{}
		for i := range 4 {
			parked[i] = parkAll(products[i])
		}
		if err := letters.CompleteReplay(t.Context(), parked[3][0]); err != nil { // requests the other, and is not pending itself
			t.Fatal(err)
		}
		now = now.Add(24 * time.Hour)
		parkAll(products[4])
		if n, err := letters.RequestReplay(t.Context(), claim.None, consumer.ReplayRequest{IDs: []uid.DeadLetter{parked[1][0].ID}}); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if err := letters.FailReplay(t.Context(), held, parked[2][0], cause); err != nil { // what waits behind it has not failed since
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
		var dropped []consumer.DroppedDeadLetter
		for round, want := range []int{2, 1, 0} {
			some, err := letters.DropExpired(t.Context(), 24*time.Hour, 2)
			if err != nil || len(some) != want {
				t.Fatalf("round %d dropped %d dead letters, %v, want %d", round, len(some), err, want)
			}
			dropped = append(dropped, some...)
		}
		for i, want := range []*consumer.DeadLetter{parked[0][0], parked[0][1], parked[3][1]} {
			d := dropped[i]
			if d.ID != want.ID || d.Consumer != "c" || d.EventID != want.Event.ID || d.Type != want.Event.Type || d.SubjectID != want.Event.SubjectID ||
				d.Position != want.Event.Cursor.Position || !d.FailedAt.Equal(want.FailedAt) || d.Code != "INTERNAL" {
				t.Errorf("dropped %+v, want %+v of %+v", d, want, want.Event)
			}
		}
		if waiting, err := letters.HasPending(t.Context(), "c", string(products[0].ID)); waiting || err != nil {
			t.Errorf("HasPending of the subject whose dead letters were dropped = %v, %v: its next events would wait for ever", waiting, err)
		}
		if all, err := letters.Count(t.Context(), consumer.DeadLetterFilter{Replayed: true}); all != 7 || err != nil {
			t.Errorf("%d dead letters are left, %v, want 7", all, err)
		}
	})
}

func changeProduct(t *testing.T, db *store.DB, p *order.Product) {
	t.Helper()
	if _, err := db.Products().UpdateStock(t.Context(), claim.None, p.ID, func(p *order.Product, s *order.Stock) error { return p.Adjust(s, 1, at) }); err != nil {
		t.Fatal(err)
	}
}
