package cache

import (
	"hash/maphash"
	"sync/atomic"
)

// slots is how many places of change the keys share: 128 KiB. Two keys that share
// one void one another's reads, which costs a fill and is never wrong.
const slots = 1 << 14

// token is a moment in the order of this process's changes. It is taken before a
// read, which is then worth keeping only if nothing was voided since.
type token uint64

// clock tells whether a key was voided since a token was taken. It knows every
// key, cached or not, for ever and in bounded memory; so unlike a tombstone it
// cannot be evicted and does not expire.
type clock struct {
	seed maphash.Seed
	now  atomic.Uint64
	all  atomic.Uint64 // when everything was voided last
	last [slots]atomic.Uint64
}

func newClock() *clock { return &clock{seed: maphash.MakeSeed()} }

func (c *clock) take() token { return token(c.now.Load()) }

// void ends the worth of all tokens of the key that were taken before.
func (c *clock) void(k key) { raiseTo(&c.last[c.slot(k)], c.now.Add(1)) }

func (c *clock) voidAll() { raiseTo(&c.all, c.now.Add(1)) }

func (c *clock) holds(k key, t token) bool {
	return c.last[c.slot(k)].Load() <= uint64(t) && !c.isBeforeAll(t)
}

// isBeforeAll reports whether everything was voided since the token was taken.
func (c *clock) isBeforeAll(t token) bool { return c.all.Load() > uint64(t) }

func (c *clock) slot(k key) uint64 { return maphash.Comparable(c.seed, k) % slots }

// raiseTo sets a to n unless it is more already.
func raiseTo(a *atomic.Uint64, n uint64) {
	for {
		old := a.Load()
		if old >= n || a.CompareAndSwap(old, n) {
			return
		}
	}
}
