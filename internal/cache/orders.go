package cache

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Orders is an order.Store with what it has read in front of it. Orders and lines
// that it returns are shared: they are not to be changed.
type Orders struct {
	order.Store

	table *table[uid.Order, *order.Order]
	items *table[uid.Order, []order.Item]
}

var _ order.Store = (*Orders)(nil)

// Orders decorates a store of orders, once; with a cache that is off it returns
// the store itself.
func (c *Cache) Orders(s order.Store) order.Store {
	if c.isOff() {
		return s
	}
	return &Orders{
		s,
		newTable(c, shape[uid.Order, *order.Order]{
			entity: entityOrder, share: 0.2, read: s.ByIDs,
			version: func(o *order.Order) int { return o.Version },
			size:    func(o *order.Order) int { return 350 + len(o.Note) + length(o.LegacyID) },
			decode: func(id uid.Order, data []byte) (*order.Order, error) {
				o, err := decodeJSON(orderID)(id, data)
				if err != nil {
					return nil, err
				}
				return o.Loaded(), nil
			},
		}),
		newTable(c, shape[uid.Order, []order.Item]{
			entity: entityItems, share: 0.1, read: s.Items,
			version: func([]order.Item) int { return 1 }, // they never change
			size: func(items []order.Item) (n int) {
				for _, it := range items {
					n += 200 + len(it.SKU) + len(it.Name)
				}
				return n
			},
			decode: decodeItems,
		}),
	}
}

func orderID(o *order.Order) uid.Order { return o.ID }

func decodeItems(id uid.Order, data []byte) (items []order.Item, err error) {
	if err := json.Unmarshal(data, &items); err != nil {
		return nil, err
	}
	if len(items) == 0 || slices.ContainsFunc(items, func(it order.Item) bool { return it.OrderID != id }) {
		return nil, errOther
	}
	return items, nil
}

// Peek returns the order if process memory holds it and it may be shown. It does
// not wait.
func (s *Orders) Peek(id uid.Order) (*order.Order, bool) { return s.table.livePeek(id) }

// PeekItems is Peek for the order's lines.
func (s *Orders) PeekItems(id uid.Order) ([]order.Item, bool) { return s.items.livePeek(id) }

// ByIDs implements order.Store.
func (s *Orders) ByIDs(ctx context.Context, ids []uid.Order) (map[uid.Order]*order.Order, error) {
	return s.table.byIDs(ctx, ids)
}

// Items implements order.Store.
func (s *Orders) Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]order.Item, error) {
	return s.items.byIDs(ctx, ids)
}

// List implements order.Store.
func (s *Orders) List(ctx context.Context, f order.Filter, by order.OrderBy, args page.Args) (page.Page[*order.Order], error) {
	query := func(ctx context.Context) (page.Page[*order.Order], error) { return s.Store.List(ctx, f, by, args) }
	return pages(ctx, s.table, orderID, query, f, by, args)
}

// ListByUsers implements order.Store. Which orders they are is not kept; what is
// read is.
func (s *Orders) ListByUsers(ctx context.Context, users []uid.User, f order.Filter, by order.OrderBy, args page.Args,
) (map[uid.User]page.Page[*order.Order], error) {
	taken := s.table.take()
	found, err := s.Store.ListByUsers(ctx, users, f, by, args)
	for _, p := range found {
		for _, o := range p.Items {
			s.table.offer(o.ID, o, taken)
		}
	}
	return found, err
}

// Count implements order.Store.
func (s *Orders) Count(ctx context.Context, f order.Filter) (int, error) {
	return s.table.c.counted(ctx, entityOrder, func(ctx context.Context) (int, error) { return s.Store.Count(ctx, f) }, f)
}

// Place implements order.Store.
func (s *Orders) Place(ctx context.Context, customer uid.User, wants []order.Want,
	place func(map[string]order.Offer) (*order.Order, error),
) (*order.Order, error) {
	return s.table.written(orderID, nil, func() (*order.Order, error) { return s.Store.Place(ctx, customer, wants, place) })
}

// Update implements order.Store.
func (s *Orders) Update(ctx context.Context, id uid.Order, fn func(*order.Order) error) (*order.Order, error) {
	shown := 0
	return s.table.written(orderID, map[uid.Order]*int{id: &shown}, func() (*order.Order, error) {
		return s.Store.Update(ctx, id, func(o *order.Order) error {
			shown = o.Version
			return fn(o)
		})
	})
}
