package policy

import (
	"math"
	"sync"
	"sync/atomic"
)

// leastLoaded finds the member with the fewest calls for its weight. It is a knock-out
// tournament: the winner stands at its root, and a member whose calls change
// plays its way up again, in logarithmic time. It is idle until the first pick by it.
type leastLoaded struct {
	asked atomic.Bool

	mu              sync.Mutex
	members         []*member
	tree            []int32 // tree[1] is the winner, the winners of tree[n] play in tree[2n] and tree[2n+1]
	size            int     // leaves; a power of two
	now             uint64  // the pass of the last winner, before its win
	ignoreEjections bool    // ejections are ignored
}

// noMember is an empty leaf of the tree.
const noMember = -1

// passUnit is what one call costs a member of weight 1, in passes.
const passUnit = 1 << 24

// build sets the members up for the tournament. They keep their calls; a new
// member begins at the others' pass, not with all the turns that it has missed.
func (l *leastLoaded) build(members []*member, ignoreEjections bool) {
	if !l.asked.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.members {
		m.leaf = noMember
	}
	l.members, l.ignoreEjections = members, ignoreEjections
	for l.size = 1; l.size < len(members); l.size *= 2 { //nolint:revive // the statement is all there is
	}
	l.tree = make([]int32, 2*l.size)
	for i := range l.size {
		l.tree[l.size+i] = noMember
		if i < len(members) {
			m := members[i]
			m.leaf, m.pass = i, max(m.pass, l.now)
			m.load, m.share = m.calls(), m.weight.Load()
			l.tree[l.size+i] = int32(i)
		}
	}
	for n := l.size - 1; n > 0; n-- {
		l.tree[n] = l.better(l.tree[2*n], l.tree[2*n+1])
	}
}

// acquire counts a call for the winner and returns it, nil if there is none.
func (l *leastLoaded) acquire() *member {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tree == nil || l.tree[1] == noMember {
		return nil
	}
	m := l.members[l.tree[1]]
	m.localInflight.Add(1)
	l.now = m.pass
	m.pass += passUnit / uint64(m.share) //nolint:gosec // a weight is positive
	l.replay(m)
	return m
}

// update replays a member whose calls changed, or that was ejected or returned.
func (l *leastLoaded) update(m *member) {
	if !l.asked.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.leaf != noMember && m.leaf < len(l.members) && l.members[m.leaf] == m {
		l.replay(m)
	}
}

// replay reads a member's calls again and plays its way up.
func (l *leastLoaded) replay(m *member) {
	m.load = m.calls()
	if m.ejected.Load() && !l.ignoreEjections {
		m.load = math.MaxInt32 // after all others, and still comparable
	}
	for n := (l.size + m.leaf) / 2; n > 0; n /= 2 {
		l.tree[n] = l.better(l.tree[2*n], l.tree[2*n+1])
	}
}

// better returns the member with fewer calls for its weight; of two that have the same,
// the one with fewer turns for its weight.
func (l *leastLoaded) better(a, b int32) int32 {
	if a == noMember || b == noMember {
		return max(a, b)
	}
	x, y := l.members[a], l.members[b]
	switch d := x.load*y.share - y.load*x.share; {
	case d < 0 || d == 0 && x.pass <= y.pass:
		return a
	default:
		return b
	}
}

// pickLeastLoaded picks by least connections, and counts the call.
func (b *Balancer) pickLeastLoaded() *member {
	if !b.least.asked.Swap(true) {
		b.mu.Lock()
		c := b.current.Load()
		b.least.build(c.members, c.panic)
		b.mu.Unlock()
	}
	return b.least.acquire()
}
