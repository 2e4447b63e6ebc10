package lease

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// releaseTimeout bounds how long a node that stops waits for the release of a lease.
const releaseTimeout = time.Second

// NewOwner returns the owner name of this process: the node's name and a random suffix, which
// differs for each process and each restart.
func NewOwner(node string) string { return node + "/" + rand.Text()[:8] }

// Held is an acquired lease. Its owner renews and releases it. It is safe for concurrent use.
type Held struct {
	store Store
	lease Lease
	ttl   time.Duration

	saveMu sync.Mutex // serializes renewals

	mu         sync.Mutex
	validUntil time.Time // the lease does not expire before
}

// Acquire acquires a lease for ttl, as Store.Acquire does; ok is false if it has another
// owner. It returns within half of ttl.
func Acquire(ctx context.Context, o Store, name, owner string, start event.Position, ttl time.Duration) (t *Held, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, ttl/2)
	defer cancel()
	asked := time.Now()
	acquired, ok, err := o.Acquire(ctx, name, owner, start, ttl)
	if err != nil || !ok {
		return nil, false, err
	}
	return &Held{store: o, lease: acquired, ttl: ttl, validUntil: asked.Add(ttl)}, true, nil
}

// Lease returns the lease as acquired: its Position is the offset at that time.
func (t *Held) Lease() Lease { return t.lease }

// Renew renews the lease and moves the offset to done. It returns ErrLost if the lease has
// another owner or epoch, or has expired. It returns within half of the ttl, so that a
// statement that hangs leaves time for another.
func (t *Held) Renew(ctx context.Context, done event.Position) error {
	ctx, cancel := context.WithTimeout(ctx, t.ttl/2)
	defer cancel()
	t.saveMu.Lock()
	defer t.saveMu.Unlock()
	asked := time.Now()
	if _, err := t.store.Renew(ctx, t.lease, done, t.ttl); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.validUntil = asked.Add(t.ttl)
	return nil
}

// Expired reports whether the lease may have expired. It is right also after the process was
// frozen, because the clock advances meanwhile.
func (t *Held) Expired() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !time.Now().Before(t.validUntil)
}

// Release releases the lease, also when ctx is done. It returns within releaseTimeout; if it
// fails, the lease expires by itself.
func (t *Held) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return t.store.Release(ctx, t.lease)
}

// ReleaseAt saves the offset a last time and releases the lease.
func (t *Held) ReleaseAt(ctx context.Context, done event.Position) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := t.Renew(last, done); err != nil {
		return err
	}
	return t.Release(ctx)
}
