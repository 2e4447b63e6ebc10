package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// circuitBreakers keeps calls away from instances that do not answer at all, where the
// ejections of package balance do not: those never take out more than half of a service, nor the
// only instance of one. An instance whose circuit is open gets one call in a while, which closes
// it if there is an answer. Another start of an instance begins with a closed one.
type circuitBreakers struct {
	threshold int
	openTime  time.Duration
	opened    *atomic.Uint64 // how often one opened

	failing    atomic.Int64 // len(of), so that nobody locks while all is well
	mu         sync.Mutex
	byInstance map[uid.Instance]*circuitBreaker // of instances whose last call had no answer
}

type circuitBreaker struct {
	incarnation int64
	failures    int // in a row
	retryAt     time.Time
}

// maxCircuitBreakers bounds the instances that are remembered as failing.
const maxCircuitBreakers = 10_000

// isOpen reports whether the instance must not be called now.
func (c *circuitBreakers) isOpen(i *registry.Instance, at time.Time) bool {
	if c.failing.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isOpenLocked(i, at)
}

func (c *circuitBreakers) isOpenLocked(i *registry.Instance, at time.Time) bool {
	x := c.byInstance[i.ID]
	return x != nil && x.incarnation == i.Incarnation && x.failures >= c.threshold && at.Before(x.retryAt)
}

// admitCall reports whether the instance may be called now. Of an open circuit that is tried
// again only one call may, until it has rested once more.
func (c *circuitBreakers) admitCall(i *registry.Instance, at time.Time) bool {
	if c.failing.Load() == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isOpenLocked(i, at) {
		return false
	}
	if x := c.byInstance[i.ID]; x != nil && x.failures >= c.threshold {
		x.retryAt = at.Add(c.openTime)
	}
	return true
}

// recordResponse notes that the instance has answered.
func (c *circuitBreakers) recordResponse(i *registry.Instance) {
	if c.failing.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byInstance, i.ID)
	c.failing.Store(int64(len(c.byInstance)))
}

// recordFailure notes that a call of the instance had no answer.
func (c *circuitBreakers) recordFailure(i *registry.Instance, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byInstance[i.ID]
	if x == nil || x.incarnation != i.Incarnation {
		c.evictEntries(at)
		x = &circuitBreaker{incarnation: i.Incarnation}
		c.byInstance[i.ID] = x
	}
	x.retryAt = at.Add(c.openTime)
	if x.failures++; x.failures == c.threshold {
		c.opened.Add(1)
	}
	c.failing.Store(int64(len(c.byInstance)))
}

// evictEntries forgets instances that nobody has called for a while, or any if there
// are too many.
func (c *circuitBreakers) evictEntries(at time.Time) {
	if c.byInstance == nil {
		c.byInstance = map[uid.Instance]*circuitBreaker{}
	}
	if len(c.byInstance) < maxCircuitBreakers {
		return
	}
	for id, x := range c.byInstance {
		if at.Sub(x.retryAt) > time.Minute {
			delete(c.byInstance, id)
		}
	}
	for id := range c.byInstance {
		if len(c.byInstance) < maxCircuitBreakers {
			return
		}
		delete(c.byInstance, id)
	}
}
