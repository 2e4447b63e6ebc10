package order

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// ProductOrderBy says how a list of products is sorted.
type ProductOrderBy string

// The orders of a list of products; ties are broken by id.
const (
	ProductsByCreatedDesc ProductOrderBy = "CREATED_AT_DESC"
	ProductsByCreatedAsc  ProductOrderBy = "CREATED_AT_ASC"
	ProductsByNameAsc     ProductOrderBy = "NAME_ASC"
	ProductsByNameDesc    ProductOrderBy = "NAME_DESC"
	ProductsByPriceAsc    ProductOrderBy = "PRICE_ASC" // by minor units: meaningful within one currency
	ProductsByPriceDesc   ProductOrderBy = "PRICE_DESC"
)

// ProductFilter says which products a list shows. Nil fields filter nothing.
type ProductFilter struct {
	Active   *bool
	SKUs     []string // any of these
	Currency *string
	LegacyID *string
}

// ProductStore persists products and their stocks.
//
// Methods that write return SKU_TAKEN or LEGACY_ID_TAKEN (Conflict) when a name
// is not free. Their transaction makes the claim cl. For a duplicate call they return
// the product of the first, as it is now, and call no function.
type ProductStore interface {
	// Create inserts the product with its stock and events.
	Create(ctx context.Context, cl claim.Claim, p *Product, s *Stock) (*Product, error)
	// Update loads the product under a lock, applies fn, and commits the result
	// with the events fn recorded, or nothing if fn fails or records none. fn may
	// run again after a conflict.
	Update(ctx context.Context, cl claim.Claim, id uid.Product, fn func(*Product) error) (*Product, error)
	// UpdateStock loads the product and, under a lock, its stock, applies fn, and
	// commits the stock with the events fn recorded. fn may run again.
	UpdateStock(ctx context.Context, cl claim.Claim, id uid.Product, fn func(*Product, *Stock) error) (*Product, error)
	// ByIDs returns the products that exist.
	ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*Product, error)
	// BySKU returns the product with the SKU, or ProductNotFound.
	BySKU(ctx context.Context, sku string) (*Product, error)
	// Stocks returns the stocks of the products that exist.
	Stocks(ctx context.Context, ids []uid.Product) (map[uid.Product]*Stock, error)
	// List returns a page of the products that match.
	List(ctx context.Context, f ProductFilter, by ProductOrderBy, args page.Args) (page.Page[*Product], error)
	// Count returns how many products match.
	Count(ctx context.Context, f ProductFilter) (int, error)
}

// ProductPeeker is a ProductStore that also holds products and stocks in the
// process.
type ProductPeeker interface {
	// Peek returns the product as ByIDs would, at once; ok is false if it is not held.
	Peek(id uid.Product) (p *Product, ok bool)
	// PeekStock returns the stock of the product as Stocks would, in the same way.
	PeekStock(id uid.Product) (s *Stock, ok bool)
}

// Catalog is what callers may do with products. All callers may see the active
// ones, STAFF and ADMIN see all and change them.
type Catalog struct {
	store ProductStore
	held  ProductPeeker // nil if the store holds nothing
	now   func() time.Time
}

// NewCatalog returns a Catalog on the store; now is its clock.
func NewCatalog(store ProductStore, now func() time.Time) *Catalog {
	held, _ := store.(ProductPeeker)
	return &Catalog{store, held, now}
}

// Create adds a product. STAFF and ADMIN only.
func (c *Catalog) Create(ctx context.Context, cl claim.Claim, in ProductInput) (*Product, error) {
	caller, err := auth.RequireStaff(ctx, auth.ProductsWrite)
	if err != nil {
		return nil, err
	}
	if err := caller.AllowLegacyID(in.LegacyID != nil); err != nil {
		return nil, err
	}
	p, s, err := NewProduct(in, c.now())
	if err != nil {
		return nil, err
	}
	return c.store.Create(ctx, cl, p, s)
}

// Update changes a product. STAFF and ADMIN only.
func (c *Catalog) Update(ctx context.Context, cl claim.Claim, id uid.Product, ifVersion *int, change ProductChange) (*Product, error) {
	caller, err := auth.RequireStaff(ctx, auth.ProductsWrite)
	if err != nil {
		return nil, err
	}
	if err := caller.AllowLegacyID(change.LegacyID.Set); err != nil {
		return nil, err
	}
	if !id.Valid() {
		return nil, ProductNotFound()
	}
	at := c.now()
	return c.store.Update(ctx, cl, id, func(p *Product) error {
		if err := validate.IfVersion(ctx, ifVersion, p.Version, p); err != nil {
			return err
		}
		return p.Apply(change, at)
	})
}

// AdjustStock adds units to a product's stock or takes them away. STAFF and
// ADMIN only.
func (c *Catalog) AdjustStock(ctx context.Context, cl claim.Claim, id uid.Product, by int) (*Product, error) {
	if _, err := auth.RequireStaff(ctx, auth.ProductsWrite); err != nil {
		return nil, err
	}
	if !id.Valid() {
		return nil, ProductNotFound().At("productId")
	}
	at := c.now()
	return c.store.UpdateStock(ctx, cl, id, func(p *Product, s *Stock) error { return p.Adjust(s, by, at) })
}

// ByIDs returns those of the products that exist and that the caller may see.
func (c *Catalog) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*Product, error) {
	ids = wellFormed(ids)
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := c.store.ByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	seen := make(map[uid.Product]*Product, len(found))
	for id, p := range found {
		if maySeeProduct(ctx, p) {
			seen[id] = p
		}
	}
	return seen, nil
}

// Peek answers for one product as ByIDs does, without I/O: nil if it is hidden
// from the caller. ok is false if that takes I/O.
func (c *Catalog) Peek(ctx context.Context, id uid.Product) (p *Product, ok bool) {
	switch {
	case !id.Valid():
		return nil, true
	case c.held == nil:
		return nil, false
	}
	if p, ok = c.held.Peek(id); ok && !maySeeProduct(ctx, p) {
		return nil, true
	}
	return p, ok
}

// BySKU returns the product with the SKU, or ProductNotFound if there is none or
// it is hidden from the caller.
func (c *Catalog) BySKU(ctx context.Context, sku string) (*Product, error) {
	if checkSKU(sku) != nil {
		return nil, ProductNotFound()
	}
	p, err := c.store.BySKU(ctx, sku)
	if err != nil {
		return nil, err
	}
	if !maySeeProduct(ctx, p) {
		return nil, ProductNotFound()
	}
	return p, nil
}

// Stocks returns the stocks of products that the caller has been shown.
func (c *Catalog) Stocks(ctx context.Context, ids []uid.Product) (map[uid.Product]*Stock, error) {
	return c.store.Stocks(ctx, ids)
}

// PeekStock answers for one product as Stocks does, without I/O; ok is false if
// that takes I/O.
func (c *Catalog) PeekStock(_ context.Context, id uid.Product) (s *Stock, ok bool) {
	if c.held == nil {
		return nil, false
	}
	return c.held.PeekStock(id)
}

// List returns a page of the products that the caller may see.
func (c *Catalog) List(ctx context.Context, f ProductFilter, by ProductOrderBy, args page.Args) (page.Page[*Product], error) {
	f, none := visibleProducts(ctx, f)
	if none {
		return page.Page[*Product]{}, nil
	}
	return c.store.List(ctx, f, by, args)
}

// Count returns how many products List would show on all its pages.
func (c *Catalog) Count(ctx context.Context, f ProductFilter) (int, error) {
	f, none := visibleProducts(ctx, f)
	if none {
		return 0, nil
	}
	return c.store.Count(ctx, f)
}

func maySeeProduct(ctx context.Context, p *Product) bool {
	return p.Active || auth.From(ctx).IsStaff()
}

// visibleProducts narrows a filter to what the caller may see; none says that
// this is nothing.
func visibleProducts(ctx context.Context, f ProductFilter) (_ ProductFilter, none bool) {
	if auth.From(ctx).IsStaff() {
		return f, false
	}
	active := true
	none = f.Active != nil && !*f.Active
	f.Active = &active
	return f, none
}
