package event

import (
	"context"
	"errors"
	"sync"
	"time"
)

// tenancy is a tenure while it lasts: it renews the lease, and stores the place
// as it moves on. It is safe for concurrent use.
type tenancy struct {
	offsets Offsets
	cfg     ExporterConfig
	moved   chan struct{}

	saving sync.Mutex // held during a save: they go one by one
	tenure Tenure     // only its position changes, which is what is stored

	mu    sync.Mutex
	done  Position  // all up to here is done
	until time.Time // the lease holds until here at least
}

// newTenancy returns the tenancy of a tenure that was asked for at a moment.
func newTenancy(o Offsets, t Tenure, asked time.Time, cfg ExporterConfig) *tenancy {
	return &tenancy{offsets: o, cfg: cfg, moved: make(chan struct{}, 1), tenure: t, done: t.Position, until: asked.Add(cfg.TTL)}
}

// place returns up to where all is done.
func (t *tenancy) place() Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// move says that all up to the position is done.
func (t *tenancy) move(to Position) {
	t.mu.Lock()
	t.done = to
	t.mu.Unlock()
	signal(t.moved)
}

// lapsed reports whether the lease may have ended: also for a process that was
// frozen, as this clock goes on meanwhile.
func (t *tenancy) lapsed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !time.Now().Before(t.until)
}

// check makes sure that the lease still holds, before something is done under it.
func (t *tenancy) check(ctx context.Context) error {
	if !t.lapsed() {
		return nil
	}
	return t.save(ctx)
}

// hold keeps the lease until end is called, which ends the keeping and waits for
// it. The context that it returns ends when the lease does, with ErrLeaseLost as
// the cause if it is known that it is somebody else's, and at the latest some
// grace after ctx.
func (t *tenancy) hold(ctx context.Context, grace time.Duration) (held context.Context, end func()) {
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
func (t *tenancy) keep(held context.Context, over <-chan struct{}, lose context.CancelCauseFunc) {
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
		if err := t.save(held); errors.Is(err, ErrLeaseLost) || err != nil && t.lapsed() {
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
func (t *tenancy) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.TTL/2) // so that one that hangs leaves time for another
	defer cancel()
	t.saving.Lock()
	defer t.saving.Unlock()
	asked, done := time.Now(), t.place()
	tenure, err := t.offsets.Save(ctx, t.tenure, done, t.cfg.TTL)
	if err != nil {
		return err
	}
	t.tenure = tenure
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = asked.Add(t.cfg.TTL)
	return nil
}

// release stores the place a last time and gives the lease up. What it cannot do
// within a moment does not matter: the lease expires, and what was done since
// the place was stored is done again.
func (t *tenancy) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if t.save(ctx) == nil {
		_ = t.offsets.Release(ctx, t.tenure)
	}
}
