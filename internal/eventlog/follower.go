package eventlog

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

// progressTime is how long a Follower is silent before it tells how far it has
// come, if it has: less than the keep-alive of the transports, which pass it on.
const progressTime = 10 * time.Second

// Follower reads the log for a caller, for one goroutine at a time. It has no
// goroutine of its own and holds at most one batch of events.
type Follower struct {
	sub     *Subscription
	pending []*event.Event // taken from sub and not yet returned
	blanked int            // as the hub's when they were taken
	told    event.Position // the last that was returned
	caller  *auth.Principal

	silence *time.Timer
	spoke   time.Time // when something was last returned
}

// Follow is Subscribe for the caller in ctx, who must be signed in. It shows what
// the caller may see at the moment it is shown, not at the start, if the context
// tells who is calling then: see auth.WithCurrent.
func (h *Hub) Follow(ctx context.Context, f event.Filter, after *event.Cursor) (*Follower, error) {
	if auth.From(ctx) == nil {
		return nil, auth.NotSignedIn(ctx)
	}
	sub, err := h.subscribe(ctx, after, f, auth.Current(ctx))
	if err != nil && after != nil {
		return nil, fault.From(err).At("after")
	}
	if err != nil {
		return nil, err
	}
	return &Follower{sub: sub, told: sub.Cursor().Position, spoke: time.Now()}, nil
}

// Next waits for the next event and returns it with its cursor. While nothing
// comes that the caller may see, it returns now and then no event but the cursor
// that was reached, so that a client can resume near the head. It calls idle
// before it waits. Its errors are those of Subscription.Next.
func (f *Follower) Next(ctx context.Context, idle func()) (*event.Event, event.Cursor, error) {
	for {
		if e := f.take(); e != nil {
			f.told, f.spoke = e.Cursor.Position, time.Now()
			return e, e.Cursor, nil
		}
		idle()
		quiet, err := f.fill(ctx)
		if err != nil {
			return nil, event.Cursor{}, err
		}
		if at := f.sub.Cursor(); quiet && at.Position > f.told {
			f.told = at.Position
			return nil, at, nil
		}
	}
}

// Caller returns who may see the event that Next returned last.
func (f *Follower) Caller() *auth.Principal { return f.caller }

// RedactionCount returns a number that is another once an event that was shown before
// may not be shown again as it was, since a user was deleted.
func (f *Follower) RedactionCount() int { return f.blanked }

// Close ends the follower before its context does. It is safe to call twice.
func (f *Follower) Close() {
	f.sub.Close()
	if f.silence != nil {
		f.silence.Stop()
	}
}

// take returns the first pending event that the caller may still see, as it may
// still be seen: what was taken for a caller with more rights must not reach one
// with less, nor what was taken of a user who is deleted by now.
func (f *Follower) take() *event.Event {
	if len(f.pending) == 0 {
		return nil
	}
	s := f.sub
	s.lock()
	defer s.hub.mu.RUnlock()
	if f.blanked != s.hub.blanked {
		s.place, f.pending = f.pending[0].Cursor.Position-1, nil
		return nil
	}
	for len(f.pending) > 0 {
		e := f.pending[0]
		f.pending = f.pending[1:]
		if s.crowd.wanted.Match(e) {
			f.caller = s.principal
			return e
		}
	}
	f.pending = nil // also lets go of what is behind the last one
	return nil
}

// fill waits for events, but not longer than a client is left without a word;
// then quiet is true.
func (f *Follower) fill(ctx context.Context) (quiet bool, err error) {
	if f.silence == nil {
		f.silence, f.spoke = time.NewTimer(progressTime), time.Now()
	}
	f.sub.hub.mu.RLock()
	f.blanked = f.sub.hub.blanked // before they are taken: better once too often than never
	f.sub.hub.mu.RUnlock()
	f.pending, quiet, err = f.sub.Poll(ctx, f.silence.C)
	if !quiet {
		return false, err
	}
	// The timer is not set again for each event; if there was one it is early.
	left := progressTime - time.Since(f.spoke)
	if quiet = left <= 0; quiet {
		f.spoke, left = time.Now(), progressTime
	}
	f.silence.Reset(left)
	return quiet, nil
}
