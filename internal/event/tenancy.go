package event

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

// Holder returns a name under which a process owns readers: what people know its
// node by, and something that no other process has, nor the same node later.
func Holder(node string) string { return node + "/" + rand.Text()[:8] }

// Tenancy is a tenure while it lasts: whoever is a named reader keeps it by one.
// It is safe for concurrent use.
type Tenancy struct {
	offsets Offsets
	tenure  Tenure
	ttl     time.Duration

	saving sync.Mutex // held during a save: they go one by one

	mu    sync.Mutex
	until time.Time // the lease holds until here at least
}

// Occupy takes the reader for ttl, as Offsets.Take does; ok is false if somebody else has it.
func Occupy(ctx context.Context, o Offsets, name, holder string, start Position, ttl time.Duration) (t *Tenancy, ok bool, err error) {
	asked := time.Now()
	tenure, ok, err := o.Take(ctx, name, holder, start, ttl)
	if err != nil || !ok {
		return nil, false, err
	}
	return &Tenancy{offsets: o, tenure: tenure, ttl: ttl, until: asked.Add(ttl)}, true, nil
}

// Tenure returns the tenure as it was taken: its Position is where the reader began.
func (t *Tenancy) Tenure() Tenure { return t.tenure }

// Renew renews the lease, and says that the reader is done with everything up to
// the position. ErrLeaseLost says that the tenure is over. It takes no longer than half of
// the lease, so that one that hangs leaves time for another.
func (t *Tenancy) Renew(ctx context.Context, done Position) error {
	ctx, cancel := context.WithTimeout(ctx, t.ttl/2)
	defer cancel()
	t.saving.Lock()
	defer t.saving.Unlock()
	asked := time.Now()
	if _, err := t.offsets.Save(ctx, t.tenure, done, t.ttl); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = asked.Add(t.ttl)
	return nil
}

// Lapsed reports whether the lease may have ended: also for a process that was
// frozen, as this clock goes on meanwhile.
func (t *Tenancy) Lapsed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !time.Now().Before(t.until)
}

// Release gives the reader up, also when ctx is over. It takes a moment at most: what it
// cannot do in that does not matter, as the lease expires.
func (t *Tenancy) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	return t.offsets.Release(ctx, t.tenure)
}

// Leave says for the last time up to where the reader is done, and gives it up.
func (t *Tenancy) Leave(ctx context.Context, done Position) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if err := t.Renew(last, done); err != nil {
		return err
	}
	return t.Release(ctx)
}
