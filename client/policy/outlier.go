package policy

import (
	"slices"
	"time"
)

// recordOutcome records how a call of the member ended.
func (b *Balancer) recordOutcome(m *member, ok bool, took time.Duration) {
	if ok {
		m.successes.Add(1)
		m.latencySum.Add(int64(took))
		m.consecutiveFailures.Store(0)
	} else {
		m.failures.Add(1)
		if n := m.consecutiveFailures.Add(1); int(n)%b.cfg.Failures == 0 {
			b.mu.Lock()
			b.eject(m, b.now())
			b.mu.Unlock()
		}
	}
	b.compareIfDue()
}

// compareIfDue compares the instances if it is time to.
func (b *Balancer) compareIfDue() {
	now := b.now()
	if at := b.compareAt.Load(); b.nanos(now) >= at && b.compareAt.CompareAndSwap(at, b.nanos(now.Add(b.cfg.Interval))) && at != 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ejectOutliers(now)
	}
}

// largeSet is how many members make a rebuild too expensive for each ejection.
const largeSet = 1000

// eject ejects the member for a while, unless too many are ejected. The caller
// holds the lock.
func (b *Balancer) eject(m *member, now time.Time) {
	limit := int(b.cfg.MaxEjected * float64(len(b.members)))
	if m.ejected.Load() || b.byID[m.instance.Load().ID] != m || b.ejected >= limit {
		return
	}
	m.ejections++
	m.ejectedUntil = now.Add(min(b.cfg.Eject*time.Duration(m.ejections), b.cfg.MaxEject))
	m.ejected.Store(true)
	b.ejected++
	b.ejections.Add(1)
	b.least.update(m)
	if len(b.members) <= largeSet {
		b.rebuild(now)
		return
	}
	// Picks pass over it meanwhile, see choosable.retry.
	b.rebuildAt.Store(min(b.rebuildAt.Load(), b.nanos(now.Add(time.Duration(len(b.members))*10*time.Microsecond))))
}

// returnEjected returns members whose ejection is over, with a slow start.
func (b *Balancer) returnEjected(now time.Time) {
	for _, m := range b.members {
		if m.ejected.Load() && !now.Before(m.ejectedUntil) {
			m.consecutiveFailures.Store(0)
			m.successes.Store(0)
			m.failures.Store(0)
			m.latencySum.Store(0)
			m.slowStartFrom = now
			m.ejected.Store(false)
			b.ejected--
		}
	}
}

// memberStats is what a member has done within an interval.
type memberStats struct {
	m       *member
	success float64 // part of the calls
	took    float64 // nanoseconds of a good call
}

// ejectOutliers ejects members that did much worse than the median. When all do badly it ejects
// none: the instances are not the cause then. The caller holds the lock.
func (b *Balancer) ejectOutliers(now time.Time) {
	var records []memberStats
	for _, m := range b.members {
		good, bad, took := m.successes.Swap(0), m.failures.Swap(0), m.latencySum.Swap(0)
		if n := good + bad; !m.ejected.Load() && n >= int64(b.cfg.MinOutcomes) {
			records = append(records, memberStats{m, float64(good) / float64(n), float64(took) / float64(max(good, 1))})
		}
	}
	if len(records) < 3 { // of two, neither is known to be the outlier
		b.forgive(records, nil)
		return
	}
	success := median(records, func(r memberStats) float64 { return r.success })
	took := median(records, func(r memberStats) float64 { return r.took })
	var worse []*member
	for _, r := range records {
		if r.success < success*b.cfg.SuccessRatio || took > 0 && r.took > took*b.cfg.SlowRatio {
			worse = append(worse, r.m)
			b.eject(r.m, now)
		}
	}
	b.forgive(records, worse)
}

// forgive subtracts one ejection of each member that did not do worse.
func (b *Balancer) forgive(records []memberStats, worse []*member) {
	for _, r := range records {
		if r.m.ejections > 0 && !slices.Contains(worse, r.m) {
			r.m.ejections--
		}
	}
}

func median(records []memberStats, of func(memberStats) float64) float64 {
	values := make([]float64, len(records))
	for i, r := range records {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
