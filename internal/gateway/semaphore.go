package gateway

import (
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// callSemaphore bounds the calls that are open at once, in all and of one caller.
type callSemaphore struct {
	total, perCaller int

	mu      sync.Mutex
	used    int
	usedBy  map[string]int
	waiting chan struct{} // closed once none is taken; nil if nobody waits
}

// acquire takes a place for a call of the caller, or says why there is none.
func (p *callSemaphore) acquire(caller string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used >= p.total || p.usedBy[caller] >= p.perCaller {
		busy := fault.New(fault.Unavailable, fault.ServerBusy, "Too many calls are open; try again in a moment.")
		busy.RetryAfter = time.Second
		return busy
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

// inUse returns how many places are taken.
func (p *callSemaphore) inUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// drained returns what is closed as soon as no place is taken.
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
