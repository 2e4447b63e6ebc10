package cache

import "sync/atomic"

// counters of a table or of the lists.
type counters struct {
	hits, misses, bypassed      atomic.Uint64
	remoteHits, remoteMisses    atomic.Uint64
	older, void, corrupt, stale atomic.Uint64
	remoteFills, remoteRefused  atomic.Uint64
	reads, rows                 atomic.Uint64
}

// missed counts rows that process memory did not answer for.
func (c *counters) missed(n int, live bool) {
	if live {
		c.misses.Add(uint64(n)) //nolint:gosec // never negative
	} else {
		c.bypassed.Add(uint64(n)) //nolint:gosec // never negative
	}
}

// Level is what the cache of one entity has done. All but Entries and Bytes only
// grow.
type Level struct {
	Hits, Misses uint64 // rows that process memory answered for, or did not
	Bypassed     uint64 // rows read past the cache, as this node's log reader lagged
	RedisHits    uint64 // rows that Redis answered for
	RedisMisses  uint64
	FillsOlder   uint64 // values not kept as a newer version was known
	FillsVoid    uint64 // values not kept as something was voided since their read began
	RedisFills   uint64 // values stored in Redis
	RedisRefused uint64 // values that Redis did not take as their lease was void
	RedisCorrupt uint64 // values that could not be decoded
	RedisStale   uint64 // values not believed, as this node may know newer ones
	Reads, Rows  uint64 // batches read from the store, and the rows that they asked for
	Entries      uint64
	Bytes        uint64
}

func (c *counters) level() Level {
	return Level{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Bypassed: c.bypassed.Load(),
		RedisHits: c.remoteHits.Load(), RedisMisses: c.remoteMisses.Load(),
		FillsOlder: c.older.Load(), FillsVoid: c.void.Load(),
		RedisFills: c.remoteFills.Load(), RedisRefused: c.remoteRefused.Load(),
		RedisCorrupt: c.corrupt.Load(), RedisStale: c.stale.Load(),
		Reads: c.reads.Load(), Rows: c.rows.Load(),
	}
}

func (t *table[K, V]) stats() Level {
	l := t.count.level()
	l.Entries, l.Bytes = uint64(t.held.EstimatedSize()), t.held.WeightedSize() //nolint:gosec // never negative
	return l
}

// Stats is a snapshot of what a Cache has done.
type Stats struct {
	Entities map[string]Level // user, product, stock, order, items; and list, for pages and counts
	Redis    RedisStats
	Bypasses uint64 // calls that passed the cache by, as this node's log reader lagged
	Floors   int    // versions that are remembered without their values
}

// RedisStats is what has become of Redis.
type RedisStats struct {
	Errors       uint64 // calls that failed or took too long
	Open         bool   // whether the breaker keeps readers from it
	Ready        bool   // whether it may be read: it has heard of what this node has
	FillsDropped uint64 // values not stored as too many waited to be
	Applied      uint64 // events that this node told Redis of
	CaughtUp     uint64 // of them, those read from the log again
	Renewed      uint64 // generations begun
}

// Stats returns what the cache has done so far.
func (c *Cache) Stats() Stats {
	s := Stats{Entities: make(map[string]Level), Bypasses: c.bypasses.Load(), Floors: int(c.floors.n.Load())}
	for entity, t := range c.tables {
		s.Entities[entity] = t.stats()
	}
	l := c.lists.count.level()
	l.Entries, l.Bytes = uint64(c.lists.held.EstimatedSize()), c.lists.held.WeightedSize() //nolint:gosec // never negative
	s.Entities["list"] = l
	r := c.remote
	s.Redis = RedisStats{
		Errors: r.errors.Load(), Open: r.breaker.isOpen(), Ready: r.era.Load() != nil, FillsDropped: r.fillsDropped.Load(),
		Applied: r.applied.Load(), CaughtUp: r.caughtUp.Load(), Renewed: r.renewed.Load(),
	}
	return s
}
