package order

import (
	"errors"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Limits of products.
const (
	maxSKU         = 64            // characters
	maxName        = 200           // characters
	maxDescription = 5000          // characters
	maxStock       = 1_000_000_000 // units; fits GraphQL's Int
)

// Product is something that can be ordered. How much of it there is, is a Stock
// of its own: selling does not change the product.
type Product struct {
	ID          uid.Product
	SKU         string // stock keeping unit: the name that orders use; unique, case counts
	Name        string
	Description string
	Price       money.Money
	Active      bool    // may be ordered, and is shown to all callers
	LegacyID    *string // its id in the former system
	Version     int     // raised by each change
	CreatedAt   time.Time
	UpdatedAt   time.Time
	events      event.Recorder
}

// Stock is how much of a product can still be ordered.
type Stock struct {
	ProductID uid.Product
	Quantity  int // units; never negative
	Version   int // raised by each change, sales included
	UpdatedAt time.Time
}

// ProductInput describes a new product.
type ProductInput struct {
	SKU         string
	Name        string
	Description string
	Price       money.Money
	Stock       int
	Active      bool
	LegacyID    *string
	Invalid     error // mistakes that reading the input has found; reported with those of the rules
}

// NewProduct returns a new product with its stock and records product.created.
func NewProduct(in ProductInput, at time.Time) (*Product, *Stock, error) {
	p := &Product{ID: uid.NewProduct(at), Version: 1, CreatedAt: at, UpdatedAt: at}
	if in.Stock < 0 || in.Stock > maxStock {
		in.Invalid = errors.Join(in.Invalid, errStock().At("stock"))
	}
	if err := p.applyInput(in); err != nil {
		return nil, nil, err
	}
	p.recordEvent(EventProductCreated, at)
	return p, &Stock{ProductID: p.ID, Quantity: in.Stock, Version: 1, UpdatedAt: at}, nil
}

// ProductChange is an update of a product. Fields that are not set stay.
type ProductChange struct {
	SKU         validate.Field[string]
	Name        validate.Field[string]
	Description validate.Field[string]
	Price       validate.Field[money.Money]
	Active      validate.Field[bool]
	LegacyID    validate.Field[*string]
	Invalid     error // as that of ProductInput
}

// Apply applies the change and records product.updated, or does nothing if
// nothing would change. Orders already placed keep their prices.
func (p *Product) Apply(c ProductChange, at time.Time) error {
	in := p.currentInput()
	c.SKU.ApplyTo(&in.SKU)
	c.Name.ApplyTo(&in.Name)
	c.Description.ApplyTo(&in.Description)
	c.Price.ApplyTo(&in.Price)
	c.Active.ApplyTo(&in.Active)
	c.LegacyID.ApplyTo(&in.LegacyID)
	in.Invalid = c.Invalid
	before := p.takeSnapshot()
	if err := p.applyInput(in); err != nil {
		return err
	}
	if p.takeSnapshot() == before {
		return nil
	}
	p.Version, p.UpdatedAt = p.Version+1, at
	p.recordEvent(EventProductUpdated, at)
	return nil
}

// Adjust adds by units to the stock, or takes them away, and records
// product.stock_changed. Stock never goes below zero: STOCK_INSUFFICIENT.
func (p *Product) Adjust(s *Stock, by int, at time.Time) error {
	switch {
	case by == 0 || by > maxStock || by < -maxStock:
		return fault.New(CodeStockInvalid, "Adjust the stock by at least one unit, and by at most %d.", maxStock).At("by")
	case s.Quantity+by < 0:
		return fault.New(CodeStockInsufficient, "There are only %d units of %s.", s.Quantity, p.SKU).At("by")
	case s.Quantity+by > maxStock:
		return errStock().At("by")
	}
	s.Quantity, s.Version, s.UpdatedAt = s.Quantity+by, s.Version+1, at
	p.events.Record(EventProductStockChanged, string(p.ID), p.Version, stockSnapshot{p.SKU, s.Quantity, by, p.Active}, at)
	return nil
}

// TakeEvents returns the events recorded since the last call.
func (p *Product) TakeEvents() []event.Event { return p.events.Take() }

// ProductNotFound is the error for a product that is absent or hidden.
func ProductNotFound() *fault.Error {
	return fault.New(CodeProductNotFound, "There is no such product.").At("id")
}

func (p *Product) currentInput() ProductInput {
	return ProductInput{SKU: p.SKU, Name: p.Name, Description: p.Description, Price: p.Price, Active: p.Active, LegacyID: p.LegacyID}
}

// applyInput checks the input, all of it but the stock, and takes it over. Its error joins all
// mistakes.
func (p *Product) applyInput(in ProductInput) error {
	name, errName := validate.Line("name", in.Name, maxName)
	description, errDescription := validate.Text("description", in.Description, maxDescription)
	if err := errors.Join(checkSKU(in.SKU), errName, errDescription, in.Invalid, validate.OptionalLegacyID(in.LegacyID)); err != nil {
		return err
	}
	p.SKU, p.Name, p.Description, p.Price, p.Active, p.LegacyID = in.SKU, name, description, in.Price, in.Active, in.LegacyID
	return nil
}

func checkSKU(s string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if s == "" || len(s) > maxSKU || strings.ContainsFunc(s, odd) {
		return fault.New(CodeSKUInvalid, "A SKU is 1 to %d printable ASCII characters without spaces.", maxSKU).At("sku")
	}
	return nil
}

func errStock() *fault.Error {
	return fault.New(CodeStockInvalid, "A stock is from 0 to %d units.", maxStock)
}

// productSnapshot is the product as its events show it. It is comparable: two
// equal snapshots show the same product.
type productSnapshot struct {
	SKU         string `json:"sku"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Price       string `json:"price"`
	Currency    string `json:"currency"`
	Active      bool   `json:"active"`
	LegacyID    string `json:"legacyId,omitempty"`
}

func (p *Product) takeSnapshot() productSnapshot {
	s := productSnapshot{p.SKU, p.Name, p.Description, p.Price.Amount(), p.Price.Currency, p.Active, ""}
	if p.LegacyID != nil {
		s.LegacyID = *p.LegacyID
	}
	return s
}

// stockSnapshot leaves out the version of the stock: it counts the orders of all users.
type stockSnapshot struct {
	SKU    string `json:"sku"`
	Stock  int    `doc:"after the change"       json:"stock"`
	By     int    `doc:"by how much it changed" json:"by"`
	Active bool   `json:"active"`
}

func (p *Product) recordEvent(t event.Type, at time.Time) {
	p.events.Record(t, string(p.ID), p.Version, p.takeSnapshot(), at)
}
