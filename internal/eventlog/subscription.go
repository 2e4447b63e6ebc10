package eventlog

import (
	"context"
	"iter"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
)

// Subscription is one reader's place in the log. Next and Events are for one
// goroutine at a time.
type Subscription struct {
	hub      *Hub
	filter   event.Filter
	caller   func() *auth.Principal // whose audience of the moment is the filter's; nil if there is none
	timeline string
	stop     func() bool
	index    int // in subs of the hub; -1 once it is removed

	crowd     *crowd
	principal *auth.Principal // for whom it is in the crowd

	// All events up to here have been returned or are not wanted. The reader
	// writes it under a read lock of the hub, the hub under its write lock.
	place event.Position
	lost  bool // a restore took away what it follows; written by the hub
}

// chunk is how many events Next returns at most.
const chunk = 256

// Subscribe returns the events behind the cursor that match, first those of the
// past, then new ones as they come: in order, none missing, none twice. Without
// a cursor it begins at the head of the log. A cursor that cannot be followed is
// CURSOR_UNKNOWN or CURSOR_EXPIRED. The subscription ends with ctx; it has no
// goroutine, so nothing is left of it then.
func (h *Hub) Subscribe(ctx context.Context, after *event.Cursor, f event.Filter) (*Subscription, error) {
	return h.subscribe(ctx, after, f, nil)
}

func (h *Hub) subscribe(ctx context.Context, after *event.Cursor, f event.Filter, caller func() *auth.Principal) (*Subscription, error) {
	state, err := h.log.State(ctx)
	if err != nil {
		return nil, err
	}
	from := event.Cursor{Timeline: state.Timeline, Position: state.Head}
	if after != nil {
		if err := state.check(*after); err != nil {
			return nil, err
		}
		from = *after
	}
	s := &Subscription{hub: h, filter: f, caller: caller, timeline: from.Timeline, place: from.Position}
	h.mu.Lock()
	s.index = len(h.subs)
	h.subs = append(h.subs, s)
	s.join()
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
	h := s.hub
	if s.index < 0 {
		return
	}
	last := len(h.subs) - 1
	h.subs[s.index], h.subs[last].index = h.subs[last], s.index
	h.subs[last] = nil
	h.subs, s.index = h.subs[:last], -1
	s.part()
}

// Cursor returns the place up to which Next has returned everything. It moves on
// also while nothing matches, so that a client can resume near the head.
func (s *Subscription) Cursor() event.Cursor {
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	return event.Cursor{Timeline: s.timeline, Position: s.place}
}

// Next waits for events and returns them, at least one and at most a few
// hundred; they are shared and must not be changed. The error is that of ctx,
// CURSOR_UNKNOWN after a restore, CURSOR_EXPIRED if the reader was so slow that
// its next event is not kept any more, or that of a read, after which Next may
// be called again.
func (s *Subscription) Next(ctx context.Context) ([]*event.Event, error) {
	events, _, err := s.Poll(ctx, nil)
	return events, err
}

// Poll is Next that also returns, with quiet true and nothing else, when the
// channel has something.
func (s *Subscription) Poll(ctx context.Context, silence <-chan time.Time) (events []*event.Event, quiet bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		t, err := s.take()
		if err == nil && t.target > 0 {
			t.events, err = s.replay(ctx, t.filter, t.target)
		}
		if err != nil || len(t.events) > 0 {
			return t.events, false, err
		}
		if t.target > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-t.door:
		case <-silence:
			return nil, true, nil
		}
	}
}

// Events is Next one by one. It ends after the first error.
func (s *Subscription) Events(ctx context.Context) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
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

// taken is what a look at the hub has brought.
type taken struct {
	events []*event.Event
	target event.Position  // how far to read the log, if the ring begins behind the reader's place
	filter *event.Filter   // what to look for there
	door   <-chan struct{} // where to wait, if there is nothing
}

// take returns what the ring holds for the reader.
func (s *Subscription) take() (t taken, err error) {
	h := s.hub
	s.lock()
	defer h.mu.RUnlock()
	t.filter, t.door = &s.crowd.filter, s.crowd.door
	switch {
	case s.lost:
		return t, errUnknown()
	case h.timeline != s.timeline || s.place >= h.head: // the hub has not begun, or knows no more
		return t, nil
	}
	before := h.head - event.Position(len(h.ring)) // the place ahead of the ring
	if s.place < before {
		t.target = h.head
		return t, nil
	}
	wanted := s.crowd.wanted
	for _, e := range h.ring[s.place-before:] {
		s.place = e.Cursor.Position
		if wanted.Match(e) {
			if t.events = append(t.events, e); len(t.events) == chunk {
				break
			}
		}
	}
	return t, nil
}

// lock takes a read lock of the hub, with the subscriber in the crowd that its
// caller belongs to now.
func (s *Subscription) lock() {
	h := s.hub
	for h.mu.RLock(); s.changed(); h.mu.RLock() {
		h.mu.RUnlock()
		h.mu.Lock()
		if s.index >= 0 {
			s.settle()
		} else {
			s.principal = s.caller() // it has ended, and belongs nowhere
		}
		h.mu.Unlock()
	}
}

// replay reads from the log what matches, up to the target.
func (s *Subscription) replay(ctx context.Context, filter *event.Filter, target event.Position) ([]*event.Event, error) {
	select {
	case s.hub.replays <- struct{}{}:
		defer func() { <-s.hub.replays }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	events, err := s.hub.log.store.Read(ctx, *filter, Span{After: s.place, Before: target + 1, Limit: chunk})
	if err != nil {
		return nil, err
	}
	// Whether all was still there is asked after the read: before, it could go
	// between the two.
	state, err := s.hub.log.State(ctx)
	if err != nil {
		return nil, err
	}
	if err := state.check(event.Cursor{Timeline: s.timeline, Position: s.place}); err != nil {
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
