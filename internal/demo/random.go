package demo

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/user"
)

// Size says how much data FillRandom generates.
type Size struct {
	Users    int    // at least 1; of each hundred one is STAFF and one SERVICE
	Orders   int    // in all states
	Lines    int    // of each order, 1 to order.MaxLines
	Products int    // default 1 for 10 orders, from 100 to 10,000
	Seed     uint64 // equal seeds make equal databases; default 1
}

// fillBatch is the number of users, products or orders in one transaction.
const fillBatch = 1000

func (s Size) withDefaults() Size {
	s.Products = cmp.Or(s.Products, min(max(s.Orders/10, 100), 10_000))
	s.Seed = cmp.Or(s.Seed, 1)
	return s
}

func (s Size) check() error {
	switch {
	case s.Users < 1 || s.Orders < 0 || s.Products < 0:
		return fmt.Errorf("seed at least 1 user, and no less than 0 orders and products: not %d, %d and %d", s.Users, s.Orders, s.Products)
	case s.Lines < 1 || s.Lines > order.MaxLines:
		return fmt.Errorf("an order has 1 to %d lines, not %d", order.MaxLines, s.Lines)
	}
	return nil
}

// FillRandom fills an empty database with users without passwords, products and
// orders, over half a year. There is no ADMIN among the users, as one without
// a password could not sign in. It calls progress after each batch. If it fails, the
// batches before remain.
func FillRandom(ctx context.Context, db Store, size Size, progress func(done, total int)) error {
	if err := size.check(); err != nil {
		return err
	}
	size = size.withDefaults()
	if err := requireEmpty(ctx, db); err != nil {
		return err
	}
	g, done := newGenerator(size.Seed), 0
	for _, part := range []struct {
		n   int
		add func(i int) error
	}{
		{size.Users, func(i int) error { return g.addRandomUser(i) }},
		{size.Products, func(i int) error { return g.addRandomProduct(i, size) }},
		{size.Orders, func(i int) error { return g.addRandomOrder(i, size) }},
	} {
		for i := range part.n {
			if err := part.add(i); err != nil {
				return err
			}
			if done++; (i+1)%fillBatch != 0 && i+1 != part.n {
				continue
			}
			if err := g.storeBatch(ctx, db); err != nil {
				return err
			}
			progress(done, size.Users+size.Products+size.Orders)
		}
	}
	return db.Analyze(ctx)
}

func (g *generator) addRandomUser(i int) error {
	role := auth.Customer
	switch i % 100 {
	case 1:
		role = auth.Staff
	case 2:
		role = auth.Service
	}
	name := fmt.Sprintf("user-%06d", i+1)
	email := name + "@example.com"
	_, err := g.addUser(user.Profile{Username: name, Email: &email, Name: fmt.Sprintf("User %d", i+1)}, openedAt.Add(time.Duration(i)*time.Second), "", role)
	return err
}

func (g *generator) addRandomProduct(i int, size Size) error {
	return g.addProduct(order.ProductInput{
		SKU: fmt.Sprintf("SKU-%06d", i+1), Name: fmt.Sprintf("Product %d", i+1), Description: "Made for benchmarks.",
		Price: money.Money{Minor: int64(100 + g.rnd.IntN(99_900)), Currency: "EUR"}, Active: true,
		Stock: 1000 + 2*maxUnits*size.Orders*size.Lines/size.Products, // several times the expected demand
	}, openedAt.Add(time.Duration(i)*time.Second))
}

func (g *generator) addRandomOrder(i int, size Size) error {
	span := 180 * 24 * time.Hour
	return g.addOrder(openedAt.Add(24*time.Hour+span/time.Duration(size.Orders)*time.Duration(i)).Truncate(time.Millisecond), min(size.Lines, size.Products))
}
