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

// KeeperConfig tunes a Keeper. The zero value is ready to use.
type KeeperConfig struct {
	Holder   string        // this node, as other nodes are to know it; default one without a name, see lease.NewOwner
	Interval time.Duration // between two rounds; default 1 s
	Tenure   time.Duration // after which another node takes over; default 4 s
	Grace    time.Duration // that a lease may be over, as renewals are written once a second; default 1.5 s
	Patience int           // an instance is removed that was critical for so many times its lease; default 10
	Window   time.Duration // see Guard; default 1 min
	Hold     time.Duration // see Guard; default 1 h
}

func (c KeeperConfig) withDefaults() KeeperConfig {
	if c.Holder == "" {
		c.Holder = lease.NewOwner("")
	}
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Tenure = cmp.Or(c.Tenure, 4*time.Second)
	c.Grace = cmp.Or(c.Grace, flushEvery+flushEvery/2)
	c.Patience = cmp.Or(c.Patience, 10)
	c.Window = cmp.Or(c.Window, time.Minute)
	c.Hold = cmp.Or(c.Hold, time.Hour)
	return c
}

// keeperName is the name under which the one Keeper holds its tenure.
const keeperName = "registry.keeper"

// Keeper judges, on one node at a time: who is late becomes critical and is later
// removed, who comes back passes. Checks of instances run beside it.
//
// It judges only what it has watched. When it takes over, or could not look for
// a while, it grants every lease a whole time to live: that nobody wrote renewals down
// says nothing about instances.
type Keeper struct {
	bench     Bench
	tenures   lease.Offsets
	head      func() event.Position
	directory *Directory
	checker   *checker
	now       func() time.Time
	log       *slog.Logger
	cfg       KeeperConfig

	held   *lease.Held // nil while another node judges
	looked time.Time   // when the last round went well
}

// NewKeeper returns a Keeper that does nothing until Run is called. Head is how far the
// node has read the log: the tenure is kept like that of a reader who is done with all of it.
func NewKeeper(b Bench, tenures lease.Offsets, head func() event.Position, d *Directory, p Prober, now func() time.Time, log *slog.Logger, cfg KeeperConfig) (*Keeper, error) {
	cfg = cfg.withDefaults()
	if cfg.Interval < 0 || cfg.Grace < 0 || cfg.Patience < 0 || cfg.Window < 0 || cfg.Hold < 0 || cfg.Tenure <= 2*cfg.Interval {
		return nil, fmt.Errorf("keeper config: a negative value, or a Tenure that does not outlast two rounds, in %+v", cfg)
	}
	return &Keeper{
		bench: b, tenures: tenures, head: head, directory: d, checker: newChecker(d, p, now), now: now, log: log, cfg: cfg,
	}, nil
}

// Run judges, or waits until it may, until ctx is cancelled. It then gives up, so
// that another node goes on at once.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Interval)
	defer tick.Stop()
	defer k.release(ctx)
	for {
		select {
		case <-ctx.Done():
			k.checker.stop()
			return nil
		case <-tick.C: // first, so that the log has been read once
		}
		if err := k.round(ctx); err != nil && ctx.Err() == nil {
			k.held = nil
			k.checker.stop()
			if !errors.Is(err, lease.ErrLost) {
				k.log.ErrorContext(ctx, "judging the registry failed", "error", err)
			}
		}
	}
}

func (k *Keeper) round(ctx context.Context) error {
	if err := k.hold(ctx); err != nil || k.held == nil {
		return err
	}
	if k.now().Sub(k.looked) > k.cfg.Interval+k.cfg.Grace {
		return k.grant(ctx)
	}
	ids, err := k.docket(ctx)
	if err != nil {
		return err
	}
	failures := k.checker.round(ctx)
	if err := k.judgeAll(ctx, agenda(ids, failures), failures); err != nil {
		return err
	}
	k.looked = k.now()
	return nil
}

func (k *Keeper) grant(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Tenure/2)
	defer cancel()
	if err := k.bench.Grant(ctx, k.held.Lease()); err != nil {
		return err
	}
	k.looked = k.now()
	return nil
}

func (k *Keeper) docket(ctx context.Context) ([]uid.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Tenure/2)
	defer cancel()
	return k.bench.Docket(ctx, k.cfg.Grace, k.cfg.Patience, docketSize)
}

// judgeAll judges services for half of a tenure, which it renews meanwhile. What it
// does not come to is still due in the next round: when much fails at once a round
// must end, or nobody is late in the end.
func (k *Keeper) judgeAll(ctx context.Context, ids []uid.Service, failures map[uid.Service]map[uid.Instance]verdict) error {
	began := k.now()
	renewed := began
	for _, id := range ids {
		now := k.now()
		if now.Sub(began) >= k.cfg.Tenure/2 {
			return nil
		}
		if now.Sub(renewed) >= k.cfg.Tenure/4 {
			if err := k.hold(ctx); err != nil {
				return err
			}
			renewed = now
		}
		if err := k.judge(ctx, id, failures[id]); err != nil {
			return err
		}
	}
	return nil
}

// docketSize bounds the services that one round judges.
const docketSize = 1000

// hold takes or renews the tenure.
func (k *Keeper) hold(ctx context.Context) error {
	if k.held != nil {
		return k.held.Renew(ctx, k.head())
	}
	held, ok, err := lease.Acquire(ctx, k.tenures, keeperName, k.cfg.Holder, k.head(), k.cfg.Tenure)
	if err != nil || !ok {
		return err
	}
	k.held, k.looked = held, time.Time{}
	k.log.InfoContext(ctx, "this node judges the registry", "epoch", held.Lease().Epoch)
	return nil
}

func (k *Keeper) judge(ctx context.Context, id uid.Service, failures map[uid.Instance]verdict) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Tenure/2)
	defer cancel()
	s, changed, err := k.bench.Judge(ctx, k.held.Lease(), id, k.cfg.Grace, k.cfg.Patience,
		func(s *Service, all []*Instance, leases map[uid.Instance]Verdict) error {
			at := k.now()
			sentence(s, all, leases, failures, Guard{k.cfg.Window, k.cfg.Hold}, at)
			return nil
		})
	if fault.Is(err, fault.ServiceNotFound) {
		return nil // its row is gone, as after a restore: there is nothing to evaluate, and others are due
	}
	if err != nil {
		return err
	}
	k.directory.TakeService(s)
	for _, i := range changed {
		k.directory.TakeInstance(i)
	}
	return nil
}

// sentence changes the instances by what their leases and checks say, and the
// service by what its instances are then. While the news is doubted nobody who
// was well before is removed.
func sentence(s *Service, all []*Instance, leases map[uid.Instance]Verdict, failures map[uid.Instance]verdict, g Guard, at time.Time) {
	for _, i := range all {
		switch v := leases[i.ID]; {
		case v.Over:
			i.Late(at)
		case v.Held:
			i.Returned(at)
		}
		if f, ok := failures[i.ID]; ok && f.incarnation == i.Incarnation {
			i.Checked(f.failure, at)
		}
	}
	s.Weigh(all, g, at)
	for _, i := range all {
		kept := i.Status == Critical && s.InUse(i)
		if v := leases[i.ID]; v.Expired && !v.Held && i.LateSince != nil && !kept {
			i.Remove(at)
		}
	}
}

// agenda is whom to judge, by the docket and by what checks say in turn, as a round
// may not come to its end.
func agenda(docket []uid.Service, failures map[uid.Service]map[uid.Instance]verdict) (list []uid.Service) {
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

func (k *Keeper) release(ctx context.Context) {
	if k.held == nil {
		return
	}
	if err := k.held.Release(ctx); err != nil {
		k.log.WarnContext(ctx, "the tenure of the registry's keeper was not given up; it will expire", "error", err)
	}
}
