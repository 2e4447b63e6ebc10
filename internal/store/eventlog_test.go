package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// numberAll gives all events their positions, where a sequencer has to.
func numberAll(t testing.TB, db *store.DB) {
	t.Helper()
	seq := newSequence(t, db)
	if seq == nil {
		return
	}
	lease, ok, err := seq.Acquire(t.Context(), "test", time.Minute)
	if err != nil || !ok {
		t.Fatalf("Take = %v, %v", ok, err)
	}
	for n := -1; n != 0; {
		if n, lease, err = seq.AssignPositions(t.Context(), lease, time.Minute, 3); err != nil {
			t.Fatal(err)
		}
	}
}

// givenEvents makes events of all kinds of things, for two customers and staff.
func givenEvents(t testing.TB, db *store.DB) (users []uid.User, orders []uid.Order) {
	t.Helper()
	for range 3 {
		users = append(users, givenUser(t, db).ID)
	}
	for i := range 6 {
		sku := fmt.Sprint("sku", i)
		p := givenProduct(t, db, sku, 100)
		customer := users[i%2]
		o, err := db.Orders().Place(t.Context(), claim.None, customer, []order.Want{{SKU: sku, Quantity: 1}}, func(offers map[string]order.Offer) (*order.Order, error) {
			return order.Place(order.Details{UserID: customer}, []order.Want{{SKU: sku, Quantity: 1}}, offers, at)
		})
		if err != nil {
			t.Fatal(err)
		}
		orders = append(orders, o.ID)
		if _, err := db.Orders().Update(t.Context(), claim.None, o.ID, func(o *order.Order) error { return o.Cancel("", at) }); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			continue
		}
		if _, err := db.Products().Update(t.Context(), claim.None, p.ID, func(p *order.Product) error {
			return p.Apply(order.ProductChange{Active: validate.Of(false)}, at)
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Products().UpdateStock(t.Context(), claim.None, p.ID, func(p *order.Product, s *order.Stock) error { return p.Adjust(s, 5, at) }); err != nil {
			t.Fatal(err)
		}
	}
	numberAll(t, db)
	return users, orders
}

func TestEvents_Read_shows_what_the_filter_matches(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		users, orders := givenEvents(t, db)
		log := db.Events()
		for i := range db.Log(t) { // times are out of order
			db.Exec(t, `UPDATE events SET occurred_at = ?, actor = ? WHERE position = ?`,
				at.UTC().Truncate(time.Microsecond).Add(time.Duration(rand.IntN(8))*time.Microsecond), randomOf([]string{"", "key_1", string(users[0])}), i+1)
		}
		all, err := log.Read(t.Context(), event.Filter{}, eventlog.Span{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		checkLog(t, db, all)
		audiences := []*event.Audience{
			nil, event.AudienceOf(nil),
			event.AudienceOf(&auth.Principal{UserID: users[0], Roles: []auth.Role{auth.Customer}, Credential: auth.SessionCredential("ses_1")}),
			event.AudienceOf(&auth.Principal{UserID: users[2], Roles: []auth.Role{auth.Staff}, Credential: auth.SessionCredential("ses_1")}),
			event.AudienceOf(&auth.Principal{UserID: users[2], Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential("ses_1")}),
			event.AudienceOf(&auth.Principal{UserID: users[0], Roles: []auth.Role{auth.Staff}, Credential: auth.APIKeyCredential("key", auth.OrdersRead)}),
		}
		for range 300 {
			f := event.Filter{Audience: randomOf(audiences)}
			if rand.IntN(3) == 0 {
				f.Types = []event.Type{randomOf(event.Types()), order.EventOrderPlaced, order.EventProductUpdated}
			}
			if rand.IntN(4) == 0 {
				f.SubjectID = randomOf([]string{string(users[0]), string(orders[0]), "none", "\x00"})
			}
			if rand.IntN(4) == 0 {
				f.UserID = randomOf(users)
			}
			if rand.IntN(4) == 0 {
				f.OrderID = randomOf(orders)
			}
			if rand.IntN(4) == 0 {
				f.Actor = randomOf([]string{"key_1", string(users[0]), "none"})
			}
			for _, end := range []**time.Time{&f.Since, &f.Until} {
				if t := at.Truncate(time.Microsecond).Add(time.Duration(rand.IntN(8000)) * time.Nanosecond); rand.IntN(4) == 0 {
					*end = &t
				}
			}
			span := eventlog.Span{After: event.Position(rand.IntN(10)), Backward: rand.IntN(2) == 0, Limit: 1 + rand.IntN(20)}
			if rand.IntN(2) == 0 {
				span.Before = span.After + 1 + event.Position(rand.IntN(20))
			}
			got, err := log.Read(t.Context(), f, span)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(positionsOf(filterEvents(all, f, span)), positionsOf(got)); diff != "" {
				t.Fatalf("Read(%+v, %+v) (-want +got):\n%s", f, span, diff)
			}
			n, err := log.Count(t.Context(), f)
			if want := len(filterEvents(all, f, eventlog.Span{Limit: 1000})); err != nil || n != want {
				t.Fatalf("Count(%+v) = %d, %v, want %d", f, n, err, want)
			}
			byOrder, err := log.ReadOrders(t.Context(), orders, event.Filter{Audience: f.Audience}, span)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range orders {
				want := filterEvents(all, event.Filter{OrderID: id, Audience: f.Audience}, span)
				if diff := cmp.Diff(positionsOf(want), positionsOf(byOrder[id])); diff != "" {
					t.Fatalf("ReadOrders(%+v)[%s] (-want +got):\n%s", span, id, diff)
				}
			}
			counts, err := log.CountOrders(t.Context(), orders, event.Filter{Audience: f.Audience})
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range orders {
				want := len(filterEvents(all, event.Filter{OrderID: id, Audience: f.Audience}, eventlog.Span{Limit: 1000}))
				if counts[id] != want {
					t.Fatalf("CountOrders(%+v)[%s] = %d, want %d", f.Audience, id, counts[id], want)
				}
			}
		}
	})
}

// checkLog compares what readers see with the rows.
func checkLog(t *testing.T, db *store.DB, all []*event.Event) {
	t.Helper()
	rows := db.Log(t)
	if len(all) != len(rows) {
		t.Fatalf("Read gave %d events of %d", len(all), len(rows))
	}
	state, err := db.Events().State(t.Context())
	if err != nil || state.Head != event.Position(len(all)) || state.Oldest != 1 {
		t.Fatalf("State = %+v, %v, want head %d and oldest 1", state, err, len(all))
	}
	ids := []uid.Event{"evt_none"}
	for i, e := range all {
		ids = append(ids, e.ID)
		row := rows[i] // by identity, and nothing was late
		if e.ID != row.ID || e.Cursor != (event.Cursor{Timeline: state.Timeline, Position: event.Position(i + 1)}) || !e.OccurredAt.Equal(row.OccurredAt) {
			t.Fatalf("event %d is %+v, want %+v", i, e, row)
		}
		if diff := cmp.Diff(row.Touched, e.Touched); diff != "" {
			t.Fatalf("touched rows of event %d (-want +got):\n%s", i, diff)
		}
	}
	found, err := db.Events().ByIDs(t.Context(), ids)
	if err != nil || len(found) != len(all) {
		t.Errorf("ByIDs found %d of %d events: %v", len(found), len(all), err)
	}
}

func filterEvents(all []*event.Event, f event.Filter, s eventlog.Span) (want []*event.Event) {
	for _, e := range all {
		p := e.Cursor.Position
		if f.Conditions().Match(e) && p > s.After && (s.Before == 0 || p < s.Before) {
			want = append(want, e)
		}
	}
	if s.Backward {
		slices.Reverse(want)
	}
	return want[:min(len(want), s.Limit)]
}

func positionsOf(events []*event.Event) []event.Position {
	all := make([]event.Position, len(events))
	for i, e := range events {
		all[i] = e.Cursor.Position
	}
	return all
}

func randomOf[T any](values []T) T { return values[rand.IntN(len(values))] }

func TestRenewTimeline_voids_cursors(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenUser(t, db)
		numberAll(t, db)
		before, err := db.Events().State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := db.RenewTimeline(t.Context()); err != nil {
			t.Fatal(err)
		}
		after, err := db.Events().State(t.Context())
		if err != nil || after.Timeline == before.Timeline || after.Head != before.Head {
			t.Errorf("State = %+v, %v, want another timeline than %+v", after, err, before)
		}
		if _, err := event.ParseCursor(event.Cursor{Timeline: after.Timeline, Position: after.Head}.String()); err != nil {
			t.Errorf("the new timeline makes no cursor: %v", err)
		}
	})
}
