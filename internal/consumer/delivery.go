package consumer

import (
	"context"
	"errors"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Delivery is one event in the hands of the consumer that owns it.
type Delivery struct {
	Lease    lease.Lease
	Event    uid.Event
	Position event.Position
}

// ErrAlreadyHandled says that a consumer has worked on the event before: what its
// transaction would change is changed.
var ErrAlreadyHandled = errors.New("the consumer has worked on this event before")

type deliveryKey struct{}

// WithDelivery returns a context whose next transaction claims the event for the
// consumer, as a caller's does its idempotency key: it gives ErrHandled if the
// event was claimed before, and ErrLeaseLost if the tenure is over. Only a
// Consumer makes such contexts; no request can.
func WithDelivery(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, deliveryKey{}, d)
}

// DeliveryFrom returns the event to claim; ok is false if no consumer is at work.
func DeliveryFrom(ctx context.Context) (d Delivery, ok bool) {
	d, ok = ctx.Value(deliveryKey{}).(Delivery)
	return d, ok && d.Event != ""
}
