package cache

import "sync/atomic"

// counters of a table, or of the lists.
type counters struct {
	hits, misses, bypassed             atomic.Uint64
	redisHits, redisMisses             atomic.Uint64
	older, invalidated, corrupt, stale atomic.Uint64
	redisFills, redisRefused           atomic.Uint64
	reads, rows                        atomic.Uint64
}

// recordMisses counts rows that process memory did not answer.
func (c *counters) recordMisses(n int, live bool) {
	if live {
		c.misses.Add(uint64(n)) //nolint:gosec // never negative
	} else {
		c.bypassed.Add(uint64(n)) //nolint:gosec // never negative
	}
}

// Level is a snapshot of the counters of one entity. All but Entries and Bytes only grow.
type Level struct {
	Hits, Misses     uint64 // rows that process memory answered, or did not
	Bypassed         uint64 // rows read past the cache, as this node lagged behind the log
	RedisHits        uint64 // rows that Redis answered
	RedisMisses      uint64
	FillsOlder       uint64 // values not kept, as a newer version was known
	FillsInvalidated uint64 // values not kept, as their fill token was invalidated
	RedisFills       uint64 // values stored in Redis
	RedisRefused     uint64 // values that Redis refused, as their fill token no longer stood
	RedisCorrupt     uint64 // values with a wrong MAC, or that could not be decoded
	RedisStale       uint64 // values ignored, as they had expired or this node may know newer ones
	Reads, Rows      uint64 // batches read from the store, and their rows
	Entries          uint64
	Bytes            uint64
}

func (c *counters) level() Level {
	return Level{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Bypassed: c.bypassed.Load(),
		RedisHits: c.redisHits.Load(), RedisMisses: c.redisMisses.Load(),
		FillsOlder: c.older.Load(), FillsInvalidated: c.invalidated.Load(),
		RedisFills: c.redisFills.Load(), RedisRefused: c.redisRefused.Load(),
		RedisCorrupt: c.corrupt.Load(), RedisStale: c.stale.Load(),
		Reads: c.reads.Load(), Rows: c.rows.Load(),
	}
}

func (t *table[K, V]) stats() Level {
	l := t.count.level()
	t.held.addSize(&l)
	return l
}

// Stats is a snapshot of a Cache's counters.
type Stats struct {
	Entities        map[string]Level // user, product, stock, order, items; and list, for pages and counts
	Redis           RedisStats
	Bypasses        uint64 // calls that bypassed the cache, as this node lagged behind the log
	MinimumVersions int    // versions known without their values
}

// RedisStats is a snapshot of the Redis level's counters.
type RedisStats struct {
	Errors       uint64 // calls that failed or took too long
	Open         bool   // the circuit breaker keeps readers from Redis
	Ready        bool   // Redis may be read: the log is applied to it as far as this node needs
	FillsDropped uint64 // values not stored, as too many were queued
	Applied      uint64 // events that this node applied to Redis
	CaughtUp     uint64 // of Applied, those read from the log again
	Renewed      uint64 // generations begun
}

// Stats returns a snapshot of the counters.
func (c *Cache) Stats() Stats {
	s := Stats{Entities: make(map[string]Level), Bypasses: c.bypasses.Load(), MinimumVersions: int(c.minimum.n.Load())}
	for entity, t := range c.tables {
		s.Entities[entity] = t.stats()
	}
	l := c.lists.count.level()
	c.lists.held.addSize(&l)
	s.Entities["list"] = l
	r := c.redis
	s.Redis = RedisStats{
		Errors: r.errors.Load(), Open: r.breaker.isOpen(), Ready: r.generation.Load() != nil, FillsDropped: r.fillsDropped.Load(),
		Applied: r.applied.Load(), CaughtUp: r.caughtUp.Load(), Renewed: r.renewed.Load(),
	}
	return s
}
