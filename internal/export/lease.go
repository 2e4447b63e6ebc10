package export

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
)

// exportLease is the lease of an exporter: it renews the lease, and saves the
// offset as it moves. It is safe for concurrent use.
type exportLease struct {
	*lease.Held
	cfg   Config
	moved coalesce.Signal

	mu        sync.Mutex
	confirmed event.Position // the broker confirmed every event up to here
}

func newExportLease(t *lease.Held, cfg Config) *exportLease {
	return &exportLease{Held: t, cfg: cfg, moved: coalesce.NewSignal(), confirmed: t.Lease().Position}
}

// offset returns the position up to which the broker confirmed every event.
func (t *exportLease) offset() event.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.confirmed
}

// advanceOffset moves the offset to a confirmed position.
func (t *exportLease) advanceOffset(to event.Position) {
	t.mu.Lock()
	t.confirmed = to
	t.mu.Unlock()
	t.moved.Set()
}

// ensureHeld renews a lease that may have expired, and fails if it is lost.
func (t *exportLease) ensureHeld(ctx context.Context) error {
	if !t.Expired() {
		return nil
	}
	return t.saveOffset(ctx)
}

// startRenewal renews the lease until end is called, which waits for the renewal to
// stop. The context that it returns ends when the lease does, with lease.ErrLost as
// the cause if it has another owner, and at the latest some grace after ctx.
func (t *exportLease) startRenewal(ctx context.Context, grace time.Duration) (held context.Context, end func()) {
	held, lose := context.WithCancelCause(context.WithoutCancel(ctx))
	late := context.AfterFunc(ctx, func() {
		backoff.Sleep(held, grace)
		lose(ctx.Err())
	})
	over := make(chan struct{})
	var renewal sync.WaitGroup
	renewal.Go(func() { t.renewUntilStopped(held, over, lose) })
	return held, func() {
		close(over)
		renewal.Wait()
		late()
		lose(nil)
	}
}

// renewUntilStopped renews the lease and saves the offset until over is closed or held ends.
func (t *exportLease) renewUntilStopped(held context.Context, over <-chan struct{}, lose context.CancelCauseFunc) {
	renew := time.NewTicker(t.cfg.TTL / 4)
	defer renew.Stop()
	for {
		select {
		case <-over:
			return
		case <-held.Done():
			return
		case <-renew.C:
		case <-t.moved:
		}
		if err := t.saveOffset(held); errors.Is(err, lease.ErrLost) || err != nil && t.Expired() {
			lose(err)
			return
		}
		select {
		case <-over:
			return
		case <-held.Done():
			return
		case <-time.After(t.cfg.SaveInterval):
		}
	}
}

// saveOffset saves the offset and renews the lease.
func (t *exportLease) saveOffset(ctx context.Context) error { return t.Renew(ctx, t.offset()) }

// releaseLease saves the offset a last time and releases the lease. If that fails the
// lease expires, and the next owner sends the events after the saved offset again.
func (t *exportLease) releaseLease(ctx context.Context) { _ = t.ReleaseAt(ctx, t.offset()) }
