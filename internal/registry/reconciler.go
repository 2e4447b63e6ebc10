package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ReconcilerConfig tunes a Keeper. The zero value is ready to use.
type ReconcilerConfig struct {
	Owner         string        // this node, as other nodes are to know it; default one without a name, see lease.NewOwner
	Interval      time.Duration // between two rounds; default 1 s
	LeaseTTL      time.Duration // after which another node takes over; default 4 s
	Grace         time.Duration // that a lease may be over, as renewals are written once a second; default 1.5 s
	RemoveAfter   int           // an instance is removed that was critical for so many times its lease; default 10
	FailureWindow time.Duration // see Guard; default 1 min
	MaxDegraded   time.Duration // see Guard; default 1 h
}

func (c ReconcilerConfig) withDefaults() ReconcilerConfig {
	if c.Owner == "" {
		c.Owner = lease.NewOwner("")
	}
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 4*time.Second)
	c.Grace = cmp.Or(c.Grace, flushEvery+flushEvery/2)
	c.RemoveAfter = cmp.Or(c.RemoveAfter, 10)
	c.FailureWindow = cmp.Or(c.FailureWindow, time.Minute)
	c.MaxDegraded = cmp.Or(c.MaxDegraded, time.Hour)
	return c
}

// reconcilerLease is the name under which the one Keeper holds its tenure.
const reconcilerLease = "registry.keeper"

// Reconciler judges, on one node at a time: who is late becomes critical and is later
// removed, who comes back passes. Checks of instances run beside it.
//
// It judges only what it has watched. When it takes over, or could not look for
// a while, it grants every lease a whole time to live: that nobody wrote renewals down
// says nothing about instances.
type Reconciler struct {
	store     ReconcileStore
	leases    lease.Offsets
	head      func() event.Position
	directory *Directory
	checker   *checker
	now       func() time.Time
	log       *slog.Logger
	cfg       ReconcilerConfig

	held      *lease.Held // nil while another node judges
	lastRound time.Time   // when the last round went well
}

// NewReconciler returns a Keeper that does nothing until Run is called. Head is how far the
// node has read the log: the tenure is kept like that of a reader who is done with all of it.
func NewReconciler(store ReconcileStore, leases lease.Offsets, head func() event.Position, d *Directory, p Prober, now func() time.Time, log *slog.Logger, cfg ReconcilerConfig) (*Reconciler, error) {
	cfg = cfg.withDefaults()
	if cfg.Interval < 0 || cfg.Grace < 0 || cfg.RemoveAfter < 0 || cfg.FailureWindow < 0 || cfg.MaxDegraded < 0 || cfg.LeaseTTL <= 2*cfg.Interval {
		return nil, fmt.Errorf("keeper config: a negative value, or a Tenure that does not outlast two rounds, in %+v", cfg)
	}
	return &Reconciler{
		store: store, leases: leases, head: head, directory: d, checker: newChecker(d, p, now), now: now, log: log, cfg: cfg,
	}, nil
}

// Run judges, or waits until it may, until ctx is cancelled. It then gives up, so
// that another node goes on at once.
func (r *Reconciler) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	defer r.releaseLease(ctx)
	for {
		select {
		case <-ctx.Done():
			r.checker.stop()
			return nil
		case <-tick.C: // first, so that the log has been read once
		}
		if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
			r.held = nil
			r.checker.stop()
			if !errors.Is(err, lease.ErrLost) {
				r.log.ErrorContext(ctx, "judging the registry failed", "error", err)
			}
		}
	}
}

func (r *Reconciler) reconcile(ctx context.Context) error {
	if err := r.holdLease(ctx); err != nil || r.held == nil {
		return err
	}
	if r.now().Sub(r.lastRound) > r.cfg.Interval+r.cfg.Grace {
		return r.extendLeases(ctx)
	}
	ids, err := r.dueServices(ctx)
	if err != nil {
		return err
	}
	failures := r.checker.collectFailures(ctx)
	if err := r.evaluateAll(ctx, interleave(ids, failures), failures); err != nil {
		return err
	}
	r.lastRound = r.now()
	return nil
}

func (r *Reconciler) extendLeases(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL/2)
	defer cancel()
	if err := r.store.ExtendAllLeases(ctx, r.held.Lease()); err != nil {
		return err
	}
	r.lastRound = r.now()
	return nil
}

func (r *Reconciler) dueServices(ctx context.Context) ([]uid.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL/2)
	defer cancel()
	return r.store.DueServices(ctx, r.cfg.Grace, r.cfg.RemoveAfter, maxDueServices)
}

// evaluateAll judges services for half of a tenure, which it renews meanwhile. What it
// does not come to is still due in the next round: when much fails at once a round
// must end, or nobody is late in the end.
func (r *Reconciler) evaluateAll(ctx context.Context, ids []uid.Service, failures map[uid.Service]map[uid.Instance]checkResult) error {
	began := r.now()
	renewed := began
	for _, id := range ids {
		now := r.now()
		if now.Sub(began) >= r.cfg.LeaseTTL/2 {
			return nil
		}
		if now.Sub(renewed) >= r.cfg.LeaseTTL/4 {
			if err := r.holdLease(ctx); err != nil {
				return err
			}
			renewed = now
		}
		if err := r.evaluateService(ctx, id, failures[id]); err != nil {
			return err
		}
	}
	return nil
}

// maxDueServices bounds the services that one round judges.
const maxDueServices = 1000

// holdLease takes or renews the tenure.
func (r *Reconciler) holdLease(ctx context.Context) error {
	if r.held != nil {
		return r.held.Renew(ctx, r.head())
	}
	held, ok, err := lease.Acquire(ctx, r.leases, reconcilerLease, r.cfg.Owner, r.head(), r.cfg.LeaseTTL)
	if err != nil || !ok {
		return err
	}
	r.held, r.lastRound = held, time.Time{}
	r.log.InfoContext(ctx, "this node judges the registry", "epoch", held.Lease().Epoch)
	return nil
}

func (r *Reconciler) evaluateService(ctx context.Context, id uid.Service, failures map[uid.Instance]checkResult) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL/2)
	defer cancel()
	s, changed, err := r.store.EvaluateService(ctx, r.held.Lease(), id, r.cfg.Grace, r.cfg.RemoveAfter,
		func(s *Service, all []*Instance, leases map[uid.Instance]LeaseState) error {
			at := r.now()
			evaluateInstances(s, all, leases, failures, MassFailureGuard{r.cfg.FailureWindow, r.cfg.MaxDegraded}, at)
			return nil
		})
	if fault.Is(err, fault.ServiceNotFound) {
		return nil // its row is gone, as after a restore: there is nothing to evaluate, and others are due
	}
	if err != nil {
		return err
	}
	r.directory.ApplyService(s)
	for _, i := range changed {
		r.directory.ApplyInstance(i)
	}
	return nil
}

// evaluateInstances changes the instances by what their leases and checks say, and the
// service by what its instances are then. While the news is doubted nobody who
// was well before is removed.
func evaluateInstances(s *Service, all []*Instance, leases map[uid.Instance]LeaseState, failures map[uid.Instance]checkResult, g MassFailureGuard, at time.Time) {
	for _, i := range all {
		switch v := leases[i.ID]; {
		case v.Overdue:
			i.ExpireLease(at)
		case v.Current:
			i.RenewLease(at)
		}
		if f, ok := failures[i.ID]; ok && f.incarnation == i.Incarnation {
			i.SetCheckFailure(f.failure, at)
		}
	}
	s.EvaluateMassFailure(all, g, at)
	for _, i := range all {
		kept := i.Status == Critical && s.InUse(i)
		if v := leases[i.ID]; v.RemovalDue && !v.Current && i.LateSince != nil && !kept {
			i.Remove(at)
		}
	}
}

// interleave is whom to judge, by the docket and by what checks say in turn, as a round
// may not come to its end.
func interleave(docket []uid.Service, failures map[uid.Service]map[uid.Instance]checkResult) (list []uid.Service) {
	checked := slices.Collect(maps.Keys(failures))
	seen := make(map[uid.Service]bool, len(docket)+len(checked))
	for n := range max(len(docket), len(checked)) {
		for _, ids := range [][]uid.Service{docket, checked} {
			if n < len(ids) && !seen[ids[n]] {
				seen[ids[n]] = true
				list = append(list, ids[n])
			}
		}
	}
	return list
}

func (r *Reconciler) releaseLease(ctx context.Context) {
	if r.held == nil {
		return
	}
	if err := r.held.Release(ctx); err != nil {
		r.log.WarnContext(ctx, "the tenure of the registry's keeper was not given up; it will expire", "error", err)
	}
}
