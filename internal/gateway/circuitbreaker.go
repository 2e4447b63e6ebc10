package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// circuitBreakers keeps calls away from instances that give no response at all. It covers what the
// outlier ejection of package balance does not, which never ejects more than half of a service nor its
// only instance. An instance whose circuit breaker is open gets one probe call per openTime; a response
// closes it. A new incarnation of the instance begins closed.
//
// It is not built on a library: those hold one breaker per name, and this one holds nothing, nor locks,
// while no instance fails.
type circuitBreakers struct {
	threshold int
	openTime  time.Duration
	opened    *atomic.Uint64 // counts how often one opened

	failing    atomic.Int64 // len(byInstance), so that no call locks while no instance fails
	mu         sync.Mutex
	byInstance map[uid.Instance]*circuitBreaker // of instances whose last attempt had no response
}

type circuitBreaker struct {
	incarnation int64
	failures    int // in a row
	retryAt     time.Time
}

// maxCircuitBreakers bounds the failing instances that are remembered.
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

// admitCall reports whether the instance may be called now. Once openTime has passed, it admits one
// probe call and holds back all others for another openTime.
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

// recordResponse closes the circuit breaker: the instance has responded.
func (c *circuitBreakers) recordResponse(i *registry.Instance) {
	if c.failing.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byInstance, i.ID)
	c.failing.Store(int64(len(c.byInstance)))
}

// recordFailure counts an attempt without a response.
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

// evictEntries makes room if there are too many entries: first those not probed for a minute, then any.
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
