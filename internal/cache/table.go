package cache

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// table caches one entity by id, in front of a bulk read of the store. All readers share its values and
// never change them.
type table[K ~string, V any] struct {
	entity[K, V]

	cache    *Cache
	load     func(context.Context, []K) (map[K]V, error)
	held     *region[*entry[V]]
	inFlight singleflight[K, V]
	count    counters
}

// entry is a value in process memory. It is immutable, and replaces only older ones.
type entry[V any] struct {
	value   V
	version int
	token   fillToken // taken before the value was read
	at      int64     // when it was filled, as monotime.Nanos
	expires int64
	bytes   uint32
}

// weight implements held.
func (e *entry[V]) weight() uint32 { return e.bytes }

// entryOverhead is the cost of an entry besides its key and value, in bytes: the entry itself, the
// library's node, and its slot in the hash table.
const entryOverhead = 220

func newTable[K ~string, V any](c *Cache, e entity[K, V], load func(context.Context, []K) (map[K]V, error)) *table[K, V] {
	t := &table[K, V]{entity: e, cache: c, load: load, inFlight: newSingleflight[K, V]()}
	t.held = newRegion(c.memory, t.recordRemoval)
	c.tables[e.name] = t
	if e.kind != "" {
		c.subjects[e.kind] = e.name
	}
	return t
}

func (t *table[K, V]) key(id K) key { return key{t.name, string(id)} }

// peekEntry returns the value in process memory, if it is valid.
func (t *table[K, V]) peekEntry(id K) (v V, ok bool) {
	e, found := t.held.get(string(id))
	if !found || !t.isValid(e) {
		return v, false
	}
	return e.value, true
}

// peekLive is peekEntry, unless this node lags behind the log.
func (t *table[K, V]) peekLive(id K) (v V, ok bool) {
	if v, ok = t.peekEntry(id); !ok || !t.cache.isLive() {
		return v, false
	}
	t.count.hits.Add(1)
	return v, true
}

func (t *table[K, V]) isValid(e *entry[V]) bool {
	return e.expires > monotime.Now() && !t.cache.epochs.predatesAll(e.token)
}

// fill keeps a value that was read after the token was taken, unless it may be outdated. In either case
// its version is known from here on.
func (t *table[K, V]) fill(id K, v V, token fillToken) { t.fillUntil(id, v, token, math.MaxInt64) }

// fillUntil is fill of a value that expires at the latest at that time, as monotime.Nanos.
func (t *table[K, V]) fillUntil(id K, v V, token fillToken, latest int64) {
	c, k, version, now := t.cache, t.key(id), t.version(v), monotime.Now()
	t.held.compute(string(id), func(old *entry[V], found bool) (*entry[V], otter.ComputeOp) {
		switch {
		case found && old.version > version || c.minimum.get(c.epochs, k) > version:
			t.count.older.Add(1)
			return old, otter.CancelOp
		case found && old.version == version && t.isValid(old):
			return old, otter.CancelOp
		case !c.epochs.isValid(k, token):
			t.count.invalidated.Add(1)
			return old, t.raiseWithinCompute(k, version, old, found)
		}
		life := c.cfg.TTL - rand.N(c.cfg.TTL/5)                 //nolint:gosec // spreads the expiry of values that were read together
		weight := uint32(entryOverhead + 2*len(id) + t.size(v)) //nolint:gosec // rows are small
		return &entry[V]{v, version, token, now, min(now+int64(life), latest), weight}, otter.WriteOp
	})
}

// raiseVersion makes a version of the row known: it removes an older value, and invalidates the fill
// tokens of reads that may have begun before.
func (t *table[K, V]) raiseVersion(id string, version int) {
	t.held.compute(id, func(old *entry[V], found bool) (*entry[V], otter.ComputeOp) {
		return old, t.raiseWithinCompute(key{t.name, id}, version, old, found)
	})
}

// raiseWithinCompute runs within Compute, so that no other goroutine fills the id meanwhile.
func (t *table[K, V]) raiseWithinCompute(k key, version int, old *entry[V], found bool) otter.ComputeOp {
	if found && old.version >= version {
		return otter.CancelOp
	}
	c := t.cache
	if c.minimum.raise(c.epochs, k, version, monotime.Now()) {
		c.epochs.invalidateKey(k)
		c.lists.invalidateEntity(t.name)
	}
	if found {
		return otter.InvalidateOp
	}
	return otter.CancelOp
}

// readOne reads a row by something other than its id, and keeps it.
func (t *table[K, V]) readOne(read func() (V, error)) (V, error) {
	token := t.newToken()
	v, err := read()
	if err == nil {
		t.fill(t.id(v), v, token)
	}
	return v, err
}

// runCreate runs a write that returns a row. The row is not kept, as it may have changed since, but its
// version is known from here on.
func (t *table[K, V]) runCreate(write func() (V, error)) (V, error) {
	v, err := write()
	if err == nil {
		t.raiseVersion(string(t.id(v)), t.version(v))
	}
	return v, err
}

// runUpdate runs a change of a row. The write passes to observe the row that it is about to change: its
// version is known from here on even if the change fails, as the caller may have seen it.
func (t *table[K, V]) runUpdate(id K, write func(observe func(V)) (V, error)) (V, error) {
	seen := 0
	v, err := t.runCreate(func() (V, error) { return write(func(before V) { seen = t.version(before) }) })
	if seen > 0 {
		t.raiseVersion(string(id), seen)
	}
	return v, err
}

// recordRemoval runs while memory removes an entry, before another goroutine can miss it. It
// invalidates fill tokens older than the entry, and keeps the version known if Redis may lack it.
func (t *table[K, V]) recordRemoval(id string, e *entry[V]) {
	c, k := t.cache, key{t.name, id}
	c.epochs.invalidateKey(k)
	if e.at > c.checkpointed.Load() {
		c.minimum.raise(c.epochs, k, e.version, monotime.Now())
	}
}

// readByIDs returns the rows that exist: from process memory, then Redis, then by one read of the store.
func (t *table[K, V]) readByIDs(ctx context.Context, ids []K) (map[K]V, error) {
	found, live := make(map[K]V, len(ids)), t.cache.isLive()
	var missing []K
	for _, id := range ids {
		v, ok := t.peekEntry(id)
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
	t.count.recordMisses(len(missing), live)
	return found, t.inFlight.readKeys(ctx, missing, live, found, t)
}

// newToken implements batchReader.
func (t *table[K, V]) newToken() fillToken { return t.cache.epochs.newToken() }

// isCurrent implements batchReader.
func (t *table[K, V]) isCurrent(id K, token fillToken) bool {
	return t.cache.epochs.isValid(t.key(id), token)
}

// readBatch implements batchReader.
func (t *table[K, V]) readBatch(ctx context.Context, ids []K, live bool, token fillToken) (map[K]V, error) {
	found := make(map[K]V, len(ids))
	var slots map[K]redisSlot
	missing := ids
	if live {
		missing, slots = t.readRedis(ctx, ids, token, found)
	}
	if len(missing) == 0 {
		return found, nil
	}
	loaded, err := t.load(ctx, missing)
	if err != nil {
		return nil, err
	}
	t.count.reads.Add(1)
	t.count.rows.Add(uint64(len(missing)))
	var fills []redisFill
	for id, v := range loaded {
		found[id] = v
		t.fill(id, v, token)
		if slot, ok := slots[id]; ok {
			fills = append(fills, redisFill{slot, t.version(v), v})
		}
	}
	t.cache.redis.enqueueFills(&t.count, fills)
	return found, nil
}

// readRedis adds the rows that Redis holds to found. It returns the rows to load from the store, and
// their slots in Redis with the tokens to fill them.
func (t *table[K, V]) readRedis(ctx context.Context, ids []K, token fillToken, found map[K]V) (missing []K, slots map[K]redisSlot) {
	read, offset, ok := t.cache.redis.readSlots(ctx, t.name, toStrings(ids))
	if !ok {
		return ids, nil
	}
	slots = make(map[K]redisSlot, len(ids))
	for i, id := range ids {
		if v, ok := t.acceptValue(ctx, id, read[i], offset); ok {
			found[id] = v
			t.fillUntil(id, v, token, monotime.Nanos(time.Now().Add(time.Until(read[i].expires))))
			t.count.redisHits.Add(1)
			continue
		}
		t.count.redisMisses.Add(1)
		missing = append(missing, id)
		slots[id] = read[i]
	}
	return missing, slots
}

// acceptValue decodes a value of Redis, unless it is forged or corrupt, has expired, or may be older than
// what this node knows. It reads the minimum version first: what is dropped after that is covered by the
// required offset.
func (t *table[K, V]) acceptValue(ctx context.Context, id K, slot redisSlot, offset event.Position) (v V, ok bool) {
	switch {
	case !slot.isValue:
		return v, false
	case slot.data == nil:
		t.count.corrupt.Add(1)
		t.cache.redis.logForged(ctx, slot.key)
		return v, false
	case slot.expired:
		t.count.stale.Add(1)
		return v, false
	}
	v, err := t.decode(id, slot.data)
	if err != nil || t.version(v) != slot.version {
		t.count.corrupt.Add(1)
		return v, false
	}
	minimum := t.cache.minimum.get(t.cache.epochs, t.key(id))
	if e, found := t.held.get(string(id)); found {
		minimum = max(minimum, e.version)
	}
	if minimum > slot.version || !t.cache.acceptsOffset(offset) {
		t.count.stale.Add(1)
		return v, false
	}
	return v, true
}

func toStrings[K ~string](ids []K) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}
