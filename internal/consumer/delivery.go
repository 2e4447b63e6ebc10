package consumer

import (
	"context"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Delivery is one event that a consumer handles under its lease.
type Delivery struct {
	Lease    lease.Lease
	Event    uid.Event
	Position event.Position
}

type deliveryKey struct{}

// WithDelivery returns a context whose next transaction claims the event for the
// consumer, as a caller's claims its idempotency key. The transaction returns ErrAlreadyHandled
// if the event was claimed before, and lease.ErrLost if the lease has another owner or epoch.
// Only a Consumer makes such contexts; no request can.
func WithDelivery(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, deliveryKey{}, d)
}

// DeliveryFrom returns the event to claim; ok is false outside a consumer.
func DeliveryFrom(ctx context.Context) (d Delivery, ok bool) {
	d, ok = ctx.Value(deliveryKey{}).(Delivery)
	return d, ok && d.Event != ""
}
