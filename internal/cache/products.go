package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Products is an order.ProductStore with the cache in front of it. Callers must not change the products
// and stocks that it returns.
type Products struct {
	productStore
	rows[uid.Product, *order.Product, order.ProductFilter, order.ProductOrderBy]

	stocks *table[uid.Product, *order.Stock]
}

type productStore struct{ order.ProductStore }

var _ order.ProductStore = (*Products)(nil)

// Products decorates a store of products, once. If the cache is off, it returns the store itself.
func (c *Cache) Products(s order.ProductStore) order.ProductStore {
	if c.isOff() {
		return s
	}
	return &Products{productStore{s}, newRows(c, products, s), newTable(c, stocks, s.Stocks)}
}

// PeekStock is Peek for the product's stock.
func (s *Products) PeekStock(id uid.Product) (*order.Stock, bool) { return s.stocks.peekLive(id) }

// Stocks implements order.ProductStore.
func (s *Products) Stocks(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Stock, error) {
	return s.stocks.readByIDs(ctx, ids)
}

// BySKU implements order.ProductStore. The cache does not find products by SKU; it keeps what is read.
func (s *Products) BySKU(ctx context.Context, sku string) (*order.Product, error) {
	return s.table.readOne(func() (*order.Product, error) { return s.ProductStore.BySKU(ctx, sku) })
}

// Create implements order.ProductStore.
func (s *Products) Create(ctx context.Context, cl claim.Claim, p *order.Product, stock *order.Stock) (*order.Product, error) {
	return s.table.runCreate(func() (*order.Product, error) { return s.ProductStore.Create(ctx, cl, p, stock) })
}

// UpdateStock implements order.ProductStore.
func (s *Products) UpdateStock(ctx context.Context, cl claim.Claim, id uid.Product, fn func(*order.Product, *order.Stock) error) (*order.Product, error) {
	stockSeen := 0
	p, err := s.table.runUpdate(id, func(observe func(*order.Product)) (*order.Product, error) {
		return s.ProductStore.UpdateStock(ctx, cl, id, func(p *order.Product, stock *order.Stock) error {
			observe(p)
			stockSeen = stock.Version
			return fn(p, stock)
		})
	})
	if stockSeen > 0 {
		s.stocks.raiseVersion(string(id), stockSeen)
	}
	return p, err
}
