package eventlog

import (
	"context"
	"sync"
	"time"
)

// freshness is how far the hub's reads of the log have come, and lets callers wait for the next
// read instead of asking the database themselves.
type freshness struct {
	mu        sync.Mutex
	complete  time.Time // all events committed before have been read
	seen      time.Time // all events committed before have been read, or seen without a position
	next      *look     // that has not ended
	failed    error     // of the last look
	failingAt time.Time // since when looks fail; zero if the last one did not
}

// look is one read of the state of the log and of all events up to its head.
type look struct {
	ended chan struct{}
	err   error
}

func newFreshness() freshness { return freshness{next: &look{ended: make(chan struct{})}} }

func (f *freshness) setComplete(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.complete = at
}

func (f *freshness) setSeen(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = at
}

// endLook wakes the callers that wait for the look.
func (f *freshness) endLook(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next.err = err
	close(f.next.ended)
	f.next = &look{ended: make(chan struct{})}
	f.failed = err
	switch {
	case err == nil:
		f.failingAt = time.Time{}
	case f.failingAt.IsZero():
		f.failingAt = time.Now()
	}
}

// failingTime is how long looks may fail before callers no longer wait for the next one: it
// covers connections that are lost and replaced.
const failingTime = time.Second

// await returns the next look to end, or an error if looks have failed for a while.
func (f *freshness) await() (*look, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil && time.Since(f.failingAt) > failingTime {
		return nil, f.failed
	}
	return f.next, nil
}

// Lag returns the age of the newest moment of which the hub has read all committed events. On
// a quiet log it grows to the poll interval and back, less after a call of Look; more than that
// means that the hub cannot keep up, that the database cannot be read, or that no sequencer
// assigns positions. Before the first read it is very large.
func (h *Hub) Lag() time.Duration {
	h.freshness.mu.Lock()
	defer h.freshness.mu.Unlock()
	return time.Since(h.freshness.complete)
}

// Complete reports whether the hub has read all committed events once, without which Lag says nothing.
func (h *Hub) Complete() bool {
	h.freshness.mu.Lock()
	defer h.freshness.mu.Unlock()
	return !h.freshness.complete.IsZero()
}

// SeenLag is Lag for readers that OnPending serves as well: it does not grow while no
// sequencer assigns positions.
func (h *Hub) SeenLag() time.Duration {
	h.freshness.mu.Lock()
	defer h.freshness.mu.Unlock()
	return time.Since(h.freshness.seen)
}

// AwaitSeen waits until SeenLag is at most maxLag, for a look that many callers share. It
// reports whether that is so: it is not if a whole look did not suffice. The error is that of
// the look, or of ctx; while looks have failed for more than a second it does not wait.
func (h *Hub) AwaitSeen(ctx context.Context, maxLag time.Duration) (bool, error) {
	for range 2 { // the look that is under way may have begun too early
		if h.SeenLag() <= maxLag {
			return true, nil
		}
		next, err := h.freshness.await()
		if err != nil {
			return false, err
		}
		h.Look()
		select {
		case <-next.ended:
			if next.err != nil {
				return false, next.err
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return h.SeenLag() <= maxLag, nil
}
