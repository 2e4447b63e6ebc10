package lease

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// releaseTimeout bounds how long a node that stops waits to give up a lease.
const releaseTimeout = time.Second

// NewOwner returns a name under which a process owns readers: what people know its
// node by, and something that no other process has, nor the same node later.
func NewOwner(node string) string { return node + "/" + rand.Text()[:8] }

// Held is a tenure while it lasts: whoever is a named reader keeps it by one.
// It is safe for concurrent use.
type Held struct {
	store Offsets
	lease Lease
	ttl   time.Duration

	saving sync.Mutex // held during a save: they go one by one

	mu    sync.Mutex
	until time.Time // the lease holds until here at least
}

// Acquire takes the reader for ttl, as Offsets.Take does; ok is false if somebody else has it.
// It takes no longer than half of the lease.
func Acquire(ctx context.Context, o Offsets, name, holder string, start event.Position, ttl time.Duration) (t *Held, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, ttl/2)
	defer cancel()
	asked := time.Now()
	tenure, ok, err := o.Acquire(ctx, name, holder, start, ttl)
	if err != nil || !ok {
		return nil, false, err
	}
	return &Held{store: o, lease: tenure, ttl: ttl, until: asked.Add(ttl)}, true, nil
}

// Lease returns the tenure as it was taken: its Position is where the reader began.
func (t *Held) Lease() Lease { return t.lease }

// Renew renews the lease, and says that the reader is done with everything up to
// the position. ErrLeaseLost says that the tenure is over. It takes no longer than half of
// the lease, so that one that hangs leaves time for another.
func (t *Held) Renew(ctx context.Context, done event.Position) error {
	ctx, cancel := context.WithTimeout(ctx, t.ttl/2)
	defer cancel()
	t.saving.Lock()
	defer t.saving.Unlock()
	asked := time.Now()
	if _, err := t.store.Renew(ctx, t.lease, done, t.ttl); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = asked.Add(t.ttl)
	return nil
}

// Expired reports whether the lease may have ended: also for a process that was
// frozen, as this clock goes on meanwhile.
func (t *Held) Expired() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !time.Now().Before(t.until)
}

// Release gives the reader up, also when ctx is over. It takes a moment at most: what it
// cannot do in that does not matter, as the lease expires.
func (t *Held) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return t.store.Release(ctx, t.lease)
}

// ReleaseAt says for the last time up to where the reader is done, and gives it up.
func (t *Held) ReleaseAt(ctx context.Context, done event.Position) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := t.Renew(last, done); err != nil {
		return err
	}
	return t.Release(ctx)
}
