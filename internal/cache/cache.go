package cache

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Config tunes a Cache. The zero value caches nothing.
type Config struct {
	Bytes    int                // approximate size of the values in process memory; 0 turns the cache off
	RedisURL string             // empty for no Redis level
	Secret   [secrets.Size]byte // authenticates the values in Redis; the same on all nodes
	TTL      time.Duration      // of an entry, less a random part of up to a fifth; default 300 s
	MaxLag   time.Duration      // of this node behind the log, above which it bypasses the cache; default 2 s

	RequestTime        time.Duration // longest time that a read may take; default 10 s
	RedisTime          time.Duration // time limit of a Redis call; default 50 ms
	RedisConns         int           // default 16
	CheckpointInterval time.Duration // minimum versions are kept for at least this long; default 2 s
	CatchUpLimit       int           // events applied to Redis before a new generation is cheaper; default 20,000

	Now func() time.Time // the time of values in Redis, which all nodes read; default time.Now
}

func (c Config) withDefaults() Config {
	c.TTL = cmp.Or(c.TTL, 5*time.Minute)
	c.MaxLag = cmp.Or(c.MaxLag, 2*time.Second)
	c.RequestTime = cmp.Or(c.RequestTime, 10*time.Second)
	c.RedisTime = cmp.Or(c.RedisTime, 50*time.Millisecond)
	c.RedisConns = cmp.Or(c.RedisConns, 16)
	c.CheckpointInterval = cmp.Or(c.CheckpointInterval, 2*time.Second)
	c.CatchUpLimit = cmp.Or(c.CatchUpLimit, 20_000)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	if min(c.TTL, c.MaxLag, c.RequestTime, c.RedisTime, c.CheckpointInterval) < 0 || min(c.Bytes, c.RedisConns, c.CatchUpLimit) < 0 {
		return fmt.Errorf("cache config: a value is negative in %+v", struct{ Bytes, RedisConns int }{c.Bytes, c.RedisConns})
	}
	return nil
}

// Cache is the state that the caches of a node share. It is safe for concurrent use.
type Cache struct {
	cfg      Config
	log      *slog.Logger
	hub      *eventlog.Hub // nil for a cache that bypasses everything
	epochs   *invalidationEpochs
	minimum  *minimumVersions
	memory   *memory
	redis    *redisLevel
	tables   map[string]entityTable // by entity; complete before the first row is invalidated, as
	subjects map[uid.Kind]string    // the entities of the subjects of events are
	lists    *lists
	bypasses atomic.Uint64

	checkpointed   atomic.Int64 // minimum versions known before this time, as monotime.Nanos, are dropped,
	requiredOffset atomic.Int64 // as Redis must have the log applied up to this position
	mu             sync.Mutex   // guards changes of requiredOffset, checkpointed and
	next           checkpoint   // the next one to take effect
	droppedUpTo    int64        // no minimum version of an event after this position was dropped
}

// entityTable is a table of any entity.
type entityTable interface {
	raiseVersion(id string, version int)
	stats() Level
}

// New returns a Cache that invalidates what the hub's events change; the hub must not run yet. Without
// a hub it bypasses everything. The caller closes the Cache.
func New(cfg Config, hub *eventlog.Hub, log *slog.Logger) (*Cache, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Cache{cfg: cfg.withDefaults(), log: log, hub: hub, epochs: newInvalidationEpochs(), minimum: newMinimumVersions(), memory: newMemory(cfg.Bytes), tables: make(map[string]entityTable), subjects: make(map[uid.Kind]string)}
	c.requiredOffset.Store(math.MaxInt64)
	var err error
	if c.redis, err = newRedisLevel(c); err != nil {
		return nil, err
	}
	c.lists = newLists(c)
	if hub != nil {
		hub.OnDeliver(c.deliverEvents)
	}
	return c, nil
}

// Close releases the connections to Redis and the goroutines of process memory. Run must have ended.
func (c *Cache) Close() error {
	c.memory.close()
	return c.redis.close()
}

// isOff reports whether the configuration turns the cache off.
func (c *Cache) isOff() bool { return c.cfg.Bytes == 0 }

// isLive reports whether this node is at most MaxLag behind the log. If not, it bypasses the cache.
func (c *Cache) isLive() bool {
	if c.hub != nil && c.hub.Lag() <= c.cfg.MaxLag {
		return true
	}
	c.bypasses.Add(1)
	return false
}

// Invalidate invalidates the rows of a transaction of this node. The store calls it before the write
// returns, also if it does not know whether the transaction was committed.
func (c *Cache) Invalidate(rows []event.Touched) {
	for _, row := range rows {
		c.invalidateRow(row)
	}
}

func (c *Cache) invalidateRow(row event.Touched) {
	version := row.Version
	if row.Deleted {
		version = math.MaxInt
	}
	if t := c.tables[row.Entity]; t != nil {
		t.raiseVersion(row.ID, version)
	}
	c.lists.invalidateEntity(row.Entity)
}

// deliverEvents invalidates the rows of the log's next events, in their order. A gap says that the hub may
// have missed events before them.
func (c *Cache) deliverEvents(events []*event.Event, gap bool) {
	if gap {
		c.invalidateAll()
	}
	for _, e := range events {
		c.Invalidate(c.rowsOf(e))
	}
	if !gap {
		c.redis.enqueueEvents(events)
	}
}

// observeEvent makes the versions known that an event names and a reader is about to see. The hub has
// delivered those up to its head already.
func (c *Cache) observeEvent(e *event.Event) {
	if hub := c.hub; hub == nil || e.Cursor.Timeline == hub.Head().Timeline && e.Cursor.Position <= hub.Head().Position {
		return
	}
	c.Invalidate(c.rowsOf(e))
}

// rowsOf returns the rows that an event names: those that its transaction changed, if it is the
// transaction's first event, and its subject.
func (c *Cache) rowsOf(e *event.Event) []event.Touched {
	kind, _ := uid.KindOf(e.SubjectID)
	entity := c.subjects[kind]
	if entity == "" {
		return e.Touched
	}
	subject := event.Touched{Entity: entity, ID: e.SubjectID, Version: e.SubjectVersion}
	if slices.Contains(e.Touched, subject) {
		return e.Touched
	}
	return append(slices.Clip(e.Touched), subject)
}

// invalidateAll invalidates everything, as the hub may have missed events. Minimum versions stay, since
// clients have seen those versions. Redis is read again once the log is applied to it up to where the
// hub goes on.
func (c *Cache) invalidateAll() {
	c.epochs.invalidateAll()
	c.lists.invalidateAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requiredOffset.Store(math.MaxInt64)
	c.next, c.droppedUpTo = checkpoint{}, 0
	c.redis.suspendReads(c.hub.Head())
}

// resetTimeline drops all knowledge of an abandoned timeline, in which versions may have been higher.
func (c *Cache) resetTimeline() {
	c.memory.clear()
	c.minimum.dropUntil(math.MaxInt64)
}
