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

// exporting is the tenancy of an exporter: it renews the lease, and stores the
// place as it moves on. It is safe for concurrent use.
type exporting struct {
	*lease.Held
	cfg   ExporterConfig
	moved coalesce.Signal

	mu   sync.Mutex
	done event.Position // all up to here is done
}

func newExporting(t *lease.Held, cfg ExporterConfig) *exporting {
	return &exporting{Held: t, cfg: cfg, moved: coalesce.NewSignal(), done: t.Lease().Position}
}

// place returns up to where all is done.
func (t *exporting) place() event.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// move says that all up to the position is done.
func (t *exporting) move(to event.Position) {
	t.mu.Lock()
	t.done = to
	t.mu.Unlock()
	t.moved.Set()
}

// check makes sure that the lease still holds, before something is done under it.
func (t *exporting) check(ctx context.Context) error {
	if !t.Expired() {
		return nil
	}
	return t.save(ctx)
}

// hold keeps the lease until end is called, which ends the keeping and waits for
// it. The context that it returns ends when the lease does, with ErrLeaseLost as
// the cause if it is known that it is somebody else's, and at the latest some
// grace after ctx.
func (t *exporting) hold(ctx context.Context, grace time.Duration) (held context.Context, end func()) {
	held, lose := context.WithCancelCause(context.WithoutCancel(ctx))
	late := context.AfterFunc(ctx, func() {
		backoff.Sleep(held, grace)
		lose(ctx.Err())
	})
	over := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() { t.keep(held, over, lose) })
	return held, func() {
		close(over)
		keeper.Wait()
		late()
		lose(nil)
	}
}

// keep renews the lease and stores the place until it is over.
func (t *exporting) keep(held context.Context, over <-chan struct{}, lose context.CancelCauseFunc) {
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
		if err := t.save(held); errors.Is(err, lease.ErrLost) || err != nil && t.Expired() {
			lose(err)
			return
		}
		select {
		case <-over:
			return
		case <-held.Done():
			return
		case <-time.After(t.cfg.Save):
		}
	}
}

// save stores the place and renews the lease.
func (t *exporting) save(ctx context.Context) error { return t.Renew(ctx, t.place()) }

// release stores the place a last time and gives the lease up. What it cannot do
// within a moment does not matter: the lease expires, and what was done since
// the place was stored is done again.
func (t *exporting) release(ctx context.Context) { _ = t.ReleaseAt(ctx, t.place()) }
