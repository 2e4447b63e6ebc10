// Package event defines events: types, cursors, filters, the audience that may see an
// event, and the recorder by which an aggregate collects its events. It is a leaf without I/O:
// domains declare their types of events, see Declare.
//
// Every change of state is a row change and its events, committed together by the store.
// Domains record events here; nothing is published anywhere else. Package eventlog stores,
// orders and delivers them.
package event

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Type names what happened, in the past tense. The names are API.
type Type string

// The types to which other packages react than the domain that records them. A domain
// declares the others beside its entities.
const (
	UserUpdated Type = "user.updated"
	UserDeleted Type = "user.deleted"

	OrderPlaced            Type = "order.placed"
	OrderCancelled         Type = "order.cancelled"
	PaymentRefundRequested Type = "payment.refund_requested" // of an order
	PaymentSucceeded       Type = "payment.succeeded"
	PaymentFailed          Type = "payment.failed"
	PaymentRefunded        Type = "payment.refunded"
)

// Event is one entry of the log.
type Event struct {
	ID             uid.Event
	Type           Type
	OccurredAt     time.Time
	Actor          string          // id of the user or API key that did it; empty for the system itself
	SubjectID      string          // id of what changed
	SubjectVersion int             // version of the subject after the change
	Related        []string        // ids of what else it concerns, at most one a kind, e.g. the user of an order
	Data           json.RawMessage // the subject after the change; never a hash, token or secret

	Cursor  Cursor    // its position in the log; zero until it has one
	Public  bool      // whether every signed-in caller may see it; set on reading, see IsPublic
	Touched []Touched // the rows that its transaction changed, on the first event of it
}

// Touched names a row that a transaction changed, for caches on every node.
type Touched struct {
	Entity  string `json:"entity"` // the name of the entity, as declared, or stock
	ID      string `json:"id"`
	Version int    `json:"version"`
	Deleted bool   `json:"deleted,omitempty"`
}

// Concerns reports whether the id is the event's subject or related to it.
func (e *Event) Concerns(id string) bool {
	return e.SubjectID == id || slices.Contains(e.Related, id)
}

// Recorder collects the events of an aggregate until its store commits them.
// The zero value is ready to use.
type Recorder struct{ pending []Event }

// Record adds an event. The store sets ID and Actor. Data must encode
// to JSON: it is a struct of the caller's, so a failure is a mistake in the code.
func (r *Recorder) Record(t Type, subject string, version int, data any, at time.Time, related ...string) {
	b, err := json.Marshal(data)
	if err != nil {
		panic("event: snapshot of " + subject + " does not encode: " + err.Error())
	}
	r.pending = append(r.pending, Event{
		Type: t, OccurredAt: at, SubjectID: subject, SubjectVersion: version, Related: related, Data: b,
	})
}

// Take returns what was recorded and forgets it.
func (r *Recorder) Take() []Event {
	evs := r.pending
	r.pending = nil
	return evs
}
