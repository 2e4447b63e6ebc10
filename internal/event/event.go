// Package event owns what the log of changes says: the types of events and the
// shape of an entry.
//
// Every change of state is a row change and its events, committed together by
// the store. Domains record; nothing is published anywhere else.
package event

import (
	"encoding/json"
	"time"

	"backplane/internal/uid"
)

// Type names what happened, in the past tense. The names are API.
type Type string

// The types of events.
const (
	UserCreated         Type = "user.created"
	UserUpdated         Type = "user.updated"
	UserDeleted         Type = "user.deleted"
	SessionRevoked      Type = "session.revoked"
	APIKeyCreated       Type = "api_key.created"
	APIKeyRevoked       Type = "api_key.revoked"
	SigningKeyRotated   Type = "signing_key.rotated"
	ProductCreated      Type = "product.created"
	ProductUpdated      Type = "product.updated"
	ProductStockChanged Type = "product.stock_changed" // by hand; sales show as order events
	OrderPlaced         Type = "order.placed"
	OrderPaid           Type = "order.paid"
	OrderShipped        Type = "order.shipped"
	OrderDelivered      Type = "order.delivered"
	OrderCancelled      Type = "order.cancelled"
	OrderRefunded       Type = "order.refunded"

	PaymentRefundRequested Type = "payment.refund_requested"
)

// Types returns every type.
func Types() []Type {
	return []Type{
		UserCreated, UserUpdated, UserDeleted,
		SessionRevoked, APIKeyCreated, APIKeyRevoked, SigningKeyRotated,
		ProductCreated, ProductUpdated, ProductStockChanged,
		OrderPlaced, OrderPaid, OrderShipped, OrderDelivered, OrderCancelled, OrderRefunded,
		PaymentRefundRequested,
	}
}

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
}

// Recorder collects the events of an aggregate until its store commits them.
// The zero value is ready to use.
type Recorder struct{ pending []Event }

// Record notes an event. ID and Actor are given by the store. Data must encode
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
