package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/page"
)

// rowStore is what the stores of the domains have in common: F is a filter of lists, O their order.
type rowStore[K ~string, V, F, O any] interface {
	ByIDs(ctx context.Context, ids []K) (map[K]V, error)
	List(ctx context.Context, f F, by O, args page.Args) (page.Page[V], error)
	Count(ctx context.Context, f F) (int, error)
	Update(ctx context.Context, cl claim.Claim, id K, fn func(V) error) (V, error)
}

// rows is the cached part of a store: one entity, by id and in lists. A decorator embeds it above the
// store, so that its methods hide the store's and what it lacks passes through. The values that it
// returns are shared: callers must not change them.
type rows[K ~string, V, F, O any] struct {
	source rowStore[K, V, F, O]
	table  *table[K, V]
}

func newRows[K ~string, V, F, O any](c *Cache, e entity[K, V], source rowStore[K, V, F, O]) rows[K, V, F, O] {
	c.lists.registerEntity(e.name)
	return rows[K, V, F, O]{source, newTable(c, e, source.ByIDs)}
}

// Peek returns the row if process memory holds it and it is valid. It does not block.
func (r rows[K, V, F, O]) Peek(id K) (V, bool) { return r.table.peekLive(id) }

// ByIDs returns the rows that exist.
func (r rows[K, V, F, O]) ByIDs(ctx context.Context, ids []K) (map[K]V, error) {
	return r.table.readByIDs(ctx, ids)
}

// List returns a page of rows.
func (r rows[K, V, F, O]) List(ctx context.Context, f F, by O, args page.Args) (page.Page[V], error) {
	query := func(ctx context.Context) (page.Page[V], error) { return r.source.List(ctx, f, by, args) }
	return r.table.readPage(ctx, query, f, by, args)
}

// Count returns the number of rows.
func (r rows[K, V, F, O]) Count(ctx context.Context, f F) (int, error) {
	return r.table.readCount(ctx, func(ctx context.Context) (int, error) { return r.source.Count(ctx, f) }, f)
}

// Update changes a row; it implements the Update of the store.
func (r rows[K, V, F, O]) Update(ctx context.Context, cl claim.Claim, id K, fn func(V) error) (V, error) {
	return r.table.runUpdate(id, func(observe func(V)) (V, error) {
		return r.source.Update(ctx, cl, id, func(v V) error {
			observe(v)
			return fn(v)
		})
	})
}
