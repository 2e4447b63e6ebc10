// Package event defines events: types, cursors, filters, the audience that may see an
// event, and the recorder by which an aggregate collects its events. It is a leaf without I/O.
//
// Every change of state is a row change and its events, committed together by the store.
// Domains record events here; nothing is published anywhere else. Package eventlog stores,
// orders and delivers them.
package event

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
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

	ServiceRegistered     Type = "service.registered"
	ServiceUpdated        Type = "service.updated"
	ServiceDeregistered   Type = "service.deregistered"
	InstanceRegistered    Type = "instance.registered"
	InstanceStatusChanged Type = "instance.status_changed"
	InstanceDeregistered  Type = "instance.deregistered"
)

// Types returns every type.
func Types() []Type {
	return []Type{
		UserCreated, UserUpdated, UserDeleted,
		SessionRevoked, APIKeyCreated, APIKeyRevoked, SigningKeyRotated,
		ProductCreated, ProductUpdated, ProductStockChanged,
		OrderPlaced, OrderPaid, OrderShipped, OrderDelivered, OrderCancelled, OrderRefunded,
		PaymentRefundRequested,
		ServiceRegistered, ServiceUpdated, ServiceDeregistered, InstanceRegistered, InstanceStatusChanged, InstanceDeregistered,
	}
}

// OrderTypes returns the types of events that tell of an order, its payments
// included.
func OrderTypes() []Type { return typesOf("order.", "payment.") }

// ServiceTypes returns the types of events that tell of the registry.
func ServiceTypes() []Type { return typesOf("service.", "instance.") }

// typesOf returns the types that begin with one of the prefixes.
func typesOf(prefixes ...string) []Type {
	return slices.DeleteFunc(Types(), func(t Type) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(string(t), p) })
	})
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

	Cursor  Cursor    // its position in the log; zero until it has one
	Public  bool      // whether every signed-in caller may see it; set on reading, see IsPublic
	Touched []Touched // the rows that its transaction changed, on the first event of it
}

// Touched names a row that a transaction changed, for caches on every node.
type Touched struct {
	Entity  string `json:"entity"` // user, product, stock, order, session, api_key, service or instance
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
