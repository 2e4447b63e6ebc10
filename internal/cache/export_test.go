package cache

import (
	"context"
	"errors"
	"math"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Careless makes the cache keep what is read without a look at version and token.
func (c *Cache) Careless() { c.careless = true }

// Client is the connection to Redis.
func (c *Cache) Client() *redis.Client { return c.remote.client }

// Key is where a row's value stands in Redis now.
func (c *Cache) Key(entity, id string) string { return c.remote.era.Load().key(entity, id) }

// Meta is where Redis says of itself what it has heard of.
func (c *Cache) Meta() string { return c.remote.era.Load().meta() }

// Inform tells Redis at once of what the hub has read.
func (c *Cache) Inform(ctx context.Context) { c.remote.inform(ctx) }

// Settle forgets floors at once, but for those of the last mark.
func (c *Cache) Settle() { c.settle() }

// Evict makes room as if others were wanted more.
func (s *Products) Evict() {
	most := s.table.held.GetMaximum()
	s.table.held.SetMaximum(0)
	s.table.held.CleanUp()
	s.table.held.SetMaximum(most)
	most = s.stocks.held.GetMaximum()
	s.stocks.held.SetMaximum(0)
	s.stocks.held.CleanUp()
	s.stocks.held.SetMaximum(most)
}

// Expire ends the life of what process memory holds of a product.
func (s *Products) Expire(id uid.Product) {
	if e, ok := s.table.held.GetIfPresent(id); ok {
		e.expires = 0
	}
}

// Floor is the newest version of a product that is remembered without its value.
func (s *Products) Floor(id uid.Product) int {
	return s.table.c.floors.get(s.table.c.clock, s.table.key(id))
}

// NewFloor makes a version of a product known, as an event would.
func (s *Products) NewFloor(id uid.Product, version int) { s.table.raise(string(id), version) }

// Offer keeps a product as if it had been read since the token.
func (s *Products) Offer(p *order.Product, taken uint64) { s.table.offer(p.ID, p, token(taken)) }

// Token is a moment before a read.
func (s *Products) Token() uint64 { return uint64(s.table.take()) }

// Forget voids everything, as a gap in the log does.
func (c *Cache) Forget() { c.forget() }

// DropFloors forgets every version that is remembered without its value.
func (c *Cache) DropFloors() { c.floors.drop(math.MaxInt64) }

// Drop empties process memory, as if it had just begun.
func (c *Cache) Drop() {
	for _, t := range c.tables {
		t.clear()
	}
}

// Ask asks Redis for products.
func (c *Cache) Ask(ctx context.Context, ids []uid.Product) error {
	if _, _, ok := c.remote.get(ctx, entityProduct, anys(ids)); !ok {
		return errors.New("Redis did not answer")
	}
	return nil
}

// AskBy is Ask by a client of the caller's.
func (c *Cache) AskBy(ctx context.Context, by redis.Scripter, ids []uid.Product) error {
	at := c.remote.era.Load()
	keys := []string{at.meta()}
	for _, id := range ids {
		keys = append(keys, at.key(entityProduct, string(id)))
	}
	return getScript.Run(ctx, by, keys, at.generation, "token", 10_000).Err()
}
