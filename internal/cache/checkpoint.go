package cache

import (
	"math"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// checkpoint is a time at which the hub had read the whole log, up to head at most.
type checkpoint struct{ at, head int64 }

// takeCheckpoint drops the minimum versions known before the last checkpoint, and begins the next one.
// By now the log has long been applied to Redis up to that checkpoint; if not, Redis is not read.
func (c *Cache) takeCheckpoint() {
	hub := c.hub
	at := monotime.Nanos(time.Now().Add(-hub.Lag())) // before reading the head, so that the head is not behind
	next := checkpoint{at, int64(hub.Head().Position)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.next; last.at > c.checkpointed.Load() {
		c.droppedUpTo = max(c.droppedUpTo, last.head)
		c.requiredOffset.Store(max(c.requiredOffset.Load(), c.droppedUpTo))
		c.checkpointed.Store(last.at)
		c.minimum.dropUntil(last.at)
	}
	c.next = next
}

// acceptsOffset reports whether Redis, with the log applied up to the offset, holds nothing older than
// the minimum versions that this node has dropped.
func (c *Cache) acceptsOffset(offset event.Position) bool {
	overflowed := c.minimum.overflowedAt.Load()
	return (overflowed == 0 || overflowed < c.checkpointed.Load()) && int64(offset) >= c.requiredOffset.Load()
}

// resumeRedis ends the time in which Redis is not read after a gap: the log is applied to it up to the
// offset, from which the hub goes on.
func (c *Cache) resumeRedis(offset event.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requiredOffset.Load() == math.MaxInt64 {
		c.requiredOffset.Store(max(int64(offset), c.droppedUpTo))
	}
}
