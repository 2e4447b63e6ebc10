package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The events of givenLongLog.
const (
	longLog      = 30_000
	logUsers     = 1_000 // each with as many orders
	firstProduct = 29_000
)

// givenLongLog makes a log in which users place orders in turn, and whose last events are of
// products, every second of them active.
func givenLongLog(t testing.TB, db *store.DB, stale bool) {
	t.Helper()
	instant, data := `?`, `CASE WHEN n %% 2 = 0 THEN '{"active":true}' ELSE '{"active":false}' END`
	if db.Dialect() == "postgres" {
		instant, data = `CAST(? AS timestamptz)`, `CAST(`+data+` AS json)`
	}
	const behind = 100 // positions of other events
	db.Exec(t, fmt.Sprintf(`INSERT INTO events (position, id, type, occurred_at, actor, subject_id, subject_version, user_id, order_id, data)
		WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < %[1]d)
		SELECT n + %[4]d, 'evt_' || n, CASE WHEN n >= %[2]d THEN 'product.updated' ELSE 'order.placed' END, `+instant+`, '', 'sub_' || n, 1,
			CASE WHEN n < %[2]d THEN 'usr_' || (n %% %[3]d) END, CASE WHEN n < %[2]d THEN 'ord_' || n END, `+data+` FROM g`,
		longLog, firstProduct, logUsers, behind), at.UTC().Truncate(time.Microsecond))
	if stale { // a bulk load is analyzed before the sequencer assigns positions
		db.Exec(t, `CREATE TABLE assigned AS SELECT seq, position FROM events`)
		db.Exec(t, `UPDATE events SET position = NULL`)
	}
	if err := db.Analyze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stale {
		db.Exec(t, `UPDATE events SET position = assigned.position FROM assigned WHERE assigned.seq = events.seq`)
	}
}

// TestEvents_plans_use_an_index_of_what_the_caller_may_see checks for each filter that no part of its
// statements reads the log from an end, nor all events of a type for those of one user.
func TestEvents_plans_use_an_index_of_what_the_caller_may_see(t *testing.T) {
	t.Parallel()
	customer := event.AudienceOf(&auth.Principal{UserID: "usr_7", Roles: []auth.Role{auth.Customer}, Credential: auth.SessionCredential("ses_1")})
	staff := event.AudienceOf(&auth.Principal{UserID: "usr_7", Roles: []auth.Role{auth.Staff}, Credential: auth.SessionCredential("ses_1")})
	recent, later := at.Add(time.Hour), at.Add(2*time.Hour)
	placed, products := []event.Type{order.EventOrderPlaced}, order.ProductEntity.EventTypes()
	tests := []struct {
		name  string
		f     event.Filter
		index []string // all that the plan uses
	}{
		{"a customer's log", event.Filter{Audience: customer}, []string{"event_type_position", "event_user_id_position"}},
		{"a customer's orders", event.Filter{Audience: customer, Types: placed}, []string{"event_user_id_position"}},
		{"products for a customer", event.Filter{Audience: customer, Types: products}, []string{"event_type_position"}},
		{"one subject for a customer", event.Filter{Audience: customer, Types: placed, SubjectID: "sub_9"}, []string{"event_subject_id_position"}},
		{"one user for staff", event.Filter{Audience: staff, Types: placed, UserID: "usr_9"}, []string{"event_user_id_position"}},
		{"an actor for staff", event.Filter{Audience: staff, Types: placed, Actor: "usr_9"}, []string{"event_actor_position"}},
		{"what an actor did to a subject, for staff", event.Filter{Audience: staff, SubjectID: "sub_9", Actor: "usr_9", Since: &recent}, []string{"event_subject_id_position"}},
		{"what an actor did lately, for staff", event.Filter{Audience: staff, Actor: "usr_9", Since: &recent, Until: &later}, []string{"event_actor_position"}},
		{"a range of time for staff", event.Filter{Audience: staff, Since: &recent, Until: &later}, []string{"event_occurred_at"}},
		{"a type in a range of time", event.Filter{Types: placed, Since: &recent}, []string{"event_occurred_at"}},
		{"products for staff", event.Filter{Audience: staff, Types: products}, []string{"event_type_position"}},
	}
	for name, stale := range map[string]bool{"fresh statistics": false, "stale statistics": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testenv.EachDB(t, func(t *testing.T, db *store.DB) {
				if stale && db.Dialect() != "postgres" {
					return // positions are assigned before statistics are taken
				}
				givenLongLog(t, db, stale)
				for _, tt := range tests {
					for what, plan := range db.ExplainLog(t, tt.f, eventlog.Span{After: 1, Limit: 11}) {
						if used := usedIndices(plan); !slices.Equal(used, tt.index) || strings.Contains(plan, "Seq Scan on events") || strings.Contains(plan, "SCAN e\n") {
							t.Errorf("to %s %s the indices %q are used, want %q:\n%s", what, tt.name, used, tt.index, plan)
						}
					}
				}
			})
		})
	}
}

// usedIndices returns the indices of the log that a plan uses, but that of the position, by which
// the found rows are read.
func usedIndices(plan string) (used []string) {
	for _, name := range []string{"event_actor_position", "event_occurred_at", "event_order_id_position", "event_subject_id_position", "event_type_position", "event_user_id_position"} {
		if strings.Contains(plan, name) {
			used = append(used, name)
		}
	}
	return used
}

func TestEvents_Count_ends_at_its_limit(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		o := givenOrder(t, db)
		givenLongLog(t, db, false)
		customer := &event.Audience{Own: []event.Type{order.EventOrderPlaced}, Public: []event.Type{order.EventProductUpdated}, User: "usr_7"}
		for name, tt := range map[string]struct {
			f    event.Filter
			want int
		}{
			"the whole log":         {event.Filter{}, eventlog.MaxCount + 1},
			"one type":              {event.Filter{Types: []event.Type{order.EventOrderPlaced}}, eventlog.MaxCount + 1},
			"one type, named twice": {event.Filter{Types: []event.Type{order.EventProductUpdated, order.EventProductUpdated}}, 1001},
			"a customer's log":      {event.Filter{Audience: customer}, 29 + 501},
			"a type of two lists":   {event.Filter{Audience: &event.Audience{All: customer.Public, Own: customer.Public, Public: customer.Public, User: "usr_7"}}, 1001},
			"nothing":               {event.Filter{Audience: &event.Audience{User: "usr_7"}}, 0},
		} {
			if n, err := db.Events().Count(t.Context(), tt.f); err != nil || n != tt.want {
				t.Errorf("Count of %s = %d, %v, want %d", name, n, err, tt.want)
			}
		}
		db.Exec(t, `UPDATE events SET order_id = ? WHERE position < 20000`, string(o))
		counts, err := db.Events().CountOrders(t.Context(), []uid.Order{o}, event.Filter{})
		if err != nil || counts[o] != eventlog.MaxCount+1 {
			t.Errorf("CountOrders = %v, %v, want %d", counts, err, eventlog.MaxCount+1)
		}
	})
}

func TestEvents_refuse_a_long_range_of_time(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores 120,000 events, which takes minutes with the race detector")
	}
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenLongLog(t, db, false)
		since := at.Add(-time.Hour)
		for _, want := range []bool{false, true} {
			if want { // 120,000 events instead of 30,000
				db.Exec(t, `INSERT INTO events (position, id, type, occurred_at, actor, subject_id, subject_version, data)
					SELECT position + 30000 * n, 'evt_' || n || id, type, occurred_at, actor, subject_id, subject_version, data FROM events
					CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3) AS copies`)
			}
			n, err := db.Events().Count(t.Context(), event.Filter{Since: &since})
			if fault.Is(err, fault.BadInput) != want || !want && n != eventlog.MaxCount+1 {
				t.Errorf("Count of a range = %d, %v, refused must be %v", n, err, want)
			}
			_, err = db.Events().Read(t.Context(), event.Filter{Since: &since, Until: &since}, eventlog.Span{Limit: 3})
			if err != nil {
				t.Errorf("Read of a short range = %v", err)
			}
			_, err = db.Events().Read(t.Context(), event.Filter{Since: &since}, eventlog.Span{Limit: 3, Backward: true})
			if fault.Is(err, fault.BadInput) != want || err != nil && !want {
				t.Errorf("Read of a range = %v, refused must be %v", err, want)
			}
			if _, err := db.Events().Read(t.Context(), event.Filter{Since: &since, SubjectID: "sub_7"}, eventlog.Span{Limit: 3}); err != nil {
				t.Errorf("Read of a subject since then = %v", err)
			}
		}
	})
}

// givenOrder returns a new order.
func givenOrder(t testing.TB, db *store.DB) uid.Order {
	t.Helper()
	givenProduct(t, db, "cup", 1)
	o, err := placeOrder(t.Context(), claim.None, db, givenUser(t, db).ID, "cup")
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}
