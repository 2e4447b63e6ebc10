package cache

import "sync/atomic"

// patience is how many calls of Redis may fail in a row before nobody asks it.
const patience = 3

// breaker keeps readers from a Redis that does not answer. Readers never close
// it: that is for whoever has seen to it that Redis has missed nothing.
type breaker struct {
	failures atomic.Int32
	open     atomic.Bool
}

func (b *breaker) isOpen() bool { return b.open.Load() }

func (b *breaker) succeeded() { b.failures.Store(0) }

// failed counts a failure and reports whether it opened the breaker.
func (b *breaker) failed() (opened bool) {
	return b.failures.Add(1) >= patience && b.open.CompareAndSwap(false, true)
}

// reset closes the breaker and reports whether it was open.
func (b *breaker) reset() (was bool) {
	b.failures.Store(0)
	return b.open.Swap(false)
}
