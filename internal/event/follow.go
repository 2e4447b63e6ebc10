package event

import (
	"context"
	"errors"
	"time"

	"backplane/internal/auth"
	"backplane/internal/fault"
)

// progressTime is how long a Follower is silent before it tells how far it has
// come, if it has: less than the keep-alive of the transports, which pass it on.
const progressTime = 10 * time.Second

// Follower reads the log for a caller, for one goroutine at a time. It has no
// goroutine of its own and holds at most one batch of events.
type Follower struct {
	sub     *Subscription
	pending []*Event // taken from sub and not yet returned
	told    Position // the last that was returned
}

// Follow is Subscribe for the caller in ctx, who must be signed in. It shows what
// the caller may see at the moment it is shown, not at the start, if the context
// tells who is calling then: see auth.WithCurrent.
func (h *Hub) Follow(ctx context.Context, f Filter, after *Cursor) (*Follower, error) {
	if auth.From(ctx) == nil {
		return nil, errSignIn()
	}
	sub, err := h.subscribe(ctx, after, f, audienceOfCaller(ctx))
	if err != nil && after != nil {
		return nil, fault.From(err).At("after")
	}
	if err != nil {
		return nil, err
	}
	return &Follower{sub: sub, told: sub.Cursor().Position}, nil
}

// audienceOfCaller returns a function that tells what the caller may see now. It
// is not safe for concurrent use: a lock of the hub stands before each call.
func audienceOfCaller(ctx context.Context) func() *Audience {
	var of *auth.Principal
	audience := AudienceOf(nil)
	return func() *Audience {
		if p := auth.From(ctx); p != of {
			of, audience = p, AudienceOf(p)
		}
		return audience
	}
}

// Next waits for the next event and returns it with its cursor. While nothing
// comes that the caller may see, it returns now and then no event but the cursor
// that was reached, so that a client can resume near the head. Its errors are
// those of Subscription.Next.
func (f *Follower) Next(ctx context.Context) (*Event, Cursor, error) {
	for {
		if e := f.take(); e != nil {
			f.told = e.Cursor.Position
			return e, e.Cursor, nil
		}
		moved, err := f.fill(ctx)
		if err != nil {
			return nil, Cursor{}, err
		}
		if at := f.sub.Cursor(); moved && at.Position > f.told {
			f.told = at.Position
			return nil, at, nil
		}
	}
}

// Close ends the follower before its context does. It is safe to call twice.
func (f *Follower) Close() { f.sub.Close() }

// take returns the first pending event that the caller may still see; what was
// taken for a caller with more rights must not reach one with less.
func (f *Follower) take() *Event {
	if len(f.pending) == 0 {
		return nil
	}
	f.sub.hub.mu.RLock()
	wanted := f.sub.wanted()
	f.sub.hub.mu.RUnlock()
	for len(f.pending) > 0 {
		e := f.pending[0]
		f.pending = f.pending[1:]
		if wanted.Match(e) {
			return e
		}
	}
	f.pending = nil // also lets go of what is behind the last one
	return nil
}

// fill waits for events, but not longer than a client is left without a word;
// then quiet is true.
func (f *Follower) fill(ctx context.Context) (quiet bool, err error) {
	wait, cancel := context.WithTimeout(ctx, progressTime)
	defer cancel()
	f.pending, err = f.sub.Next(wait)
	if errors.Is(err, context.DeadlineExceeded) && wait.Err() != nil && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}
