package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Events is an event.Store whose readers are shown versions of rows: they become
// known here, so that no cache shows an older one afterwards. It keeps nothing.
type Events struct {
	event.Store

	c *Cache
}

var _ event.Store = (*Events)(nil)

// Events decorates a store of the log, for whoever shows it to clients.
func (c *Cache) Events(s event.Store) event.Store {
	if c.isOff() {
		return s
	}
	return &Events{s, c}
}

// Read implements event.Store.
func (s *Events) Read(ctx context.Context, f event.Filter, span event.Span) ([]*event.Event, error) {
	found, err := s.Store.Read(ctx, f, span)
	for _, e := range found {
		s.c.named(e)
	}
	return found, err
}

// ReadOrders implements event.Store.
func (s *Events) ReadOrders(ctx context.Context, orders []uid.Order, f event.Filter, span event.Span) (map[uid.Order][]*event.Event, error) {
	found, err := s.Store.ReadOrders(ctx, orders, f, span)
	for _, events := range found {
		for _, e := range events {
			s.c.named(e)
		}
	}
	return found, err
}

// ByIDs implements event.Store.
func (s *Events) ByIDs(ctx context.Context, ids []uid.Event) (map[uid.Event]*event.Event, error) {
	found, err := s.Store.ByIDs(ctx, ids)
	for _, e := range found {
		s.c.named(e)
	}
	return found, err
}
