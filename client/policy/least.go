package policy

import (
	"math"
	"sync"
	"sync/atomic"
)

// least finds the member with the fewest calls for its weight. It is a knock-out
// tournament: the winner stands at its root, and who has won or lost a call
// plays its way up again, which takes the logarithm of the members. It is idle
// until somebody asks for it.
type least struct {
	asked atomic.Bool

	mu      sync.Mutex
	members []*member
	tree    []int32 // tree[1] is the winner, the winners of tree[n] play in tree[2n] and tree[2n+1]
	size    int     // leaves; a power of two
	now     uint64  // the pass of the last winner, before its win
	blind   bool    // ejections are ignored
}

// nobody is an empty leaf of the tree.
const nobody = -1

// passUnit is what one call costs a member of weight 1, in passes.
const passUnit = 1 << 24

// build sets the members up for the tournament. They keep their calls; who is new begins
// where the others are, not with all the turns that it has missed.
func (l *least) build(members []*member, blind bool) {
	if !l.asked.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.members {
		m.leaf = nobody
	}
	l.members, l.blind = members, blind
	for l.size = 1; l.size < len(members); l.size *= 2 { //nolint:revive // the statement is all there is
	}
	l.tree = make([]int32, 2*l.size)
	for i := range l.size {
		l.tree[l.size+i] = nobody
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

// take counts a call for the winner and returns it, nil if there is none.
func (l *least) take() *member {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tree == nil || l.tree[1] == nobody {
		return nil
	}
	m := l.members[l.tree[1]]
	m.here.Add(1)
	l.now = m.pass
	m.pass += passUnit / uint64(m.share) //nolint:gosec // a weight is positive
	l.play(m)
	return m
}

// moved says that the member has won or lost a call, or went out or came back.
func (l *least) moved(m *member) {
	if !l.asked.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.leaf != nobody && m.leaf < len(l.members) && l.members[m.leaf] == m {
		l.play(m)
	}
}

// play takes a member's calls anew and plays its way up.
func (l *least) play(m *member) {
	m.load = m.calls()
	if m.out.Load() && !l.blind {
		m.load = math.MaxInt32 // behind everybody, and still comparable
	}
	for n := (l.size + m.leaf) / 2; n > 0; n /= 2 {
		l.tree[n] = l.better(l.tree[2*n], l.tree[2*n+1])
	}
}

// better returns who has fewer calls for its weight; of two that have the same,
// who has had fewer turns for its weight.
func (l *least) better(a, b int32) int32 {
	if a == nobody || b == nobody {
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

// leastLoaded picks by least connections, and counts the call.
func (b *Balancer) leastLoaded() *member {
	if !b.least.asked.Swap(true) {
		b.mu.Lock()
		c := b.current.Load()
		b.least.build(c.members, c.panic)
		b.mu.Unlock()
	}
	return b.least.take()
}
