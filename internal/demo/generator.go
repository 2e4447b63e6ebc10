// Package demo makes a new server usable: it creates the first accounts and prints
// the greeting, fills an empty database with a small shop or with as much random
// data as a benchmark needs, and runs the demo services.
//
// Generated data goes through the rules of the domains and has its events, at
// times in the past, so it is data that users could have created. Equal seeds make
// equal databases, but for the passwords of the shop's users.
package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Store is the part of the database that seeding needs.
type Store interface {
	Empty(ctx context.Context) (bool, error)
	Bulk(ctx context.Context, b store.Batch) error
	Analyze(ctx context.Context) error
}

// ErrNotEmpty says that the database has users, products or orders.
var ErrNotEmpty = errors.New("the database has users, products or orders already: seed an empty one, set by BACKPLANE_DATABASE_URL")

// openedAt is when the shop opened: everything happens after it.
var openedAt = time.Date(2025, time.June, 1, 8, 0, 0, 0, time.UTC)

// generator generates the rows of one seed.
type generator struct {
	rnd       *rand.Rand
	staff     *user.User
	customers []*user.User
	offers    []order.Offer
	bySKU     map[string]order.Offer
	changed   map[uid.Product]*order.Stock // since the last batch
	batch     store.Batch
}

func newGenerator(seed uint64) *generator {
	return &generator{
		rnd:   rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // not secret: equal seeds are to make equal rows
		bySKU: map[string]order.Offer{}, changed: map[uid.Product]*order.Stock{}, batch: store.Batch{Credentials: map[*user.User]user.PasswordHash{}},
	}
}

// nextID derives the next id of a kind.
func (g *generator) nextID(kind uid.Kind, at time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], g.rnd.Uint64())
	binary.BigEndian.PutUint64(b[8:], g.rnd.Uint64())
	return uid.Derive(kind, at, b)
}

// recordEvents stores events of a subject under ids of the seed. fix replaces other
// random values in them.
func (g *generator) recordEvents(events []event.Event, subject string, fix func(*event.Event)) {
	for _, e := range events {
		e.ID, e.SubjectID = uid.Event(g.nextID(uid.KindEvent, e.OccurredAt)), subject
		fix(&e)
		g.batch.Events = append(g.batch.Events, e)
	}
}

func (g *generator) addUser(p user.Profile, at time.Time, c user.PasswordHash, roles ...auth.Role) (*user.User, error) {
	u, err := user.New(p, roles, nil, at)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", p.Username, err)
	}
	u.ID = uid.User(g.nextID(uid.KindUser, at))
	g.recordEvents(u.TakeEvents(), string(u.ID), func(*event.Event) {})
	g.batch.Users = append(g.batch.Users, u)
	if c != "" {
		g.batch.Credentials[u] = c
	}
	switch {
	case slices.Contains(roles, auth.Customer):
		g.customers = append(g.customers, u)
	case slices.Contains(roles, auth.Staff):
		g.staff = u
	}
	return u, nil
}

func (g *generator) addProduct(in order.ProductInput, at time.Time) error {
	p, s, err := order.NewProduct(in, at)
	if err != nil {
		return fmt.Errorf("product %s: %w", in.SKU, err)
	}
	p.ID = uid.Product(g.nextID(uid.KindProduct, at))
	s.ProductID = p.ID
	g.recordEvents(p.TakeEvents(), string(p.ID), func(e *event.Event) { e.Actor = g.staffID() })
	stored := *s // the units of orders are subtracted when the orders are stored
	g.batch.Products = append(g.batch.Products, order.Offer{Product: p, Stock: &stored})
	g.offers = append(g.offers, order.Offer{Product: p, Stock: s})
	g.bySKU[p.SKU] = g.offers[len(g.offers)-1]
	return nil
}

func (g *generator) staffID() string {
	if g.staff == nil {
		return ""
	}
	return string(g.staff.ID)
}

// addOrder places an order of some lines and moves it to a random state.
func (g *generator) addOrder(at time.Time, lines int) error {
	customer := g.customers[g.rnd.IntN(len(g.customers))]
	wants := g.pickWants(lines)
	if len(wants) == 0 {
		return nil
	}
	o, err := order.Place(order.Details{UserID: customer.ID}, wants, g.bySKU, at)
	if err != nil {
		return fmt.Errorf("order at %s: %w", at.Format(time.DateTime), err)
	}
	if err := g.moveToRandomState(o, at); err != nil {
		return fmt.Errorf("order at %s: %w", at.Format(time.DateTime), err)
	}
	g.recordStock(o, wants)
	g.replaceRandomIDs(o, customer)
	g.batch.Orders = append(g.batch.Orders, o)
	return nil
}

// pickWants picks different products that are for sale.
func (g *generator) pickWants(lines int) []order.Want {
	var wants []order.Want
	for range 20 * lines { // products may be sold out
		offer := g.offers[g.rnd.IntN(len(g.offers))]
		n := 1 + g.rnd.IntN(maxUnits)
		again := slices.ContainsFunc(wants, func(w order.Want) bool { return w.SKU == offer.Product.SKU })
		if again || !offer.Product.Active || offer.Stock.Quantity < n {
			continue
		}
		if wants = append(wants, order.Want{SKU: offer.Product.SKU, Quantity: n}); len(wants) == lines {
			break
		}
	}
	return wants
}

// maxUnits is the maximum quantity of a line.
const maxUnits = 4

// moveToRandomState moves a new order to a random state, through those before.
func (g *generator) moveToRandomState(o *order.Order, at time.Time) error {
	later := func() time.Time { at = at.Add(time.Duration(1+g.rnd.IntN(600)) * time.Minute); return at }
	pay := func() error { return o.Pay(later()) }
	ship := func() error { return o.Ship(later()) }
	deliver := func() error { return o.Deliver(later()) }
	cancel := func() error { return o.Cancel("Changed my mind", later()) }
	ask := func() error { return o.RequestRefund("It does not fit", later()) }
	refund := func() error { return o.Refund(later()) }
	lives := []struct {
		share int // of 100
		moves []func() error
	}{
		{14, nil},
		{20, []func() error{pay}},
		{15, []func() error{pay, ship}},
		{35, []func() error{pay, ship, deliver}},
		{8, []func() error{cancel}},
		{3, []func() error{pay, ask}},
		{3, []func() error{pay, ask, refund}},
		{2, []func() error{pay, ship, deliver, ask, refund}},
	}
	n := g.rnd.IntN(100)
	for _, life := range lives {
		if n -= life.share; n >= 0 {
			continue
		}
		for _, move := range life.moves {
			o.Loaded() // each move is a change of its own: a shipped order returns no stock
			if err := move(); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// recordStock records the stocks that an order has changed, and returns its units
// if it ended before it shipped.
func (g *generator) recordStock(o *order.Order, wants []order.Want) {
	for _, w := range wants {
		s := g.bySKU[w.SKU].Stock
		if o.ReturnsStock() {
			s.Quantity, s.Version, s.UpdatedAt = s.Quantity+w.Quantity, s.Version+1, o.UpdatedAt
		}
		g.changed[s.ProductID] = s
	}
}

// replaceRandomIDs replaces the random id and number of an order by those of the seed. Its
// event snapshots contain the number only, which equals no other text in them.
func (g *generator) replaceRandomIDs(o *order.Order, customer *user.User) {
	var b [10]byte
	binary.BigEndian.PutUint64(b[:8], g.rnd.Uint64())
	binary.BigEndian.PutUint16(b[8:], uint16(g.rnd.Uint32())) //nolint:gosec // any two bytes will do
	random, number := []byte(o.Number), order.NumberFrom(b)
	o.ID, o.Number = uid.Order(g.nextID(uid.KindOrder, o.PlacedAt)), number
	for i := range o.Items() {
		o.Items()[i].OrderID = o.ID
	}
	g.recordEvents(o.TakeEvents(), string(o.ID), func(e *event.Event) {
		e.Data = bytes.ReplaceAll(e.Data, random, []byte(number))
		e.Actor = map[event.Type]string{
			order.EventOrderPlaced: string(customer.ID), order.EventOrderCancelled: string(customer.ID), order.EventPaymentRefundRequested: string(customer.ID),
			order.EventOrderShipped: g.staffID(), order.EventOrderDelivered: g.staffID(),
		}[e.Type] // no actor for events of the payment domain
	})
}

// storeBatch stores what was generated since the last call, with the events in order of
// time.
func (g *generator) storeBatch(ctx context.Context, db Store) error {
	b := g.batch
	for _, s := range g.changed {
		b.Stocks = append(b.Stocks, s)
	}
	slices.SortFunc(b.Stocks, func(a, b *order.Stock) int { return bytes.Compare([]byte(a.ProductID), []byte(b.ProductID)) })
	slices.SortStableFunc(b.Events, func(a, b event.Event) int { return a.OccurredAt.Compare(b.OccurredAt) })
	g.batch = store.Batch{Credentials: map[*user.User]user.PasswordHash{}}
	clear(g.changed)
	return db.Bulk(ctx, b)
}

func requireEmpty(ctx context.Context, db Store) error {
	empty, err := db.Empty(ctx)
	if err == nil && !empty {
		err = ErrNotEmpty
	}
	return err
}
