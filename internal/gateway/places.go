package gateway

import (
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// places bounds the calls that are open at once, in all and of one caller.
type places struct {
	all, each int

	mu      sync.Mutex
	taken   int
	callers map[string]int
	waiting chan struct{} // closed once none is taken; nil if nobody waits
}

// take takes a place for a call of the caller, or says why there is none.
func (p *places) take(caller string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.callers[caller] >= p.each {
		busy := fault.New(fault.Unavailable, fault.ServerBusy, "Too many calls are open; try again in a moment.")
		busy.RetryAfter = time.Second
		return busy
	}
	if p.callers == nil {
		p.callers = map[string]int{}
	}
	p.taken++
	p.callers[caller]++
	return nil
}

func (p *places) leave(caller string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.callers[caller]--; p.callers[caller] == 0 {
		delete(p.callers, caller)
	}
	if p.taken == 0 && p.waiting != nil {
		close(p.waiting)
		p.waiting = nil
	}
}

// open returns how many places are taken.
func (p *places) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// empty returns what is closed as soon as no place is taken.
func (p *places) empty() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if p.waiting == nil {
		p.waiting = make(chan struct{})
	}
	return p.waiting
}
