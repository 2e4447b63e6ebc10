package policy

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"
)

// ring gives keys to members so that few keys move when the members change. It
// is multi-probe consistent hashing (Appleton and O'Reilly, 2015): each member has
// some points on a circle, and of several probes of a key the one that lies
// closest before a point decides. With 21 probes no member gets more than about 1.05 times
// its share, however few its points; a plain ring needs hundreds of them each.
type ring struct {
	points []point
	guide  []int32 // by the upper bits of a hash: the first point that may follow it
	shift  uint
}

type point struct {
	hash   uint64
	member int32
}

const (
	probes         = 21
	pointsPerShare = 16      // of a member of weight 1
	maxPoints      = 1 << 21 // of all; then every member has half as many, or a quarter, but one at least
)

// ringOnce is a ring that is made when it is first asked for.
type ringOnce struct {
	once    sync.Once
	members []*member
	ring    ring
}

func (r *ringOnce) get() *ring {
	r.once.Do(func() { r.ring = newRing(r.members) })
	return &r.ring
}

// newRing makes the ring of the members. It depends on nothing but their ids and
// weights, so that all nodes give a key to the same member.
func newRing(members []*member) ring {
	total := 0
	for _, m := range members {
		total += m.instance.Load().Weight * pointsPerShare
	}
	halvings := 0
	for total>>halvings > maxPoints {
		halvings++
	}
	var r ring
	for i, m := range members {
		seed := hashOf(m.name)
		for n := range max(1, m.instance.Load().Weight*pointsPerShare>>halvings) {
			r.points = append(r.points, point{mixBits(seed + uint64(n)*golden), int32(i)})
		}
	}
	slices.SortFunc(r.points, func(a, b point) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.member, b.member)) })
	r.shift = uint(64 - bits.Len(uint(len(r.points))))
	r.guide = make([]int32, 1<<(64-r.shift))
	next := 0
	for entry := range r.guide {
		for next < len(r.points) && r.points[next].hash < uint64(entry)<<r.shift {
			next++
		}
		r.guide[entry] = int32(next)
	}
	return r
}

// pointAfter returns the index of the first point at or behind the hash.
func (r *ring) pointAfter(hash uint64) int {
	i := int(r.guide[hash>>r.shift])
	for i < len(r.points) && r.points[i].hash < hash {
		i++
	}
	if i == len(r.points) {
		return 0
	}
	return i
}

// owner returns the member that has the key among those that are usable, or
// noMember if no probe meets one.
func (r *ring) owner(key uint64, usable func(member int32) bool) int32 {
	owner, nearest := int32(noMember), uint64(0)
	for n := range uint64(probes) {
		probe := mixBits(key + n*golden)
		p := r.points[r.pointAfter(probe)]
		if gap := p.hash - probe; (owner == noMember || gap < nearest) && usable(p.member) {
			owner, nearest = p.member, gap
		}
	}
	return owner
}

// pickByKey picks by the key: its owner or, while that is ejected, the next
// owner.
func (b *Balancer) pickByKey(c *candidates, key string) *member {
	r, all := c.ring.get(), c.ring.members
	usable := func(i int32) bool { return c.panic || !all[i].ejected.Load() }
	if i := r.owner(mixBits(hashOf(key)), usable); i != noMember {
		return all[i]
	}
	return c.retry(func() *member { return c.random() })
}

// golden is the golden section of 2^64: its multiples lie far apart.
const golden = 0x9e3779b97f4a7c15

// hashOf is FNV-1a of 64 bits: equal on every node and in every release.
func hashOf(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// mixBits makes every bit of a number depend on all others (SplitMix64).
func mixBits(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
