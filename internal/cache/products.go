package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Products is an order.ProductStore with what it has read in front of it.
// Products and stocks that it returns are shared: they are not to be changed.
type Products struct {
	order.ProductStore

	table  *table[uid.Product, *order.Product]
	stocks *table[uid.Product, *order.Stock]
}

var _ order.ProductStore = (*Products)(nil)

// Products decorates a store of products, once; with a cache that is off it
// returns the store itself.
func (c *Cache) Products(s order.ProductStore) order.ProductStore {
	if c.isOff() {
		return s
	}
	return &Products{
		s,
		newTable(c, shape[uid.Product, *order.Product]{
			entity: entityProduct, share: 0.25, read: s.ByIDs,
			version: func(p *order.Product) int { return p.Version },
			size: func(p *order.Product) int {
				return 250 + len(p.SKU) + len(p.Name) + len(p.Description) + length(p.LegacyID)
			},
			decode: decodeJSON(productID),
		}),
		newTable(c, shape[uid.Product, *order.Stock]{
			entity: entityStock, share: 0.1, read: s.Stocks,
			version: func(s *order.Stock) int { return s.Version },
			size:    func(*order.Stock) int { return 80 },
			decode:  decodeJSON(func(s *order.Stock) uid.Product { return s.ProductID }),
		}),
	}
}

func productID(p *order.Product) uid.Product { return p.ID }

// Peek returns the product if process memory holds it and it may be shown. It
// does not wait.
func (s *Products) Peek(id uid.Product) (*order.Product, bool) { return s.table.livePeek(id) }

// PeekStock is Peek for the product's stock.
func (s *Products) PeekStock(id uid.Product) (*order.Stock, bool) { return s.stocks.livePeek(id) }

// ByIDs implements order.ProductStore.
func (s *Products) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Product, error) {
	return s.table.byIDs(ctx, ids)
}

// Stocks implements order.ProductStore.
func (s *Products) Stocks(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Stock, error) {
	return s.stocks.byIDs(ctx, ids)
}

// BySKU implements order.ProductStore. SKUs are not kept; what is read is.
func (s *Products) BySKU(ctx context.Context, sku string) (*order.Product, error) {
	return s.table.one(productID, func() (*order.Product, error) { return s.ProductStore.BySKU(ctx, sku) })
}

// List implements order.ProductStore.
func (s *Products) List(ctx context.Context, f order.ProductFilter, by order.ProductOrderBy, args page.Args) (page.Page[*order.Product], error) {
	query := func(ctx context.Context) (page.Page[*order.Product], error) {
		return s.ProductStore.List(ctx, f, by, args)
	}
	return pages(ctx, s.table, productID, query, f, by, args)
}

// Count implements order.ProductStore.
func (s *Products) Count(ctx context.Context, f order.ProductFilter) (int, error) {
	return s.table.c.counted(ctx, entityProduct, func(ctx context.Context) (int, error) { return s.ProductStore.Count(ctx, f) }, f)
}

// Create implements order.ProductStore.
func (s *Products) Create(ctx context.Context, p *order.Product, stock *order.Stock) (*order.Product, error) {
	return s.table.written(productID, nil, func() (*order.Product, error) { return s.ProductStore.Create(ctx, p, stock) })
}

// Update implements order.ProductStore.
func (s *Products) Update(ctx context.Context, id uid.Product, fn func(*order.Product) error) (*order.Product, error) {
	shown := 0
	return s.table.written(productID, map[uid.Product]*int{id: &shown}, func() (*order.Product, error) {
		return s.ProductStore.Update(ctx, id, func(p *order.Product) error {
			shown = p.Version
			return fn(p)
		})
	})
}

// UpdateStock implements order.ProductStore.
func (s *Products) UpdateStock(ctx context.Context, id uid.Product, fn func(*order.Product, *order.Stock) error) (*order.Product, error) {
	shown, stock := 0, 0
	p, err := s.table.written(productID, map[uid.Product]*int{id: &shown}, func() (*order.Product, error) {
		return s.ProductStore.UpdateStock(ctx, id, func(p *order.Product, st *order.Stock) error {
			shown, stock = p.Version, st.Version
			return fn(p, st)
		})
	})
	if stock > 0 {
		s.stocks.raise(string(id), stock)
	}
	return p, err
}
