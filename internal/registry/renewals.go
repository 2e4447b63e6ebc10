package registry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// flushEvery is how often a node writes the renewals that it received.
const flushEvery = time.Second

// renewals buffers the renewals since the last flush, at most one for each instance.
type renewals struct {
	mu         sync.Mutex
	pending    map[uid.Instance]Renewal
	receivedAt map[uid.Instance]time.Time
}

func newRenewals() *renewals {
	return &renewals{pending: map[uid.Instance]Renewal{}, receivedAt: map[uid.Instance]time.Time{}}
}

func (r *renewals) add(n Renewal, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[n.Instance].Incarnation <= n.Incarnation {
		r.pending[n.Instance], r.receivedAt[n.Instance] = n, at
	}
}

// drain removes and returns all renewals, with their ages.
func (r *renewals) drain(now time.Time) []Renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Renewal, 0, len(r.pending))
	for id, n := range r.pending {
		n.Age = max(0, now.Sub(r.receivedAt[id]))
		all = append(all, n)
	}
	clear(r.pending)
	clear(r.receivedAt)
	return all
}

// restore puts renewals back that could not be written, unless there are newer ones.
func (r *renewals) restore(all []Renewal, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range all {
		if _, newer := r.pending[n.Instance]; !newer {
			r.pending[n.Instance], r.receivedAt[n.Instance] = n, now.Add(-n.Age)
		}
	}
}

// Run writes renewals once a second until ctx is cancelled, and then the
// last ones. Those that cannot be written are kept for the next time.
func (r *Registrar) Run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.flushRenewals(ctx, log)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushEvery)
			defer cancel()
			r.flushRenewals(last, log)
			return nil
		}
	}
}

func (r *Registrar) flushRenewals(ctx context.Context, log *slog.Logger) {
	now := r.now()
	all := r.renewals.drain(now)
	if len(all) == 0 {
		return
	}
	if err := r.store.Renew(ctx, all); err != nil {
		r.renewals.restore(all, now)
		if ctx.Err() == nil {
			log.WarnContext(ctx, "writing renewals failed; the next flush tries again", "instances", len(all), "error", err)
		}
	}
}
