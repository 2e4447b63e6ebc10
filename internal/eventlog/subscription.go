package eventlog

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
)

// Subscription is the position of one subscriber in the log. One goroutine at a time calls Poll.
type Subscription struct {
	hub      *Hub
	filter   event.Filter
	caller   func() *auth.Principal // returns the principal whose audience limits the filter; nil for all events
	timeline string
	stop     func() bool
	index    int // in subs of the hub; -1 once it is removed

	group     *subscriptionGroup
	principal *auth.Principal // that the group was chosen for

	// position is that of the last event that was returned or did not match. The
	// subscriber writes it under a read lock of the hub, the hub under its write lock.
	position event.Position
	lost     bool // a restore removed the events that it follows; written by the hub
}

// maxBatch is how many events Poll returns at most.
const maxBatch = 256

// Subscribe returns the matching events after the cursor, first those of the past, then new
// ones as they come: in order, without gap or repeat. Without
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
		if err := h.beyond.check(state, *after); err != nil {
			return nil, err
		}
		from = *after
	}
	s := &Subscription{hub: h, filter: f, caller: caller, timeline: from.Timeline, position: from.Position}
	h.mu.Lock()
	s.index = len(h.subs)
	h.subs = append(h.subs, s)
	s.joinGroup()
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
	s.leaveGroup()
}

// Cursor returns the cursor up to which Poll has returned all matching events. It advances
// also while no event matches, so that a client can resume near the head.
func (s *Subscription) Cursor() event.Cursor {
	s.hub.mu.RLock()
	defer s.hub.mu.RUnlock()
	return event.Cursor{Timeline: s.timeline, Position: s.position}
}

// Poll waits for events and returns them, at least one and at most a few hundred; they are
// shared and must not be changed. When the silence channel, which may be nil, receives first,
// it returns none and quiet true. The error is that of ctx, CURSOR_UNKNOWN after a restore,
// CURSOR_EXPIRED if the reader was so slow that its next event is not kept any more, or that of
// a read, after which Poll may be called again.
func (s *Subscription) Poll(ctx context.Context, silence <-chan time.Time) (events []*event.Event, quiet bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		t, err := s.takeFromRing()
		if err == nil && t.target > 0 {
			t.events, err = s.replayLog(ctx, t.filter, t.target)
		}
		if err != nil || len(t.events) > 0 {
			return t.events, false, err
		}
		if t.target > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-t.notify:
		case <-silence:
			return nil, true, nil
		}
	}
}

// pollResult is what one poll of the hub returned.
type pollResult struct {
	events []*event.Event
	target event.Position  // position up to which to read the log, if the ring begins after the subscriber's position
	filter *event.Filter   // filter of that read
	notify <-chan struct{} // to wait on, if there are no events
}

// takeFromRing returns the matching events that the ring holds after the position.
func (s *Subscription) takeFromRing() (t pollResult, err error) {
	h := s.hub
	s.lockInGroup()
	defer h.mu.RUnlock()
	t.filter, t.notify = &s.group.filter, s.group.notify
	switch {
	case s.lost:
		return t, errUnknown()
	case h.timeline != s.timeline || s.position >= h.head: // the hub has not started, or has no newer event
		return t, nil
	}
	before := h.head - event.Position(len(h.ring)) // the position before the ring
	if s.position < before {
		t.target = h.head
		return t, nil
	}
	wanted := s.group.conditions
	for _, e := range h.ring[s.position-before:] {
		s.position = e.Cursor.Position
		if wanted.Match(e) {
			if t.events = append(t.events, e); len(t.events) == maxBatch {
				break
			}
		}
	}
	return t, nil
}

// lockInGroup takes a read lock of the hub, with the subscription in the group that its
// caller's rights of the moment give.
func (s *Subscription) lockInGroup() {
	h := s.hub
	for h.mu.RLock(); s.rightsChanged(); h.mu.RLock() {
		h.mu.RUnlock()
		h.mu.Lock()
		if s.index >= 0 {
			s.regroup()
		} else {
			s.principal = s.caller() // it has ended, and is in no group
		}
		h.mu.Unlock()
	}
}

// replayLog reads matching events from the log, up to the target.
func (s *Subscription) replayLog(ctx context.Context, filter *event.Filter, target event.Position) ([]*event.Event, error) {
	if err := s.hub.replays.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.hub.replays.Release(1)
	events, err := s.hub.log.store.Read(ctx, *filter, Span{After: s.position, Before: target + 1, Limit: maxBatch})
	if err != nil {
		return nil, err
	}
	// The state is read after the events: retention could remove some in between otherwise.
	state, err := s.hub.log.State(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.hub.beyond.check(state, event.Cursor{Timeline: s.timeline, Position: s.position}); err != nil {
		return nil, err
	}
	if len(events) == maxBatch {
		target = events[maxBatch-1].Cursor.Position
	}
	s.hub.mu.RLock()
	s.position = target
	s.hub.mu.RUnlock()
	return events, nil
}
