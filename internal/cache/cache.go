// Package cache owns copies of rows that spare the database reads: in process
// memory, then in Redis, as decorators of the stores. docs/consistency.md says
// what a reader may rely on.
//
// A row's version only rises, and a value is only ever replaced by a newer one.
// That alone is not enough, as what knows the newer version can get lost. So
// whoever reads to fill a cache takes a token first, which any change, eviction
// or loss voids: in process memory a place in the clock, in Redis a lease that
// stands where the value is to be. What this process knows of versions whose
// values it does not hold are floors: no older value is taken from anywhere.
//
// Other nodes' changes are heard of from the log, before any subscriber hears.
// Redis carries the position up to which it has heard of them too, and whichever
// node reads further first tells it. A value in Redis is at least as new as that
// position says, whatever got lost on the way; so a node that knows more simply
// does not believe it. See decision 50.
//
// Never kept are what was not found, errors, secrets, and who may see what: that
// is decided by the domains, behind the cache.
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
)

// Config tunes a Cache. The zero value keeps nothing.
type Config struct {
	Bytes    int           // of values in process memory, about; 0 for no cache at all
	RedisURL string        // none if empty
	TTL      time.Duration // after which a value is read anew in any case; default 300 s, less up to a fifth
	MaxLag   time.Duration // of the log's reader, above which the cache is passed by; default 2 s

	RequestTime  time.Duration // the longest that a read may last; default 10 s
	RedisTime    time.Duration // that anybody waits for Redis; default 50 ms
	RedisConns   int           // default 16
	SettleTime   time.Duration // how long versions are remembered at least; default 2 s
	CatchUpLimit int           // events that Redis is told of rather than emptied; default 20,000
}

func (c Config) withDefaults() Config {
	c.TTL = cmp.Or(c.TTL, 5*time.Minute)
	c.MaxLag = cmp.Or(c.MaxLag, 2*time.Second)
	c.RequestTime = cmp.Or(c.RequestTime, 10*time.Second)
	c.RedisTime = cmp.Or(c.RedisTime, 50*time.Millisecond)
	c.RedisConns = cmp.Or(c.RedisConns, 16)
	c.SettleTime = cmp.Or(c.SettleTime, 2*time.Second)
	c.CatchUpLimit = cmp.Or(c.CatchUpLimit, 20_000)
	return c
}

func (c Config) check() error {
	if c.Bytes < 0 || c.TTL < 0 || c.MaxLag < 0 || c.RequestTime < 0 || c.RedisTime < 0 || c.RedisConns < 0 || c.SettleTime < 0 || c.CatchUpLimit < 0 {
		return fmt.Errorf("cache config: a value is negative in %+v", struct{ Bytes, RedisConns int }{c.Bytes, c.RedisConns})
	}
	return nil
}

// Cache is what the caches of a node share. It is safe for concurrent use.
type Cache struct {
	cfg    Config
	log    *slog.Logger
	hub    atomic.Pointer[event.Hub] // nil until Follow
	clock  *clock
	floors *floors
	remote *remote
	tables map[string]voider // by entity; complete before the first call of Applied
	lists  *lists

	settled  atomic.Int64 // floors of before this moment, in Unix nanoseconds, are forgotten,
	required atomic.Int64 // as Redis must have heard of the log up to here
	mu       sync.Mutex   // for changes of required, settled and
	mark     mark         // what settles next
	dropped  int64        // the place behind which floors are still remembered
	bypasses atomic.Uint64
	careless bool // keeps fills unseen: a cache for tests to find wrong
}

// voider is a table of any entity.
type voider interface {
	raise(id string, version int)
	clear()
	stats() Level
	close()
}

// New returns a Cache that passes every read on to the stores until it follows a
// hub. The log is the one that the hub reads. The caller closes the Cache.
func New(cfg Config, events *event.Log, log *slog.Logger) (*Cache, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Cache{cfg: cfg.withDefaults(), log: log, clock: newClock(), floors: newFloors(), tables: make(map[string]voider)}
	c.required.Store(math.MaxInt64)
	var err error
	if c.remote, err = newRemote(c, events); err != nil {
		return nil, err
	}
	c.lists = newLists(c)
	return c, nil
}

// Follow makes the cache hear of what the hub reads. Call it before the hub runs.
func (c *Cache) Follow(hub *event.Hub) {
	hub.OnDeliver(c.deliver)
	c.hub.Store(hub)
}

// Close lets go of Redis and of the memory's keepers. Run ends before it.
func (c *Cache) Close() error {
	for _, t := range c.tables {
		t.close()
	}
	c.lists.close()
	return c.remote.close()
}

// isOff reports whether there is nothing to be kept anywhere.
func (c *Cache) isOff() bool { return c.cfg.Bytes == 0 }

// live reports whether this node knows what others have changed, but for the
// stated bound. If not, it must ask the database.
func (c *Cache) live() bool {
	hub := c.hub.Load()
	if hub != nil && hub.Lag() <= c.cfg.MaxLag {
		return true
	}
	c.bypasses.Add(1)
	return false
}

// Applied hears of the rows of a transaction of this node, before its write
// returns and also when it is not known whether it was committed.
func (c *Cache) Applied(rows []event.Touched) {
	for _, row := range rows {
		c.touched(row)
	}
}

func (c *Cache) touched(row event.Touched) {
	version := row.Version
	if row.Deleted {
		version = math.MaxInt
	}
	if t := c.tables[row.Entity]; t != nil {
		t.raise(row.ID, version)
	}
	c.bump(row.Entity)
}

// bump ends the worth of the lists of an entity.
func (c *Cache) bump(entity string) { c.lists.bump(entity) }

// deliver hears of the log's events in their order.
func (c *Cache) deliver(events []*event.Event, gap bool) {
	if gap {
		c.forget()
	}
	for _, e := range events {
		for _, row := range rowsOf(e) {
			c.touched(row)
		}
	}
	if !gap {
		c.remote.enqueue(events)
	}
}

// named makes the versions known that an event names which a reader is shown.
// The log's reader has done so for those behind it.
func (c *Cache) named(e *event.Event) {
	if hub := c.hub.Load(); hub == nil || e.Cursor.Timeline == hub.Head().Timeline && e.Cursor.Position <= hub.Head().Position {
		return
	}
	for _, row := range rowsOf(e) {
		c.touched(row)
	}
}

// rowsOf returns the rows that an event tells of: what its transaction touched,
// if it is the first of it, and its subject.
func rowsOf(e *event.Event) []event.Touched {
	entity := entityOf(e.SubjectID)
	if entity == "" {
		return e.Touched
	}
	subject := event.Touched{Entity: entity, ID: e.SubjectID, Version: e.SubjectVersion}
	if slices.Contains(e.Touched, subject) {
		return e.Touched
	}
	return append(slices.Clip(e.Touched), subject)
}

// forget voids everything: events may have been missed. Floors stay, as clients
// have seen those versions. Redis is believed again once it has heard of all that
// the hub goes on from.
func (c *Cache) forget() {
	c.clock.voidAll()
	c.lists.bumpAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.required.Store(math.MaxInt64)
	c.mark, c.dropped = mark{}, 0
	c.remote.forget(c.hub.Load().Head())
}

// restored drops what was known of a timeline that is no more, in which versions
// may have been higher.
func (c *Cache) restored() {
	for _, t := range c.tables {
		t.clear()
	}
	c.floors.drop(math.MaxInt64)
}

// trusts reports whether Redis, having heard of the log up to a place, holds
// nothing older than what was known here and is forgotten.
func (c *Cache) trusts(place event.Position) bool {
	blind := c.floors.blind.Load()
	return (blind == 0 || blind < c.settled.Load()) && int64(place) >= c.required.Load()
}

// mark is a moment up to which the hub had read all there was, to head at most.
type mark struct{ at, head int64 }

// settle forgets the floors of before the last mark, and makes the next one. By
// then Redis has long heard of the log up to there; if not, it is not believed.
func (c *Cache) settle() {
	hub := c.hub.Load()
	at := time.Now().Add(-hub.Lag()).UnixNano() // before the head is read: that is not behind
	next := mark{at, int64(hub.Head().Position)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.mark; last.at > c.settled.Load() {
		c.dropped = max(c.dropped, last.head)
		c.required.Store(max(c.required.Load(), c.dropped))
		c.settled.Store(last.at)
		c.floors.drop(last.at)
	}
	c.mark = next
}

// synced tells that Redis has heard of all up to a place of the log, which the
// hub goes on from after it may have missed events.
func (c *Cache) synced(place event.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.required.Load() == math.MaxInt64 {
		c.required.Store(max(int64(place), c.dropped))
	}
}

// nanos is the time in Unix nanoseconds.
func (c *Cache) nanos() int64 { return time.Now().UnixNano() }
