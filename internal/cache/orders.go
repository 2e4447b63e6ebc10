package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Orders is an order.Store with the cache in front of it. Callers must not change the orders and lines
// that it returns.
type Orders struct {
	orderStore
	rows[uid.Order, *order.Order, order.Filter, order.OrderBy]

	items *table[uid.Order, []order.Item]
}

type orderStore struct{ order.Store }

var _ order.Store = (*Orders)(nil)

// Orders decorates a store of orders, once. If the cache is off, it returns the store itself.
func (c *Cache) Orders(s order.Store) order.Store {
	if c.isOff() {
		return s
	}
	return &Orders{orderStore{s}, newRows(c, orders, s), newTable(c, items, s.Items)}
}

// PeekItems is Peek for the order's lines.
func (s *Orders) PeekItems(id uid.Order) ([]order.Item, bool) { return s.items.peekLive(id) }

// Items implements order.Store.
func (s *Orders) Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]order.Item, error) {
	return s.items.readByIDs(ctx, ids)
}

// ListByUsers implements order.Store.
func (s *Orders) ListByUsers(ctx context.Context, users []uid.User, f order.Filter, by order.OrderBy, args page.Args,
) (map[uid.User]page.Page[*order.Order], error) {
	f.UserID = nil // it is not used
	return readPages(ctx, s.table, users, func(ctx context.Context, users []uid.User) (map[uid.User]page.Page[*order.Order], error) {
		return s.Store.ListByUsers(ctx, users, f, by, args)
	}, "user", f, by, args)
}

// Place implements order.Store.
func (s *Orders) Place(ctx context.Context, cl claim.Claim, customer uid.User, wants []order.Want,
	place func(map[string]order.Offer) (*order.Order, error),
) (*order.Order, error) {
	return s.table.runCreate(func() (*order.Order, error) { return s.Store.Place(ctx, cl, customer, wants, place) })
}
