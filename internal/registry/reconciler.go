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

// ReconcilerConfig tunes a Reconciler. The zero value is ready to use.
type ReconcilerConfig struct {
	Owner         string        // names this node as owner of the lease; default: without a name, see lease.NewOwner
	Interval      time.Duration // between two rounds of the loop; default 1 s
	LeaseTTL      time.Duration // of the loop's lease, after which another node takes over; default 4 s
	Grace         time.Duration // by which an instance's lease may be overdue, as renewals are written once a second; default 1.5 s
	RemoveAfter   int           // times to live for which an instance may be late before it is removed; default 10
	FailureWindow time.Duration // see MassFailureGuard; default 1 min
	MaxDegraded   time.Duration // see MassFailureGuard; default 1 h
	CheckSkew     func() error  // returns why this node must not run the loop, or nil; by default it may
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

// reconcilerLease is the name of the lease of the reconcile loop, as it is stored.
const reconcilerLease = "registry.keeper"

// Reconciler runs the reconcile loop on one node at a time: an instance whose lease is overdue
// becomes critical and is removed later; one that renews passes again. The node also runs the
// health checks.
//
// It expires only leases that it could watch. When it takes the loop over, or could not run it
// for a while, it extends every lease to a whole time to live: renewals that no node wrote
// say nothing about instances.
type Reconciler struct {
	store     ReconcileStore
	leases    lease.Store
	head      func() event.Position
	directory *Directory
	checker   *checker
	now       func() time.Time
	log       *slog.Logger
	cfg       ReconcilerConfig

	held      *lease.Held // nil while another node runs the loop
	lastRound time.Time   // when the last round succeeded
}

// NewReconciler returns a Reconciler that does nothing until Run is called. Head returns the
// position up to which the node has read the log: the lease is stored like that of a consumer
// whose offset is there.
func NewReconciler(store ReconcileStore, leases lease.Store, head func() event.Position, d *Directory, p Prober, now func() time.Time, log *slog.Logger, cfg ReconcilerConfig) (*Reconciler, error) {
	cfg = cfg.withDefaults()
	if cfg.Interval < 0 || cfg.Grace < 0 || cfg.RemoveAfter < 0 || cfg.FailureWindow < 0 || cfg.MaxDegraded < 0 || cfg.LeaseTTL <= 2*cfg.Interval {
		return nil, fmt.Errorf("reconciler config: a negative value, or a LeaseTTL of at most two intervals, in %+v", cfg)
	}
	return &Reconciler{
		store: store, leases: leases, head: head, directory: d, checker: newChecker(d, p, now), now: now, log: log, cfg: cfg,
	}, nil
}

// Run runs the loop whenever this node holds the lease, until ctx is cancelled. It then releases
// the lease, so that another node goes on at once.
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
				r.log.ErrorContext(ctx, "reconciling the registry failed; the next round tries again", "error", err)
			}
		}
	}
}

func (r *Reconciler) reconcile(ctx context.Context) error {
	if check := r.cfg.CheckSkew; check != nil && check() != nil {
		r.giveUpLease(ctx)
		return nil //nolint:nilerr // the clock reports it
	}
	if err := r.holdLease(ctx); err != nil || r.held == nil {
		return err
	}
	if r.now().Sub(r.lastRound).Abs() > r.cfg.Interval+r.cfg.Grace { // also after a step of the clock
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
	if err := r.recordChecks(ctx); err != nil {
		return err
	}
	r.lastRound = r.now()
	return nil
}

// recordChecks stores what the last checks came to. What cannot be stored is dropped: the next check of
// the instance comes soon.
func (r *Reconciler) recordChecks(ctx context.Context) error {
	reports := r.checker.reportsToStore()
	if len(reports) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL/2)
	defer cancel()
	return r.store.RecordChecks(ctx, r.held.Lease(), reports)
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

// evaluateAll evaluates services for at most half of the lease's time to live, and renews the
// lease meanwhile. The rest is still due in the next round: when much fails at once a round must
// end, or its late start would make the next one extend all leases.
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

// maxDueServices bounds the services that one round evaluates.
const maxDueServices = 1000

// holdLease acquires or renews the lease of the loop.
func (r *Reconciler) holdLease(ctx context.Context) error {
	if r.held != nil {
		return r.held.Renew(ctx, r.head())
	}
	held, ok, err := lease.Acquire(ctx, r.leases, reconcilerLease, r.cfg.Owner, r.head(), r.cfg.LeaseTTL)
	if err != nil || !ok {
		return err
	}
	r.held, r.lastRound = held, time.Time{}
	r.log.InfoContext(ctx, "reconcile loop started", "epoch", held.Lease().Epoch)
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
	if fault.Is(err, CodeServiceNotFound) {
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

// evaluateInstances applies the states of leases and the results of checks to the instances, and
// the mass-failure guard to the service. While the service is degraded, an instance that it keeps
// in use is not removed, unless it refuses connections.
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
			if f.gone && i.LateSince != nil && s.keeps(i) {
				i.Remove(at)
			}
		}
	}
	s.EvaluateMassFailure(all, g, at)
	for _, i := range all {
		kept := i.Status == Critical && s.InUse(i)
		if v := leases[i.ID]; !i.Removed && v.RemovalDue && !v.Current && i.LateSince != nil && !kept {
			i.Remove(at)
		}
	}
}

// interleave returns the services to evaluate, alternately from the due ones and from those with
// new check results, as a round may stop before its end.
func interleave(due []uid.Service, failures map[uid.Service]map[uid.Instance]checkResult) (list []uid.Service) {
	checked := slices.Collect(maps.Keys(failures))
	seen := make(map[uid.Service]bool, len(due)+len(checked))
	for n := range max(len(due), len(checked)) {
		for _, ids := range [][]uid.Service{due, checked} {
			if n < len(ids) && !seen[ids[n]] {
				seen[ids[n]] = true
				list = append(list, ids[n])
			}
		}
	}
	return list
}

// giveUpLease leaves the loop to another node.
func (r *Reconciler) giveUpLease(ctx context.Context) {
	if r.held == nil {
		return
	}
	r.log.WarnContext(ctx, "reconcile loop given up, as the clock of this node is wrong")
	r.releaseLease(ctx)
	r.checker.stop()
	r.held = nil
}

func (r *Reconciler) releaseLease(ctx context.Context) {
	if r.held == nil {
		return
	}
	if err := r.held.Release(ctx); err != nil {
		r.log.WarnContext(ctx, "the lease of the reconcile loop was not released; it will expire", "error", err)
	}
}
