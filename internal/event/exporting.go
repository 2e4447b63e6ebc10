package event

import (
	"context"
	"errors"
	"sync"
	"time"
)

// exporting is the tenancy of an exporter: it renews the lease, and stores the
// place as it moves on. It is safe for concurrent use.
type exporting struct {
	*Tenancy
	cfg   ExporterConfig
	moved chan struct{}

	mu   sync.Mutex
	done Position // all up to here is done
}

func newExporting(t *Tenancy, cfg ExporterConfig) *exporting {
	return &exporting{Tenancy: t, cfg: cfg, moved: make(chan struct{}, 1), done: t.Tenure().Position}
}

// place returns up to where all is done.
func (t *exporting) place() Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// move says that all up to the position is done.
func (t *exporting) move(to Position) {
	t.mu.Lock()
	t.done = to
	t.mu.Unlock()
	signal(t.moved)
}

// check makes sure that the lease still holds, before something is done under it.
func (t *exporting) check(ctx context.Context) error {
	if !t.Lapsed() {
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
		rest(held, grace)
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
		if err := t.save(held); errors.Is(err, ErrLeaseLost) || err != nil && t.Lapsed() {
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
func (t *exporting) release(ctx context.Context) { _ = t.Leave(ctx, t.place()) }
