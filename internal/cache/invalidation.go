package cache

import (
	"hash/maphash"
	"sync/atomic"
)

// epochSlots is the number of counters that all keys share: 128 KiB. A change of one key invalidates
// the fill tokens of all keys in its slot, which costs a fill and is never wrong.
const epochSlots = 1 << 14

// fillToken is an invalidation epoch, taken before a read. The value read may be kept only if its key
// was not invalidated since.
type fillToken uint64

// invalidationEpochs records when each key was last invalidated. It covers all keys, cached or not,
// without end and in bounded memory; so unlike a tombstone an epoch is never evicted and does not expire.
type invalidationEpochs struct {
	seed    maphash.Seed
	current atomic.Uint64
	all     atomic.Uint64 // when everything was invalidated last
	last    [epochSlots]atomic.Uint64
}

func newInvalidationEpochs() *invalidationEpochs {
	return &invalidationEpochs{seed: maphash.MakeSeed()}
}

func (e *invalidationEpochs) newToken() fillToken { return fillToken(e.current.Load()) }

// invalidateKey invalidates all tokens of the key that were taken before.
func (e *invalidationEpochs) invalidateKey(k key) { raiseTo(&e.last[e.slot(k)], e.current.Add(1)) }

func (e *invalidationEpochs) invalidateAll() { raiseTo(&e.all, e.current.Add(1)) }

func (e *invalidationEpochs) isValid(k key, t fillToken) bool {
	return e.last[e.slot(k)].Load() <= uint64(t) && !e.predatesAll(t)
}

// predatesAll reports whether everything was invalidated since the token was taken.
func (e *invalidationEpochs) predatesAll(t fillToken) bool { return e.all.Load() > uint64(t) }

func (e *invalidationEpochs) slot(k key) uint64 { return maphash.Comparable(e.seed, k) % epochSlots }

// raiseTo sets a to n unless it is higher already.
func raiseTo(a *atomic.Uint64, n uint64) {
	for {
		old := a.Load()
		if old >= n || a.CompareAndSwap(old, n) {
			return
		}
	}
}
