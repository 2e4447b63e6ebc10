package cache

import (
	"context"
	"math/rand/v2"

	"github.com/maypok86/otter/v2"

	"github.com/backplane-dev/backplane/internal/event"
)

// shape says what a table must know of its values.
type shape[K ~string, V any] struct {
	entity  string // as touched rows name it
	share   float64
	read    func(context.Context, []K) (map[K]V, error)
	version func(V) int
	size    func(V) int // bytes, about
	decode  func(id K, data []byte) (V, error)
}

// table is the cache of one entity, by id, in front of a bulk read. Its values
// are shared by all who read them and are never changed.
type table[K ~string, V any] struct {
	shape[K, V]
	c       *Cache
	held    *otter.Cache[K, *entry[V]]
	flights flights[K, V]
	count   counters
}

// entry is a value in process memory. It replaces only older ones, and stays
// what it is.
type entry[V any] struct {
	value   V
	version int
	taken   token // before it was read
	at      int64 // when it was kept, in Unix nanoseconds
	expires int64
}

func newTable[K ~string, V any](c *Cache, s shape[K, V]) *table[K, V] {
	t := &table[K, V]{shape: s, c: c, flights: newFlights[K, V]()}
	t.held = otter.Must(&otter.Options[K, *entry[V]]{
		MaximumWeight:    uint64(float64(c.cfg.Bytes) * s.share),
		Weigher:          func(id K, e *entry[V]) uint32 { return uint32(entryOverhead + 2*len(id) + s.size(e.value)) }, //nolint:gosec // rows are small
		OnAtomicDeletion: t.evicted,
	})
	c.tables[s.entity] = t
	return t
}

// entryOverhead is what an entry costs beside its key and value, in bytes:
// itself, the node of the library and its place in the hash table.
const entryOverhead = 200

func (t *table[K, V]) key(id K) key { return key{t.entity, string(id)} }

// peek returns what process memory holds of the row and may be shown.
func (t *table[K, V]) peek(id K) (v V, ok bool) {
	e, found := t.held.GetIfPresent(id)
	if !found || !t.isGood(e) {
		return v, false
	}
	return e.value, true
}

// livePeek is peek, if this node knows what others have changed.
func (t *table[K, V]) livePeek(id K) (v V, ok bool) {
	if v, ok = t.peek(id); !ok || !t.c.live() {
		return v, false
	}
	t.count.hits.Add(1)
	return v, true
}

func (t *table[K, V]) isGood(e *entry[V]) bool {
	return e.expires > t.c.nanos() && !t.c.clock.isBeforeAll(e.taken)
}

// offer keeps a value that was read after the token was taken, unless it may be
// old. In either case the row is known in this version from here on.
func (t *table[K, V]) offer(id K, v V, taken token) {
	k, version, now := t.key(id), t.version(v), t.c.nanos()
	t.held.Compute(id, func(old *entry[V], found bool) (*entry[V], otter.ComputeOp) {
		switch {
		case t.c.careless:
		case found && old.version > version || t.c.floors.get(t.c.clock, k) > version:
			t.count.older.Add(1)
			return old, otter.CancelOp
		case found && old.version == version && t.isGood(old):
			return old, otter.CancelOp
		case !t.c.clock.holds(k, taken):
			t.count.void.Add(1)
			return old, t.rise(k, version, old, found)
		}
		life := t.c.cfg.TTL - rand.N(t.c.cfg.TTL/5) //nolint:gosec // spreads the ends of values that were read together
		return &entry[V]{v, version, taken, now, now + int64(life)}, otter.WriteOp
	})
}

// raise makes a version of the row known: what is older goes, and reads that
// may have begun before it are not kept.
func (t *table[K, V]) raise(id string, version int) {
	t.held.Compute(K(id), func(old *entry[V], found bool) (*entry[V], otter.ComputeOp) {
		return old, t.rise(key{t.entity, id}, version, old, found)
	})
}

// rise runs within Compute, so that nobody keeps anything for the id meanwhile.
func (t *table[K, V]) rise(k key, version int, old *entry[V], found bool) otter.ComputeOp {
	if found && old.version >= version {
		return otter.CancelOp
	}
	if t.c.floors.raise(t.c.clock, k, version, t.c.nanos()) {
		t.c.clock.void(k)
		t.c.bump(t.entity)
	}
	if found {
		return otter.InvalidateOp
	}
	return otter.CancelOp
}

// one keeps a row that is not read by its id.
func (t *table[K, V]) one(idOf func(V) K, read func() (V, error)) (V, error) {
	taken := t.take()
	v, err := read()
	if err == nil {
		t.offer(idOf(v), v, taken)
	}
	return v, err
}

// written runs a change. What it returns is not kept, as the row may have moved
// on since; but its version is known, and so are those that the change was shown
// by, also if it failed: a caller may get to see them.
func (t *table[K, V]) written(idOf func(V) K, shown map[K]*int, write func() (V, error)) (V, error) {
	v, err := write()
	for id, version := range shown {
		if *version > 0 {
			t.raise(string(id), *version)
		}
	}
	if err == nil {
		t.raise(string(idOf(v)), t.version(v))
	}
	return v, err
}

// evicted runs while the library removes an entry, before anybody can miss it:
// reads that may have begun before the entry's are not kept, and what Redis may
// not have heard of yet stays known.
func (t *table[K, V]) evicted(e otter.DeletionEvent[K, *entry[V]]) {
	if e.Cause == otter.CauseReplacement {
		return
	}
	k := t.key(e.Key)
	t.c.clock.void(k)
	if e.Value.at > t.c.settled.Load() {
		t.c.floors.raise(t.c.clock, k, e.Value.version, t.c.nanos())
	}
}

func (t *table[K, V]) clear() { t.held.InvalidateAll() }

func (t *table[K, V]) close() { t.held.StopAllGoroutines() }

// byIDs returns the rows that exist: from process memory, then Redis, then by
// one read of the store.
func (t *table[K, V]) byIDs(ctx context.Context, ids []K) (map[K]V, error) {
	found, live := make(map[K]V, len(ids)), t.c.live()
	var missing []K
	for _, id := range ids {
		v, ok := t.peek(id)
		if ok = ok && live; ok {
			found[id] = v
		} else {
			missing = append(missing, id)
		}
	}
	t.count.hits.Add(uint64(len(ids) - len(missing))) //nolint:gosec // never negative
	if len(missing) == 0 {
		return found, nil
	}
	t.count.missed(len(missing), live)
	return found, t.flights.fetch(ctx, missing, live, found, t)
}

// take implements trip.
func (t *table[K, V]) take() token { return t.c.clock.take() }

// isCurrent implements trip.
func (t *table[K, V]) isCurrent(id K, taken token) bool { return t.c.clock.holds(t.key(id), taken) }

// fetch implements trip: it reads rows that nobody else is reading.
func (t *table[K, V]) fetch(ctx context.Context, ids []K, live bool, taken token) (map[K]V, error) {
	found := make(map[K]V, len(ids))
	var leases map[K]answer
	rest := ids
	if live {
		rest, leases = t.fromRedis(ctx, ids, taken, found)
	}
	if len(rest) == 0 {
		return found, nil
	}
	read, err := t.read(ctx, rest)
	if err != nil {
		return nil, err
	}
	t.count.reads.Add(1)
	t.count.rows.Add(uint64(len(rest)))
	var fills []fill
	for id, v := range read {
		found[id] = v
		t.offer(id, v, taken)
		if a, ok := leases[id]; ok {
			fills = append(fills, fill{a, t.version(v), v})
		}
	}
	t.c.remote.fill(&t.count, fills)
	return found, nil
}

// fromRedis puts what Redis holds into found and returns what is left to be read
// from the store, with the leases to fill it under.
func (t *table[K, V]) fromRedis(ctx context.Context, ids []K, taken token, found map[K]V) (rest []K, leases map[K]answer) {
	answers, place, ok := t.c.remote.get(ctx, t.entity, anys(ids))
	if !ok {
		return ids, nil
	}
	leases = make(map[K]answer, len(ids))
	for i, id := range ids {
		a := answers[i]
		if v, ok := t.accept(id, a, place); ok {
			found[id] = v
			t.offer(id, v, taken)
			t.count.remoteHits.Add(1)
			continue
		}
		t.count.remoteMisses.Add(1)
		rest = append(rest, id)
		leases[id] = a
	}
	return rest, leases
}

// accept decodes a value of Redis, unless it is damaged, or older than what is
// known here. Floors are asked first: what they have forgotten is in required.
func (t *table[K, V]) accept(id K, a answer, place event.Position) (v V, ok bool) {
	if !a.isValue {
		return v, false
	}
	v, err := t.decode(id, a.data)
	if err != nil || t.version(v) != a.version {
		t.count.corrupt.Add(1)
		return v, false
	}
	known := t.c.floors.get(t.c.clock, t.key(id))
	if e, found := t.held.GetIfPresent(id); found {
		known = max(known, e.version)
	}
	if known > a.version || !t.c.trusts(place) {
		t.count.stale.Add(1)
		return v, false
	}
	return v, true
}

func anys[K ~string](ids []K) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}
