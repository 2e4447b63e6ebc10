package eventlog

import (
	"context"

	"github.com/backplane-dev/backplane/internal/event"
)

// Next is Poll without a silence.
func (s *Subscription) Next(ctx context.Context) ([]*event.Event, error) {
	events, _, err := s.Poll(ctx, nil)
	return events, err
}

// RingLen returns how many events the hub keeps.
func (h *Hub) RingLen() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.ring)
}

// Subscribers returns how many subscriptions there are.
func (h *Hub) Subscribers() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.subs)
}

// Round cleans once.
func (c *Cleaner) Round(ctx context.Context) error { return c.round(ctx) }

// LeadsSequencer reports whether this node assigns the positions.
func (f *Pipeline) LeadsSequencer() bool { return f.sequencer != nil && f.sequencer.Leading() }
