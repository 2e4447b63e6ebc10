package policy

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// member is what a Balancer knows of one instance.
type member struct {
	name           string // chosen by the instance's owner: it stays the same when the instance comes again
	instance       atomic.Pointer[Instance]
	fullWeight     int          // its weight after slow start
	weight         atomic.Int64 // its weight at the moment, in units of which full has ten
	localInflight  atomic.Int64 // calls in flight that were picked here
	remoteInflight atomic.Int64 // calls in flight of other nodes, as last set
	ejected        atomic.Bool  // ejected

	// Outcomes since they were last compared.
	consecutiveFailures atomic.Int32 // failures since the last success
	successes, failures atomic.Int64
	latencySum          atomic.Int64 // nanoseconds of the good ones

	// Under the Balancer's lock.
	slowStartFrom time.Time // since when it may be called
	ejectedUntil  time.Time // the end of its ejection
	ejections     int       // it was ejected, less the intervals without one since

	// Under the lock of least.
	leaf  int
	load  int64 // its calls, as the tournament knows them
	share int64
	pass  uint64 // its turns for its weight
}

func (m *member) calls() int64 { return m.localInflight.Load() + m.remoteInflight.Load() }

// Update makes these instances those that are picked. Instances that stay
// keep their state, and so do those that leave with calls in flight; another incarnation starts
// without the failures of the one before. It is safe for
// concurrent use; the last one counts.
func (b *Balancer) Update(instances []Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.allMembers()
	b.members, b.byID = make([]*member, len(instances)), make(map[string]*member, len(instances))
	b.ejected = 0
	for n := range instances {
		i := &instances[n]
		m := before[i.ID]
		if m == nil || m.instance.Load().Incarnation != i.Incarnation {
			m = &member{name: i.Name, leaf: noMember}
			m.remoteInflight.Store(int64(b.remoteInflight[i.ID]))
		}
		if m.slowStartFrom.Before(i.Since) {
			m.slowStartFrom = i.Since
		}
		m.instance.Store(i)
		m.fullWeight = i.Weight
		if m.ejected.Load() {
			b.ejected++
		}
		b.members[n], b.byID[i.ID] = m, m
	}
	b.departed = before
	maps.DeleteFunc(b.departed, func(id string, m *member) bool { return b.byID[id] != nil || m.localInflight.Load() == 0 })
	b.ring = &ringOnce{members: b.members}
	b.rebuild(b.now())
}

// allMembers returns the members by the ids of their instances, with those that have
// left. The caller holds the lock.
func (b *Balancer) allMembers() map[string]*member {
	all := maps.Clone(b.byID)
	maps.Copy(all, b.departed)
	return all
}

// slowStartSteps is in how many steps a new instance comes to its whole weight.
const slowStartSteps = 10

// rebuild makes what picks choose from, and sets when that changes by time alone.
// The caller holds the lock.
func (b *Balancer) rebuild(now time.Time) {
	b.returnEjected(now)
	c := &candidates{members: b.members, ring: b.ring}
	c.panic = float64(len(b.members)-b.ejected) < b.cfg.Panic*float64(len(b.members))
	if !c.panic && b.ejected > 0 {
		c.members = slices.DeleteFunc(slices.Clone(b.members), func(m *member) bool { return m.ejected.Load() })
	}
	weights := make([]uint64, len(c.members))
	cold := b.slowStartActive(now)
	for i, m := range c.members {
		w := m.fullWeight * slowStartSteps
		if cold {
			w = m.fullWeight * b.slowStartStep(m, now)
		}
		m.weight.Store(int64(w))
		weights[i] = uint64(w) //nolint:gosec // a weight is positive
	}
	c.wheel = newWheel(weights)
	b.current.Store(c)
	b.least.build(c.members, c.panic)
	b.rebuildAt.Store(b.nextRebuild(now, cold))
}

// slowStartActive reports whether slow starts count: not while no instance has been there
// for longer, as none could take the calls in the meantime.
func (b *Balancer) slowStartActive(now time.Time) bool {
	warm := slices.ContainsFunc(b.members, func(m *member) bool { return now.Sub(m.slowStartFrom) >= b.cfg.SlowStart })
	return warm && slices.ContainsFunc(b.members, func(m *member) bool { return now.Sub(m.slowStartFrom) < b.cfg.SlowStart })
}

// slowStartStep is how many tenths of its weight a member has: one at first, ten after
// the time of a slow start.
func (b *Balancer) slowStartStep(m *member, now time.Time) int {
	step := int(now.Sub(m.slowStartFrom)*slowStartSteps/b.cfg.SlowStart) + 1
	return min(max(step, 1), slowStartSteps)
}

// nextRebuild returns when members change by themselves: one is a step warmer, or its
// ejection ends.
func (b *Balancer) nextRebuild(now time.Time, cold bool) int64 {
	at := int64(never)
	for _, m := range b.members {
		if m.ejected.Load() {
			at = min(at, b.nanos(m.ejectedUntil))
		} else if w := b.slowStartStep(m, now); cold && w < slowStartSteps {
			at = min(at, b.nanos(m.slowStartFrom.Add(b.cfg.SlowStart*time.Duration(w)/slowStartSteps)))
		}
	}
	return at
}

// rebuildIfDue rebuilds if it is time to; one pick does so and others go on meanwhile.
func (b *Balancer) rebuildIfDue(at int64) {
	now := b.now()
	if b.nanos(now) < at || !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if b.rebuildAt.Load() <= b.nanos(now) {
		b.rebuild(now)
	}
}

// Inflight returns the calls in flight that were picked here, by the ids of
// instances; those without any are left out.
func (b *Balancer) Inflight() map[string]int {
	b.mu.Lock()
	members := b.allMembers()
	b.mu.Unlock()
	calls := map[string]int{}
	for id, m := range members {
		if n := m.localInflight.Load(); n > 0 {
			calls[id] = int(n)
		}
	}
	return calls
}

// SetRemoteInflight says which calls are in flight that others picked, by the ids of
// instances; also of those that come later.
func (b *Balancer) SetRemoteInflight(calls map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remoteInflight = calls
	for _, m := range b.members {
		if n := int64(calls[m.instance.Load().ID]); m.remoteInflight.Swap(n) != n {
			b.least.update(m)
		}
	}
}
