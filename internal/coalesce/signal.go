// Package coalesce merges wake-ups: however many are sent while a goroutine is
// busy, it wakes once for all of them.
package coalesce

// Signal is a wake-up for one waiting goroutine, which receives from it. Make it with
// NewSignal; a nil Signal never wakes.
type Signal chan struct{}

// NewSignal returns a Signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set wakes the receiver, or makes its next receive return at once. It never blocks;
// calls between two receives are one. It is safe for concurrent use.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
