package event

import (
	"context"
	"iter"
	"slices"
	"time"
)

// Subscription is one reader's place in the log. Next and Events are for one
// goroutine at a time.
type Subscription struct {
	hub      *Hub
	filter   Filter
	audience func() *Audience // of the moment, instead of the filter's; called under a lock of the hub; nil if there is none
	timeline string
	wake     chan struct{}
	stop     func() bool

	// All events up to here have been returned or are not wanted. The reader
	// writes it under a read lock of the hub, the hub under its write lock.
	place Position
	lost  bool // a restore took away what it follows; written by the hub
}

// chunk is how many events Next returns at most.
const chunk = 256

// Subscribe returns the events behind the cursor that match, first those of the
// past, then new ones as they come: in order, none missing, none twice. Without
// a cursor it begins at the head of the log. A cursor that cannot be followed is
// CURSOR_UNKNOWN or CURSOR_EXPIRED. The subscription ends with ctx; it has no
// goroutine, so nothing is left of it then.
func (h *Hub) Subscribe(ctx context.Context, after *Cursor, f Filter) (*Subscription, error) {
	return h.subscribe(ctx, after, f, nil)
}

func (h *Hub) subscribe(ctx context.Context, after *Cursor, f Filter, audience func() *Audience) (*Subscription, error) {
	state, err := h.log.State(ctx)
	if err != nil {
		return nil, err
	}
	from := Cursor{state.Timeline, state.Head}
	if after != nil {
		if err := state.check(*after); err != nil {
			return nil, err
		}
		from = *after
	}
	s := &Subscription{
		hub: h, filter: f, audience: audience, timeline: from.Timeline, place: from.Position, wake: make(chan struct{}, 1),
	}
	h.mu.Lock()
	h.subs[s] = struct{}{}
	h.mu.Unlock()
	s.stop = context.AfterFunc(ctx, s.remove)
	return s, nil
}

// Close ends the subscription before its context does. It is safe to call twice.
func (s *Subscription) Close() {
	s.stop()
	s.remove()
}

func (s *Subscription) remove() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subs, s)
}

// Cursor returns the place up to which Next has returned everything. It moves on
// also while nothing matches, so that a client can resume near the head.
func (s *Subscription) Cursor() Cursor {
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	return Cursor{s.timeline, s.place}
}

// Next waits for events and returns them, at least one and at most a few
// hundred; they are shared and must not be changed. The error is that of ctx,
// CURSOR_UNKNOWN after a restore, CURSOR_EXPIRED if the reader was so slow that
// its next event is not kept any more, or that of a read, after which Next may
// be called again.
func (s *Subscription) Next(ctx context.Context) ([]*Event, error) { return s.next(ctx, nil) }

// next is Next, but once it had to wait until quiet it returns no events.
func (s *Subscription) next(ctx context.Context, quiet <-chan time.Time) ([]*Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		events, target, err := s.take()
		if err == nil && target > 0 {
			events, err = s.replay(ctx, target)
		}
		if err != nil || len(events) > 0 {
			return events, err
		}
		if target > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-quiet:
			return nil, nil
		}
	}
}

// Events is Next one by one. It ends after the first error.
func (s *Subscription) Events(ctx context.Context) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		for {
			events, err := s.Next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// wanted is the filter as it is now. The caller holds a lock of the hub.
func (s *Subscription) wanted() Filter {
	f := s.filter
	if s.audience != nil {
		f.Audience = s.audience()
	}
	return f
}

// take returns what the ring holds for the reader. If the ring begins behind the
// reader's place, target says how far to read the log.
func (s *Subscription) take() (events []*Event, target Position, err error) {
	h := s.hub
	h.mu.RLock()
	defer h.mu.RUnlock()
	switch {
	case s.lost:
		return nil, 0, errUnknown()
	case h.timeline != s.timeline || s.place >= h.head: // the hub has not begun, or knows no more
		return nil, 0, nil
	}
	before := h.head - Position(len(h.ring)) // the place ahead of the ring
	if s.place < before {
		return nil, h.head, nil
	}
	wanted := s.wanted()
	for _, e := range h.ring[s.place-before:] {
		s.place = e.Cursor.Position
		if wanted.Match(e) {
			if events = append(events, e); len(events) == chunk {
				break
			}
		}
	}
	return events, 0, nil
}

// replay reads from the log what matches, up to the target.
func (s *Subscription) replay(ctx context.Context, target Position) ([]*Event, error) {
	select {
	case s.hub.replays <- struct{}{}:
		defer func() { <-s.hub.replays }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.hub.mu.RLock()
	wanted := s.wanted()
	s.hub.mu.RUnlock()
	events, err := s.hub.log.store.Read(ctx, wanted, Span{After: s.place, Before: target + 1, Limit: chunk})
	if err != nil {
		return nil, err
	}
	// Whether all was still there is asked after the read: before, it could go
	// between the two.
	state, err := s.hub.log.State(ctx)
	if err != nil {
		return nil, err
	}
	if err := state.check(Cursor{s.timeline, s.place}); err != nil {
		return nil, err
	}
	if len(events) == chunk {
		target = events[chunk-1].Cursor.Position
	}
	s.hub.mu.RLock()
	s.place = target
	s.hub.mu.RUnlock()
	return events, nil
}

// offer tells the reader of new events; had is where the hub was before. A
// reader that was there too and wants none of them moves on in its sleep. The
// caller holds the hub's lock.
func (s *Subscription) offer(events []*Event, had Position) {
	wanted := s.wanted()
	if slices.ContainsFunc(events, wanted.Match) {
		signal(s.wake)
		return
	}
	if s.timeline == s.hub.timeline && s.place >= had {
		s.place = max(s.place, s.hub.head)
	}
}
