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

// numberedEvents returns the events that concern a user, once all have positions.
func numberedEvents(t *testing.T, db *store.DB, id uid.User) []*event.Event {
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
	events, err := db.Events().Read(t.Context(), event.Filter{UserID: id}, eventlog.Span{Limit: 100})
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
				read := numberedEvents(t, db, who.ID) // as a consumer that retries has them
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
