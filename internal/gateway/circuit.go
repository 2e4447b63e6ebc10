package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// circuits keeps calls away from instances that do not answer at all, where the
// ejections of package balance do not: those never take out more than half of a service, nor the
// only instance of one. An instance whose circuit is open gets one call in a while, which closes
// it if there is an answer. Another start of an instance begins with a closed one.
type circuits struct {
	fails  int
	rest   time.Duration
	opened *atomic.Uint64 // how often one opened

	broken atomic.Int64 // len(of), so that nobody locks while all is well
	mu     sync.Mutex
	of     map[uid.Instance]*circuit // of instances whose last call had no answer
}

type circuit struct {
	incarnation int64
	fails       int // in a row
	next        time.Time
}

// maxCircuits bounds the instances that are remembered as failing.
const maxCircuits = 10_000

// open reports whether the instance must not be called now.
func (c *circuits) open(i *registry.Instance, at time.Time) bool {
	if c.broken.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isOpen(i, at)
}

func (c *circuits) isOpen(i *registry.Instance, at time.Time) bool {
	x := c.of[i.ID]
	return x != nil && x.incarnation == i.Incarnation && x.fails >= c.fails && at.Before(x.next)
}

// enter reports whether the instance may be called now. Of an open circuit that is tried
// again only one call may, until it has rested once more.
func (c *circuits) enter(i *registry.Instance, at time.Time) bool {
	if c.broken.Load() == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isOpen(i, at) {
		return false
	}
	if x := c.of[i.ID]; x != nil && x.fails >= c.fails {
		x.next = at.Add(c.rest)
	}
	return true
}

// answered notes that the instance has answered.
func (c *circuits) answered(i *registry.Instance) {
	if c.broken.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.of, i.ID)
	c.broken.Store(int64(len(c.of)))
}

// silent notes that a call of the instance had no answer.
func (c *circuits) silent(i *registry.Instance, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.of[i.ID]
	if x == nil || x.incarnation != i.Incarnation {
		c.makeRoom(at)
		x = &circuit{incarnation: i.Incarnation}
		c.of[i.ID] = x
	}
	x.next = at.Add(c.rest)
	if x.fails++; x.fails == c.fails {
		c.opened.Add(1)
	}
	c.broken.Store(int64(len(c.of)))
}

// makeRoom forgets instances that nobody has called for a while, or any if there
// are too many.
func (c *circuits) makeRoom(at time.Time) {
	if c.of == nil {
		c.of = map[uid.Instance]*circuit{}
	}
	if len(c.of) < maxCircuits {
		return
	}
	for id, x := range c.of {
		if at.Sub(x.next) > time.Minute {
			delete(c.of, id)
		}
	}
	for id := range c.of {
		if len(c.of) < maxCircuits {
			return
		}
		delete(c.of, id)
	}
}
