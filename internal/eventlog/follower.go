package eventlog

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

// progressTime is how long a Follower returns no event before it returns its cursor alone, if
// that has advanced: less than the keep-alive of the transports, which send it.
const progressTime = 10 * time.Second

// Follower reads the log for a caller, for one goroutine at a time. It has no
// goroutine of its own and holds at most one batch of events.
type Follower struct {
	sub        *Subscription
	pending    []*event.Event // taken from sub and not yet returned
	redactions int            // the hub's count when pending was taken
	returned   event.Position // the last position that was returned
	caller     *auth.Principal

	progressTimer *time.Timer
	returnedAt    time.Time // when an event or cursor was last returned
}

// Follow is Subscribe for the caller in ctx, which must be signed in. It returns the events that
// the caller may see at the moment they are returned, not at the start, if the context gives
// the principal of that moment: see auth.WithCurrent.
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
	return &Follower{sub: sub, returned: sub.Cursor().Position, returnedAt: time.Now()}, nil
}

// Next waits for the next event and returns it with its cursor. While no event comes that
// the caller may see, it returns the cursor alone now and then, so that a client can resume
// near the head. It calls idle
// before it waits. Its errors are those of Subscription.Poll.
func (f *Follower) Next(ctx context.Context, idle func()) (*event.Event, event.Cursor, error) {
	for {
		if e := f.takeVisible(); e != nil {
			f.returned, f.returnedAt = e.Cursor.Position, time.Now()
			return e, e.Cursor, nil
		}
		idle()
		quiet, err := f.fillPending(ctx)
		if err != nil {
			return nil, event.Cursor{}, err
		}
		if at := f.sub.Cursor(); quiet && at.Position > f.returned {
			f.returned = at.Position
			return nil, at, nil
		}
	}
}

// Caller returns the principal that may see the event that Next returned last.
func (f *Follower) Caller() *auth.Principal { return f.caller }

// RedactionCount returns a number that changes when events that were returned before have been
// redacted since, because a user was deleted.
func (f *Follower) RedactionCount() int { return f.redactions }

// Close ends the follower before its context does. It is safe to call twice.
func (f *Follower) Close() {
	f.sub.Close()
	if f.progressTimer != nil {
		f.progressTimer.Stop()
	}
}

// takeVisible returns the first pending event that the caller may still see. Events taken for a
// caller with more rights must not reach one with fewer, nor data of a user deleted meanwhile.
func (f *Follower) takeVisible() *event.Event {
	if len(f.pending) == 0 {
		return nil
	}
	s := f.sub
	s.lockInGroup()
	defer s.hub.mu.RUnlock()
	if f.redactions != s.hub.redactions {
		s.position, f.pending = f.pending[0].Cursor.Position-1, nil
		return nil
	}
	for len(f.pending) > 0 {
		e := f.pending[0]
		f.pending = f.pending[1:]
		if s.group.conditions.Match(e) {
			f.caller = s.principal
			return e
		}
	}
	f.pending = nil // also frees the array
	return nil
}

// fillPending waits for events, at most until a cursor is due; then quiet is true.
func (f *Follower) fillPending(ctx context.Context) (quiet bool, err error) {
	if f.progressTimer == nil {
		f.progressTimer, f.returnedAt = time.NewTimer(progressTime), time.Now()
	}
	f.sub.hub.mu.RLock()
	f.redactions = f.sub.hub.redactions // before the events are taken: one read too many is harmless, one too few is not
	f.sub.hub.mu.RUnlock()
	f.pending, quiet, err = f.sub.Poll(ctx, f.progressTimer.C)
	if !quiet {
		return false, err
	}
	// The timer is not set again for each event; if there was one it is early.
	left := progressTime - time.Since(f.returnedAt)
	if quiet = left <= 0; quiet {
		f.returnedAt, left = time.Now(), progressTime
	}
	f.progressTimer.Reset(left)
	return quiet, nil
}
