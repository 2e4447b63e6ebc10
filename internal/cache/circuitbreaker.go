package cache

import "sync/atomic"

// breakerThreshold is how many calls of Redis must fail in a row to open the circuit breaker.
const breakerThreshold = 3

// circuitBreaker keeps readers from a Redis that fails. Readers never close it, so there is no
// half-open state and no library fits: only the goroutine that has applied the missed part of the log
// to Redis closes it.
type circuitBreaker struct {
	failures atomic.Int32
	open     atomic.Bool
}

func (b *circuitBreaker) isOpen() bool { return b.open.Load() }

func (b *circuitBreaker) recordSuccess() { b.failures.Store(0) }

// recordFailure counts a failure and reports whether it opened the circuit breaker.
func (b *circuitBreaker) recordFailure() (opened bool) {
	return b.failures.Add(1) >= breakerThreshold && b.open.CompareAndSwap(false, true)
}

// reset closes the circuit breaker and reports whether it was open.
func (b *circuitBreaker) reset() (wasOpen bool) {
	b.failures.Store(0)
	return b.open.Swap(false)
}
