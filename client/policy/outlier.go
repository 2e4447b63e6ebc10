package policy

import (
	"slices"
	"time"
)

// outcome notes how a call of the member ended.
func (b *Balancer) outcome(m *member, ok bool, took time.Duration) {
	if ok {
		m.good.Add(1)
		m.took.Add(int64(took))
		m.inRow.Store(0)
	} else {
		m.bad.Add(1)
		if n := m.inRow.Add(1); int(n)%b.cfg.Failures == 0 {
			b.mu.Lock()
			b.eject(m, b.now())
			b.mu.Unlock()
		}
	}
	b.sweep()
}

// sweep compares the instances if it is time to.
func (b *Balancer) sweep() {
	now := b.now()
	if at := b.sweepAt.Load(); now.UnixNano() >= at && b.sweepAt.CompareAndSwap(at, now.Add(b.cfg.Interval).UnixNano()) && at != 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.compare(now)
	}
}

// many is how many members make a rebuild too dear to be done for each ejection.
const many = 1000

// eject takes the member out for a while, unless too many are out. The caller
// holds the lock.
func (b *Balancer) eject(m *member, now time.Time) {
	limit := int(b.cfg.MaxEjected * float64(len(b.members)))
	if m.out.Load() || b.byID[m.instance.Load().ID] != m || b.ejected >= limit {
		return
	}
	m.times++
	m.until = now.Add(min(b.cfg.Eject*time.Duration(m.times), b.cfg.MaxEject))
	m.out.Store(true)
	b.ejected++
	b.ejections.Add(1)
	b.least.moved(m)
	if len(b.members) <= many {
		b.rebuild(now)
		return
	}
	// Picks pass over it meanwhile, see choosable.retry.
	b.wakeAt.Store(min(b.wakeAt.Load(), now.Add(time.Duration(len(b.members))*10*time.Microsecond).UnixNano()))
}

// returnEjected lets those back whose time is over, as if they were new.
func (b *Balancer) returnEjected(now time.Time) {
	for _, m := range b.members {
		if m.out.Load() && !now.Before(m.until) {
			m.inRow.Store(0)
			m.good.Store(0)
			m.bad.Store(0)
			m.took.Store(0)
			m.warmFrom = now
			m.out.Store(false)
			b.ejected--
		}
	}
}

// record is what a member has done within an interval.
type record struct {
	m       *member
	success float64 // part of the calls
	took    float64 // nanoseconds of a good call
}

// compare ejects who did much worse than the median. When all do badly nobody
// is: it is not the instances then. The caller holds the lock.
func (b *Balancer) compare(now time.Time) {
	var records []record
	for _, m := range b.members {
		good, bad, took := m.good.Swap(0), m.bad.Swap(0), m.took.Swap(0)
		if n := good + bad; !m.out.Load() && n >= int64(b.cfg.MinOutcomes) {
			records = append(records, record{m, float64(good) / float64(n), float64(took) / float64(max(good, 1))})
		}
	}
	if len(records) < 3 { // of two nobody knows which is the odd one
		b.forgive(records, nil)
		return
	}
	success := median(records, func(r record) float64 { return r.success })
	took := median(records, func(r record) float64 { return r.took })
	var worse []*member
	for _, r := range records {
		if r.success < success*b.cfg.SuccessRatio || took > 0 && r.took > took*b.cfg.SlowRatio {
			worse = append(worse, r.m)
			b.eject(r.m, now)
		}
	}
	b.forgive(records, worse)
}

// forgive forgets one ejection of each member that behaved.
func (b *Balancer) forgive(records []record, worse []*member) {
	for _, r := range records {
		if r.m.times > 0 && !slices.Contains(worse, r.m) {
			r.m.times--
		}
	}
}

func median(records []record, of func(record) float64) float64 {
	values := make([]float64, len(records))
	for i, r := range records {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
