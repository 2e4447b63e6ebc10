package cache

import (
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

// memory is what this process holds: the rows of all tables, and the lists, within one budget of bytes.
// A full one evicts what is least likely to be read again (W-TinyLFU), whatever it is.
type memory struct {
	values  *otter.Cache[memoryKey, held]
	regions []removalRecorder // by the region of a key; complete before the first value is held
}

// memoryKey is the key of a value: its region, and its id there.
type memoryKey struct {
	region uint8
	id     string
}

// held is a value in memory. Its weight is its approximate size in bytes, and never changes.
type held interface{ weight() uint32 }

// removalRecorder is a region of any values.
type removalRecorder interface {
	recordRemoval(e otter.DeletionEvent[memoryKey, held])
}

func newMemory(bytes int) *memory {
	m := &memory{}
	m.values = otter.Must(&otter.Options[memoryKey, held]{
		MaximumWeight:    uint64(max(1, bytes)), // the library refuses 0: the cache is off
		Weigher:          func(_ memoryKey, v held) uint32 { return v.weight() },
		OnAtomicDeletion: func(e otter.DeletionEvent[memoryKey, held]) { m.regions[e.Key.region].recordRemoval(e) },
	})
	return m
}

func (m *memory) clear() { m.values.InvalidateAll() }

func (m *memory) close() { m.values.StopAllGoroutines() }

// region is the part of memory that has values of one type: the rows of a table, or the lists.
type region[V held] struct {
	memory         *memory
	number         uint8
	removed        func(id string, v V) // runs before another goroutine can miss the value, unless a newer one replaces it
	entries, bytes atomic.Int64
}

func newRegion[V held](m *memory, removed func(id string, v V)) *region[V] {
	r := &region[V]{memory: m, number: uint8(len(m.regions)), removed: removed} //nolint:gosec // a handful
	m.regions = append(m.regions, r)
	return r
}

func (r *region[V]) get(id string) (v V, ok bool) {
	found, ok := r.memory.values.GetIfPresent(memoryKey{r.number, id})
	if !ok {
		return v, false
	}
	v, ok = found.(V)
	return v, ok
}

func (r *region[V]) set(id string, v V) {
	r.compute(id, func(V, bool) (V, otter.ComputeOp) { return v, otter.WriteOp })
}

// compute changes the value of an id by fn, while no other goroutine changes it.
func (r *region[V]) compute(id string, fn func(old V, found bool) (V, otter.ComputeOp)) {
	r.memory.values.Compute(memoryKey{r.number, id}, func(old held, found bool) (held, otter.ComputeOp) {
		before, _ := old.(V)
		v, op := fn(before, found)
		if op == otter.WriteOp {
			r.entries.Add(1)
			r.bytes.Add(int64(v.weight()))
		}
		return v, op
	})
}

// recordRemoval implements removalRecorder.
func (r *region[V]) recordRemoval(e otter.DeletionEvent[memoryKey, held]) {
	r.entries.Add(-1)
	r.bytes.Add(-int64(e.Value.weight()))
	v, ok := e.Value.(V)
	if ok && r.removed != nil && e.Cause != otter.CauseReplacement {
		r.removed(e.Key.id, v)
	}
}

// addSize adds the number and the bytes of the values to a snapshot.
func (r *region[V]) addSize(l *Level) {
	l.Entries, l.Bytes = uint64(max(0, r.entries.Load())), uint64(max(0, r.bytes.Load()))
}
