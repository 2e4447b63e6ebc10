package store

import (
	"context"
	"encoding/json"
	"testing"

	"backplane/ent"
	entevent "backplane/ent/event"
	"backplane/internal/event"
)

// Logged is an entry of the log with what readers do not see yet.
type Logged struct {
	event.Event
	Seq      int64
	Position *int64
	Touched  []Touched
}

// Log returns the whole log.
func (db *DB) Log(t testing.TB) []Logged {
	t.Helper()
	rows, err := db.client.Event.Query().Order(ent.Asc(entevent.FieldID)).All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return mapped(rows, func(r *ent.Event) Logged {
		l := Logged{Seq: r.ID, Position: r.Position, Event: event.Event{
			ID: r.UID, Type: r.Type, OccurredAt: micro(r.OccurredAt), Actor: r.Actor, SubjectID: r.SubjectID, SubjectVersion: r.SubjectVersion, Data: r.Data,
		}}
		if r.UserID != nil {
			l.Related = append(l.Related, string(*r.UserID))
		}
		if r.OrderID != nil {
			l.Related = append(l.Related, string(*r.OrderID))
		}
		if r.Touched != nil {
			if err := json.Unmarshal(r.Touched, &l.Touched); err != nil {
				t.Fatal(err)
			}
		}
		return l
	})
}

// Exec runs a statement as if the database had been changed by hand.
func (db *DB) Exec(t testing.TB, query string, args ...any) {
	t.Helper()
	err := db.inTx(withoutCall(t.Context()), func(tx *tx) error {
		tx.dirty = true
		_, err := tx.exec(t.Context(), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Int runs a query for one number.
func (db *DB) Int(ctx context.Context, t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if _, err := db.reader().one(ctx, query, args, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Touch runs a transaction that touches a row and records nothing.
func (db *DB) Touch(ctx context.Context) error {
	return db.inTx(ctx, func(tx *tx) error {
		tx.touch("user", "usr_1", 1)
		return nil
	})
}
