package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Events is an eventlog.Store in front of clients. It caches nothing: it makes the versions of rows known
// that its events name, so that no cache of this node shows an older one afterwards.
type Events struct {
	eventlog.Store

	cache *Cache
}

var _ eventlog.Store = (*Events)(nil)

// Events decorates a store of the log whose events clients see.
func (c *Cache) Events(s eventlog.Store) eventlog.Store {
	if c.isOff() {
		return s
	}
	return &Events{s, c}
}

// Read implements eventlog.Store.
func (s *Events) Read(ctx context.Context, f event.Filter, span eventlog.Span) ([]*event.Event, error) {
	found, err := s.Store.Read(ctx, f, span)
	for _, e := range found {
		s.cache.observeEvent(e)
	}
	return found, err
}

// ReadOrders implements eventlog.Store.
func (s *Events) ReadOrders(ctx context.Context, orders []uid.Order, f event.Filter, span eventlog.Span) (map[uid.Order][]*event.Event, error) {
	found, err := s.Store.ReadOrders(ctx, orders, f, span)
	for _, events := range found {
		for _, e := range events {
			s.cache.observeEvent(e)
		}
	}
	return found, err
}

// ByIDs implements eventlog.Store.
func (s *Events) ByIDs(ctx context.Context, ids []uid.Event) (map[uid.Event]*event.Event, error) {
	found, err := s.Store.ByIDs(ctx, ids)
	for _, e := range found {
		s.cache.observeEvent(e)
	}
	return found, err
}
