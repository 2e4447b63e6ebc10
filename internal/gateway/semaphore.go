package gateway

import (
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// callSemaphore limits the calls that are open at once, in total and per caller. It is not built on
// x/sync/semaphore, which knows one total and no callers.
type callSemaphore struct {
	total, perCaller int

	mu      sync.Mutex
	used    int
	usedBy  map[string]int
	waiting chan struct{} // closed once no permit is held; nil if Drain does not wait
}

// acquire takes a permit for a call of the caller. It returns SERVER_BUSY if none is free.
func (p *callSemaphore) acquire(caller string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used >= p.total || p.usedBy[caller] >= p.perCaller {
		return fault.New(fault.ServerBusy, "Too many calls are open; try again in a moment.").After(time.Second)
	}
	if p.usedBy == nil {
		p.usedBy = map[string]int{}
	}
	p.used++
	p.usedBy[caller]++
	return nil
}

func (p *callSemaphore) release(caller string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	if p.usedBy[caller]--; p.usedBy[caller] == 0 {
		delete(p.usedBy, caller)
	}
	if p.used == 0 && p.waiting != nil {
		close(p.waiting)
		p.waiting = nil
	}
}

// inUse returns the number of permits held.
func (p *callSemaphore) inUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// drained returns a channel that is closed as soon as no permit is held.
func (p *callSemaphore) drained() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if p.waiting == nil {
		p.waiting = make(chan struct{})
	}
	return p.waiting
}
