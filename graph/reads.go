package graph

import (
	"context"

	"golang.org/x/sync/errgroup"

	"backplane/graph/loader"
	"backplane/graph/model"
	"backplane/internal/auth"
	"backplane/internal/event"
	"backplane/internal/fault"
	"backplane/internal/order"
	"backplane/internal/page"
	"backplane/internal/uid"
	"backplane/internal/user"
)

// maxNodes bounds the ids of Query.nodes.
const maxNodes = page.MaxSize

// orNull reads what is absent or hidden as null.
func orNull[T any](v *T, err error) (*T, error) {
	if err != nil && fault.From(err).Kind == fault.NotFound {
		return nil, nil
	}
	return v, err
}

// node returns the object with the id, of whatever kind, or nil.
func (r *Resolver) node(ctx context.Context, id string) (model.Node, error) {
	kind, ok := uid.KindOf(id)
	if !ok {
		return nil, nil
	}
	l := loader.From(ctx)
	switch kind {
	case uid.KindUser:
		return loadNode(ctx, l.Users, uid.User(id))
	case uid.KindProduct:
		return loadNode(ctx, l.Products, uid.Product(id))
	case uid.KindOrder:
		return loadNode(ctx, l.Orders, uid.Order(id))
	case uid.KindSession:
		return loadNode(ctx, l.Sessions, uid.Session(id))
	case uid.KindAPIKey:
		return loadNode(ctx, l.APIKeys, uid.APIKey(id))
	case uid.KindEvent:
		return loadNode(ctx, l.Events, uid.Event(id))
	}
	return nil, nil
}

// loadNode keeps a nil pointer from becoming a Node that is not nil.
func loadNode[K comparable, T any](ctx context.Context, l *loader.Loader[K, *T], id K) (model.Node, error) {
	v, err := l.Load(ctx, id)
	if v == nil || err != nil {
		return nil, err
	}
	return v, nil
}

// nodes returns the objects with the ids, in their order, each kind in one batch.
func (r *Resolver) nodes(ctx context.Context, ids []string) ([]model.Node, error) {
	if len(ids) > maxNodes {
		return nil, fault.New(fault.Invalid, fault.PageSizeInvalid, "Ask for at most %d nodes at a time.", maxNodes).At("ids")
	}
	found := make([]model.Node, len(ids))
	var g errgroup.Group
	for i, id := range ids {
		g.Go(func() (err error) {
			found[i], err = r.node(ctx, id)
			return err
		})
	}
	return found, g.Wait()
}

// viewer returns who is calling, nil for a stranger.
func viewer(ctx context.Context) *model.Viewer {
	p := auth.From(ctx)
	if p == nil || p.UserID == "" {
		return nil
	}
	return &model.Viewer{UserID: p.UserID}
}

// self returns the account of the caller.
func (r *Resolver) self(ctx context.Context) (*user.User, error) {
	return r.users.Self(ctx, auth.From(ctx).UserID)
}

// ordersOf returns a page of a user's orders, batched with those of its siblings.
func (r *Resolver) ordersOf(ctx context.Context, id uid.User, f order.Filter, by order.By, args page.Args) (*model.OrderConnection, error) {
	p, err := loader.From(ctx).UserOrders.Load(ctx, loader.OrdersOf(id, f, by, args))
	f.UserID = &id
	return connect(p, err, func(ctx context.Context) (int, error) { return r.orders.Count(ctx, f) })
}

// events returns a page of the log, from the place behind the cursor on.
func (r *Resolver) events(ctx context.Context, f event.Filter, after *event.Cursor, first *int) (*model.EventConnection, error) {
	p, err := r.log.List(ctx, f, after, first)
	return connect(p, err, func(ctx context.Context) (int, error) { return r.log.Count(ctx, f) })
}

// historyOf returns a page of an order's events, batched with those of its siblings.
func (r *Resolver) historyOf(ctx context.Context, id uid.Order, args page.Args) (*model.EventConnection, error) {
	p, err := loader.From(ctx).OrderEvents.Load(ctx, loader.EventsOf(id, args))
	return connect(p, err, func(ctx context.Context) (int, error) { return r.log.Count(ctx, event.Filter{OrderID: id}) })
}

// hasher makes the credential of a password when it is needed; without a
// password there is none.
func (r *Resolver) hasher(password *string) user.Hasher {
	if password == nil {
		return nil
	}
	return func(ctx context.Context) (user.Credential, error) {
		hash, err := r.sessions.HashPassword(ctx, *password)
		return user.Credential(hash), err
	}
}
