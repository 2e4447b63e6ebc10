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
	Holder        string        // this node, as other nodes are to know it; default one without a name, see lease.NewOwner
	Interval      time.Duration // between two rounds; default 1 s
	Tenure        time.Duration // after which another node takes over; default 4 s
	Grace         time.Duration // that a lease may be over, as renewals are written once a second; default 1.5 s
	RemoveAfter   int           // an instance is removed that was critical for so many times its lease; default 10
	FailureWindow time.Duration // see Guard; default 1 min
	MaxDegraded   time.Duration // see Guard; default 1 h
}

func (c ReconcilerConfig) withDefaults() ReconcilerConfig {
	if c.Holder == "" {
		c.Holder = lease.NewOwner("")
	}
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Tenure = cmp.Or(c.Tenure, 4*time.Second)
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
	tenures   lease.Offsets
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
func NewReconciler(b ReconcileStore, tenures lease.Offsets, head func() event.Position, d *Directory, p Prober, now func() time.Time, log *slog.Logger, cfg ReconcilerConfig) (*Reconciler, error) {
	cfg = cfg.withDefaults()
	if cfg.Interval < 0 || cfg.Grace < 0 || cfg.RemoveAfter < 0 || cfg.FailureWindow < 0 || cfg.MaxDegraded < 0 || cfg.Tenure <= 2*cfg.Interval {
		return nil, fmt.Errorf("keeper config: a negative value, or a Tenure that does not outlast two rounds, in %+v", cfg)
	}
	return &Reconciler{
		store: b, tenures: tenures, head: head, directory: d, checker: newChecker(d, p, now), now: now, log: log, cfg: cfg,
	}, nil
}

// Run judges, or waits until it may, until ctx is cancelled. It then gives up, so
// that another node goes on at once.
func (k *Reconciler) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Interval)
	defer tick.Stop()
	defer k.releaseLease(ctx)
	for {
		select {
		case <-ctx.Done():
			k.checker.stop()
			return nil
		case <-tick.C: // first, so that the log has been read once
		}
		if err := k.reconcile(ctx); err != nil && ctx.Err() == nil {
			k.held = nil
			k.checker.stop()
			if !errors.Is(err, lease.ErrLost) {
				k.log.ErrorContext(ctx, "judging the registry failed", "error", err)
			}
		}
	}
}

func (k *Reconciler) reconcile(ctx context.Context) error {
	if err := k.holdLease(ctx); err != nil || k.held == nil {
		return err
	}
	if k.now().Sub(k.lastRound) > k.cfg.Interval+k.cfg.Grace {
		return k.extendLeases(ctx)
	}
	ids, err := k.dueServices(ctx)
	if err != nil {
		return err
	}
	failures := k.checker.collectFailures(ctx)
	if err := k.evaluateAll(ctx, interleave(ids, failures), failures); err != nil {
		return err
	}
	k.lastRound = k.now()
	return nil
}

func (k *Reconciler) extendLeases(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Tenure/2)
	defer cancel()
	if err := k.store.ExtendAllLeases(ctx, k.held.Lease()); err != nil {
		return err
	}
	k.lastRound = k.now()
	return nil
}

func (k *Reconciler) dueServices(ctx context.Context) ([]uid.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Tenure/2)
	defer cancel()
	return k.store.DueServices(ctx, k.cfg.Grace, k.cfg.RemoveAfter, maxDueServices)
}

// evaluateAll judges services for half of a tenure, which it renews meanwhile. What it
// does not come to is still due in the next round: when much fails at once a round
// must end, or nobody is late in the end.
func (k *Reconciler) evaluateAll(ctx context.Context, ids []uid.Service, failures map[uid.Service]map[uid.Instance]checkResult) error {
	began := k.now()
	renewed := began
	for _, id := range ids {
		now := k.now()
		if now.Sub(began) >= k.cfg.Tenure/2 {
			return nil
		}
		if now.Sub(renewed) >= k.cfg.Tenure/4 {
			if err := k.holdLease(ctx); err != nil {
				return err
			}
			renewed = now
		}
		if err := k.evaluateService(ctx, id, failures[id]); err != nil {
			return err
		}
	}
	return nil
}

// maxDueServices bounds the services that one round judges.
const maxDueServices = 1000

// holdLease takes or renews the tenure.
func (k *Reconciler) holdLease(ctx context.Context) error {
	if k.held != nil {
		return k.held.Renew(ctx, k.head())
	}
	held, ok, err := lease.Acquire(ctx, k.tenures, reconcilerLease, k.cfg.Holder, k.head(), k.cfg.Tenure)
	if err != nil || !ok {
		return err
	}
	k.held, k.lastRound = held, time.Time{}
	k.log.InfoContext(ctx, "this node judges the registry", "epoch", held.Lease().Epoch)
	return nil
}

func (k *Reconciler) evaluateService(ctx context.Context, id uid.Service, failures map[uid.Instance]checkResult) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Tenure/2)
	defer cancel()
	s, changed, err := k.store.EvaluateService(ctx, k.held.Lease(), id, k.cfg.Grace, k.cfg.RemoveAfter,
		func(s *Service, all []*Instance, leases map[uid.Instance]LeaseState) error {
			at := k.now()
			evaluateInstances(s, all, leases, failures, MassFailureGuard{k.cfg.FailureWindow, k.cfg.MaxDegraded}, at)
			return nil
		})
	if fault.Is(err, fault.ServiceNotFound) {
		return nil // its row is gone, as after a restore: there is nothing to evaluate, and others are due
	}
	if err != nil {
		return err
	}
	k.directory.ApplyService(s)
	for _, i := range changed {
		k.directory.ApplyInstance(i)
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

func (k *Reconciler) releaseLease(ctx context.Context) {
	if k.held == nil {
		return
	}
	if err := k.held.Release(ctx); err != nil {
		k.log.WarnContext(ctx, "the tenure of the registry's keeper was not given up; it will expire", "error", err)
	}
}
