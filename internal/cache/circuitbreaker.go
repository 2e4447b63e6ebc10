package cache

import "sync/atomic"

// breakerThreshold is how many calls of one kind must fail in a row to open the circuit breaker.
const breakerThreshold = 3

// callKind is a kind of call of Redis. A full Redis answers some kinds and fails others, so the
// success of one says nothing about another.
type callKind int

const (
	rowRead   callKind = iota // readScript
	fillWrite                 // fillScript
	logWrite                  // applyScript, renewScript
	stateRead                 // of generation and offset
	callKinds
)

// circuitBreaker keeps readers from a Redis that fails. Readers never close it, so there is no
// half-open state and no library fits: only the goroutine that has applied the missed part of the log
// to Redis closes it.
type circuitBreaker struct {
	failures [callKinds]atomic.Int32 // in a row
	open     atomic.Bool
}

func (b *circuitBreaker) isOpen() bool { return b.open.Load() }

func (b *circuitBreaker) recordSuccess(kind callKind) { b.failures[kind].Store(0) }

// recordFailure counts a failure and reports whether it opened the circuit breaker.
func (b *circuitBreaker) recordFailure(kind callKind) (opened bool) {
	return b.failures[kind].Add(1) >= breakerThreshold && b.open.CompareAndSwap(false, true)
}

// reset closes the circuit breaker and reports whether it was open.
func (b *circuitBreaker) reset() (wasOpen bool) {
	for kind := range b.failures {
		b.failures[kind].Store(0)
	}
	return b.open.Swap(false)
}
