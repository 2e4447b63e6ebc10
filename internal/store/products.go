package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/backplane-dev/backplane/ent"
	entproduct "github.com/backplane-dev/backplane/ent/product"
	entstock "github.com/backplane-dev/backplane/ent/stock"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Products implements order.ProductStore.
type Products struct{ db *DB }

var _ order.ProductStore = Products{}

// Create implements order.ProductStore.
func (s Products) Create(ctx context.Context, cl claim.Claim, p *order.Product, stock *order.Stock) (*order.Product, error) {
	recorded := p.TakeEvents()
	out, err := changeInTx(ctx, s.db, cl, s.readProduct, func(t *tx) (*order.Product, error) {
		v, events := *p, slices.Clone(recorded)
		if err := t.assignLegacyID(ctx, entproduct.Table, &v.LegacyID, events); err != nil {
			return nil, err
		}
		v.CreatedAt, v.UpdatedAt = toMicros(v.CreatedAt), toMicros(v.UpdatedAt)
		own := *stock
		own.ProductID = v.ID
		if err := t.insertProducts(ctx, []order.Offer{{Product: &v, Stock: &own}}); err != nil {
			return nil, err
		}
		t.touchRow("stock", string(v.ID), stock.Version)
		t.recordProductChange(&v, events)
		return &v, nil
	})
	if err != nil {
		return nil, fmt.Errorf("create product: %w", err)
	}
	return out, nil
}

// Update implements order.ProductStore. The row stays locked until the commit.
func (s Products) Update(ctx context.Context, cl claim.Claim, id uid.Product, fn func(*order.Product) error) (*order.Product, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readProduct, func(t *tx) (*order.Product, error) {
		row, err := t.lockProduct(ctx, id)
		if err != nil {
			return nil, err
		}
		p := toProduct(row)
		if err := fn(p); err != nil {
			return nil, err
		}
		events := p.TakeEvents()
		if len(events) == 0 {
			return toProduct(row), nil
		}
		p.UpdatedAt = toMicros(p.UpdatedAt)
		if err := saveProduct(t.ent, p).Exec(ctx); err != nil {
			return nil, err
		}
		t.recordProductChange(p, events)
		return p, nil
	})
	if err != nil {
		return nil, fmt.Errorf("update product %s: %w", id, err)
	}
	return out, nil
}

// UpdateStock implements order.ProductStore. The product is locked too, so that
// its events keep their order.
func (s Products) UpdateStock(ctx context.Context, cl claim.Claim, id uid.Product, fn func(*order.Product, *order.Stock) error) (*order.Product, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readProduct, func(t *tx) (*order.Product, error) {
		row, err := t.lockProduct(ctx, id)
		if err != nil {
			return nil, err
		}
		stored, err := t.ent.Stock.Query().Where(entstock.ID(id), t.forUpdate).Only(ctx)
		if err != nil {
			return nil, err
		}
		p, stock := toProduct(row), toStock(stored)
		if err := fn(p, stock); err != nil {
			return nil, err
		}
		events := p.TakeEvents()
		if len(events) == 0 {
			return p, nil
		}
		err = t.ent.Stock.Update().Where(entstock.ID(id)).SetQuantity(stock.Quantity).AddReceived(stock.Quantity - stored.Quantity).
			SetVersion(stock.Version).SetUpdatedAt(toMicros(stock.UpdatedAt)).Exec(ctx)
		if err != nil {
			return nil, err
		}
		t.touchRow("stock", string(id), stock.Version)
		t.recordEvents(events)
		return p, nil
	})
	if err != nil {
		return nil, fmt.Errorf("update stock of product %s: %w", id, err)
	}
	return out, nil
}

func (t *tx) lockProduct(ctx context.Context, id uid.Product) (*ent.Product, error) {
	row, err := t.ent.Product.Query().Where(entproduct.ID(id), t.forChange).Only(ctx)
	if err != nil {
		return nil, orMissing(err, order.ProductNotFound())
	}
	t.setResultObject(string(id), row.Version)
	return row, nil
}

func (t *tx) recordProductChange(p *order.Product, events []event.Event) {
	t.setResultObject(string(p.ID), p.Version)
	t.touchRow(order.ProductEntity.Name, string(p.ID), p.Version)
	t.recordEvents(events)
}

// ByIDs implements order.ProductStore.
func (s Products) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Product, error) {
	found := make(map[uid.Product]*order.Product, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.Product.Query().Where(oneOfValues(entproduct.FieldID, some)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read products: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toProduct(row)
		}
	}
	return found, nil
}

func (s Products) readProduct(ctx context.Context, id uid.Product) (*order.Product, error) {
	found, err := s.ByIDs(ctx, []uid.Product{id})
	if err == nil && found[id] == nil {
		err = order.ProductNotFound()
	}
	return found[id], err
}

// BySKU implements order.ProductStore.
func (s Products) BySKU(ctx context.Context, sku string) (*order.Product, error) {
	row, err := s.db.client.Product.Query().Where(equalsText(entproduct.FieldSku, sku)).Only(ctx)
	if err != nil {
		return nil, fmt.Errorf("read product by SKU: %w", s.db.translateError(ctx, orMissing(err, order.ProductNotFound())))
	}
	return toProduct(row), nil
}

// Stocks implements order.ProductStore.
func (s Products) Stocks(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Stock, error) {
	found := make(map[uid.Product]*order.Stock, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.Stock.Query().Where(oneOfValues(entstock.FieldID, some)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read stocks: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toStock(row)
		}
	}
	return found, nil
}

var productOrders = map[order.ProductOrderBy]keyset[*order.Product]{
	order.ProductsByCreatedDesc: productsByCreated(order.ProductsByCreatedDesc, true),
	order.ProductsByCreatedAsc:  productsByCreated(order.ProductsByCreatedAsc, false),
	order.ProductsByNameDesc:    productsByName(order.ProductsByNameDesc, true),
	order.ProductsByNameAsc:     productsByName(order.ProductsByNameAsc, false),
	order.ProductsByPriceDesc:   productsByPrice(order.ProductsByPriceDesc, true),
	order.ProductsByPriceAsc:    productsByPrice(order.ProductsByPriceAsc, false),
}

func productsByCreated(name order.ProductOrderBy, desc bool) keyset[*order.Product] {
	key := func(p *order.Product) string { return timeKey(p.CreatedAt) }
	return keyset[*order.Product]{string(name), entproduct.FieldCreatedAt, desc, key, productID, parseTime}
}

func productsByName(name order.ProductOrderBy, desc bool) keyset[*order.Product] {
	key := func(p *order.Product) string { return validate.SortKey(p.Name) }
	return keyset[*order.Product]{string(name), entproduct.FieldNameKey, desc, key, productID, parseText}
}

func productsByPrice(name order.ProductOrderBy, desc bool) keyset[*order.Product] {
	key := func(p *order.Product) string { return intKey(p.Price.Minor) }
	return keyset[*order.Product]{string(name), entproduct.FieldPriceMinor, desc, key, productID, parseInt}
}

func productID(p *order.Product) string { return string(p.ID) }

// List implements order.ProductStore.
func (s Products) List(ctx context.Context, f order.ProductFilter, by order.ProductOrderBy, args page.Args) (page.Page[*order.Product], error) {
	return listPage(ctx, s.db, s.queryMatching, f, productOrders[by], args, toProduct)
}

// Count implements order.ProductStore.
func (s Products) Count(ctx context.Context, f order.ProductFilter) (int, error) {
	return countRows(ctx, s.db, s.queryMatching, f)
}

func (s Products) queryMatching(f order.ProductFilter) (*ent.ProductQuery, error) {
	q := s.db.lists.Product.Query()
	if f.Active != nil {
		q.Where(entproduct.Active(*f.Active))
	}
	if f.SKUs != nil {
		q.Where(entproduct.SkuIn(slices.DeleteFunc(slices.Clone(f.SKUs), func(s string) bool { return !isStorable(s) })...))
	}
	if f.Currency != nil {
		q.Where(equalsText(entproduct.FieldCurrency, *f.Currency))
	}
	if f.LegacyID != nil {
		q.Where(equalsText(entproduct.FieldLegacyID, *f.LegacyID))
	}
	return q, checkList("skus", len(f.SKUs))
}

func saveProduct(c *ent.Client, p *order.Product) *ent.ProductUpdate {
	q := c.Product.Update().Where(entproduct.ID(p.ID)).
		SetSku(p.SKU).SetName(p.Name).SetNameKey(validate.SortKey(p.Name)).SetDescription(p.Description).
		SetPriceMinor(p.Price.Minor).SetCurrency(p.Price.Currency).SetActive(p.Active).
		SetVersion(p.Version).SetUpdatedAt(p.UpdatedAt)
	if p.LegacyID == nil {
		return q.ClearLegacyID()
	}
	return q.SetLegacyID(*p.LegacyID)
}

func toProduct(r *ent.Product) *order.Product {
	return &order.Product{
		ID: r.ID, SKU: r.Sku, Name: r.Name, Description: r.Description, Price: money.Money{Minor: r.PriceMinor, Currency: r.Currency},
		Active: r.Active, LegacyID: r.LegacyID, Version: r.Version, CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt),
	}
}

func toStock(r *ent.Stock) *order.Stock {
	return &order.Stock{ProductID: r.ID, Quantity: r.Quantity, Version: r.Version, UpdatedAt: toMicros(r.UpdatedAt)}
}
