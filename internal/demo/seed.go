// Package demo fills an empty database: with a shop to look around in, or with
// as many users and orders as a benchmark wants.
//
// What it makes went through the rules of the domains and has its events, at
// times in the past, so it is what users could have made. Equal seeds make
// equal databases, but for the passwords of the demo.
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

// Store is what seeding needs of the database.
type Store interface {
	Empty(ctx context.Context) (bool, error)
	Bulk(ctx context.Context, b store.Batch) error
	Analyze(ctx context.Context) error
}

// ErrNotEmpty says that there is something in the database already.
var ErrNotEmpty = errors.New("the database holds users, products or orders already; seeding needs an empty one")

// opened is when the shop opened: everything happens after it.
var opened = time.Date(2025, time.June, 1, 8, 0, 0, 0, time.UTC)

// generator makes the rows of one seed.
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
		bySKU: map[string]order.Offer{}, changed: map[uid.Product]*order.Stock{}, batch: store.Batch{Credentials: map[*user.User]user.Credential{}},
	}
}

// id derives the next id of a kind.
func (g *generator) id(kind uid.Kind, at time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], g.rnd.Uint64())
	binary.BigEndian.PutUint64(b[8:], g.rnd.Uint64())
	return uid.Derive(kind, at, b)
}

// log notes events that were recorded about a subject under a random id. fix
// changes what else is random in them.
func (g *generator) log(events []event.Event, subject string, fix func(*event.Event)) {
	for _, e := range events {
		e.ID, e.SubjectID = uid.Event(g.id(uid.KindEvent, e.OccurredAt)), subject
		fix(&e)
		g.batch.Events = append(g.batch.Events, e)
	}
}

func (g *generator) addUser(p user.Profile, at time.Time, c user.Credential, roles ...auth.Role) (*user.User, error) {
	u, err := user.New(p, roles, nil, at)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", p.Username, err)
	}
	u.ID = uid.User(g.id(uid.KindUser, at))
	g.log(u.TakeEvents(), string(u.ID), func(*event.Event) {})
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
	p.ID = uid.Product(g.id(uid.KindProduct, at))
	s.ProductID = p.ID
	g.log(p.TakeEvents(), string(p.ID), func(e *event.Event) { e.Actor = g.staffID() })
	stored := *s // what orders take is written when they are stored
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

// addOrder places an order of some lines and lets it go on to some state.
func (g *generator) addOrder(at time.Time, lines int) error {
	who := g.customers[g.rnd.IntN(len(g.customers))]
	wants := g.wants(lines)
	if len(wants) == 0 {
		return nil
	}
	o, err := order.Place(order.Details{UserID: who.ID}, wants, g.bySKU, at)
	if err != nil {
		return fmt.Errorf("order at %s: %w", at.Format(time.DateTime), err)
	}
	if err := g.live(o, at); err != nil {
		return fmt.Errorf("order at %s: %w", at.Format(time.DateTime), err)
	}
	g.settle(o, wants)
	g.rename(o, who)
	g.batch.Orders = append(g.batch.Orders, o)
	return nil
}

// wants picks products that are for sale, none twice.
func (g *generator) wants(lines int) []order.Want {
	var wants []order.Want
	for range 20 * lines { // a shop may run out of what it sells
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

// maxUnits is how many units of a product one line orders at most.
const maxUnits = 4

// live moves a new order through its states, as far as chance has it.
func (g *generator) live(o *order.Order, at time.Time) error {
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
			o.Loaded() // each move is a change of its own: what shipped gives nothing back
			if err := move(); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// settle notes the stocks that an order has changed, and gives its units back
// if it ended before it shipped.
func (g *generator) settle(o *order.Order, wants []order.Want) {
	for _, w := range wants {
		s := g.bySKU[w.SKU].Stock
		if o.ReturnsStock() {
			s.Quantity, s.Version, s.UpdatedAt = s.Quantity+w.Quantity, s.Version+1, o.UpdatedAt
		}
		g.changed[s.ProductID] = s
	}
}

// rename gives an order the id and the number of this seed in place of random
// ones. In its snapshots the number is the only one of the two, and like no
// other text.
func (g *generator) rename(o *order.Order, who *user.User) {
	var b [10]byte
	binary.BigEndian.PutUint64(b[:8], g.rnd.Uint64())
	binary.BigEndian.PutUint16(b[8:], uint16(g.rnd.Uint32())) //nolint:gosec // any two bytes will do
	random, number := []byte(o.Number), order.NumberFrom(b)
	o.ID, o.Number = uid.Order(g.id(uid.KindOrder, o.PlacedAt)), number
	for i := range o.Items() {
		o.Items()[i].OrderID = o.ID
	}
	g.log(o.TakeEvents(), string(o.ID), func(e *event.Event) {
		e.Data = bytes.ReplaceAll(e.Data, random, []byte(number))
		e.Actor = map[event.Type]string{
			event.OrderPlaced: string(who.ID), event.OrderCancelled: string(who.ID), event.PaymentRefundRequested: string(who.ID),
			event.OrderShipped: g.staffID(), event.OrderDelivered: g.staffID(),
		}[e.Type] // nobody for what the payment domain does
	})
}

// flush stores what was made since the last time, its events in the order of
// their times.
func (g *generator) flush(ctx context.Context, db Store) error {
	b := g.batch
	for _, s := range g.changed {
		b.Stocks = append(b.Stocks, s)
	}
	slices.SortFunc(b.Stocks, func(a, b *order.Stock) int { return bytes.Compare([]byte(a.ProductID), []byte(b.ProductID)) })
	slices.SortStableFunc(b.Events, func(a, b event.Event) int { return a.OccurredAt.Compare(b.OccurredAt) })
	g.batch = store.Batch{Credentials: map[*user.User]user.Credential{}}
	clear(g.changed)
	return db.Bulk(ctx, b)
}

func mustBeEmpty(ctx context.Context, db Store) error {
	empty, err := db.Empty(ctx)
	if err == nil && !empty {
		err = ErrNotEmpty
	}
	return err
}
