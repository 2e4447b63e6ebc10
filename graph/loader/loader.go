// Package loader owns how the edges of the graph are read: in batches, one set
// of loaders for each response.
//
// Every edge and every look-up by id is one field of Loaders, declared once with
// the bulk read behind it. Whether the caller may see an object is decided by
// that read: hidden and absent objects are both nil.
package loader

import (
	"context"
	"time"

	"github.com/graph-gophers/dataloader/v7"

	"backplane/internal/auth"
	"backplane/internal/event"
	"backplane/internal/fault"
	"backplane/internal/order"
	"backplane/internal/page"
	"backplane/internal/session"
	"backplane/internal/uid"
	"backplane/internal/user"
)

const (
	wait     = 500 * time.Microsecond // for siblings to join a batch; their goroutines start together
	maxBatch = 500                    // keys; one statement each
)

// Loaders answers look-ups of one response.
type Loaders struct {
	Users      *Loader[uid.User, *user.User]
	Products   *Loader[uid.Product, *order.Product]
	Stocks     *Loader[uid.Product, *order.Stock]
	Orders     *Loader[uid.Order, *order.Order]
	OrderItems *Loader[uid.Order, []order.Item]
	UserOrders *Loader[UserOrders, page.Page[*order.Order]]
	Sessions   *Loader[uid.Session, *session.Session]
	APIKeys    *Loader[uid.APIKey, *session.APIKey]

	Events      *Loader[uid.Event, *event.Event]
	OrderEvents *Loader[OrderEvents, page.Page[*event.Event]]
}

// Reads are the bulk reads behind the loaders: domain services, which know what
// the caller may see.
type Reads struct {
	Users    *user.Service
	Products *order.Catalog
	Orders   *order.Service
	Sessions *session.Service
	Log      *event.Log
}

// New returns loaders that know nothing yet.
func New(r Reads) *Loaders {
	return &Loaders{
		Users:      newLoader(r.Users.ByIDs),
		Products:   newLoader(r.Products.ByIDs),
		Stocks:     newLoader(r.Products.Stocks),
		Orders:     newLoader(r.Orders.ByIDs),
		OrderItems: newLoader(r.Orders.Items),
		UserOrders: newLoader(userOrders(r.Orders)),
		Sessions:   newLoader(r.Sessions.SessionsByIDs),
		APIKeys:    newLoader(r.Sessions.APIKeysByIDs),

		Events:      newLoader(r.Log.ByIDs),
		OrderEvents: newLoader(orderEvents(r.Log)),
	}
}

// User returns a user that something shown to the caller names. It is never
// absent, so a caller who may not read it is told so.
func (l *Loaders) User(ctx context.Context, id uid.User) (*user.User, error) {
	u, err := l.Users.Load(ctx, id)
	if err == nil && u == nil {
		err = fault.New(fault.Forbidden, fault.AccessDenied, "Reading users needs the scope %s.", auth.UsersRead)
	}
	return u, err
}

// Loader batches look-ups by key.
type Loader[K comparable, V any] struct{ inner *dataloader.Loader[K, V] }

// Load returns the value of the key, zero if it has none. Calls that are made at
// the same time share one read.
func (l *Loader[K, V]) Load(ctx context.Context, key K) (V, error) {
	v, err := l.inner.Load(ctx, key)()
	if err != nil {
		l.inner.Clear(ctx, key) // an error is no answer to keep
	}
	return v, err
}

// LoadAll is Load for several keys. The first error counts for all.
func (l *Loader[K, V]) LoadAll(ctx context.Context, keys []K) ([]V, error) {
	values, errs := l.inner.LoadMany(ctx, keys)()
	for i, err := range errs {
		if err != nil {
			l.inner.Clear(ctx, keys[i])
			return nil, err
		}
	}
	return values, nil
}

func newLoader[K comparable, V any](read func(context.Context, []K) (map[K]V, error)) *Loader[K, V] {
	batch := func(ctx context.Context, keys []K) []*dataloader.Result[V] {
		ctx, cancel := detached(ctx)
		defer cancel()
		found, err := read(ctx, keys)
		results := make([]*dataloader.Result[V], len(keys))
		for i, k := range keys {
			results[i] = &dataloader.Result[V]{Data: found[k], Error: err}
		}
		return results
	}
	return &Loader[K, V]{dataloader.NewBatchedLoader(batch, dataloader.WithWait[K, V](wait), dataloader.WithBatchCapacity[K, V](maxBatch))}
}

// detached frees a batch from the cancellation of the one field that happened to
// start it, but not from the time limit that all fields of a response share.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return context.WithCancel(free)
}

type key struct{}

// With returns a context that carries the loaders of a response.
func With(ctx context.Context, l *Loaders) context.Context { return context.WithValue(ctx, key{}, l) }

// From returns the loaders of the response. It panics if there are none: then
// the schema is executed without the middleware of package graph.
func From(ctx context.Context) *Loaders { return ctx.Value(key{}).(*Loaders) }
