// Package backoff computes pauses between attempts: exponential, capped, and with
// jitter, so that nodes that failed together do not retry in step. It also has the
// interruptible sleep that goes with them.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy is an exponential backoff. First is the pause after the first failure; each
// further failure in a row doubles it, up to Max.
type Policy struct {
	First, Max time.Duration
}

// maxDoublings keeps the shift below an overflow for any First up to an hour.
const maxDoublings = 20

// Delay returns the pause after so many failures in a row, at least 1, with jitter.
func (p Policy) Delay(failures int) time.Duration {
	return Jitter(min(p.First<<min(max(failures, 1)-1, maxDoublings), p.Max))
}

// Jitter returns a random time between d and half as much again.
func Jitter(d time.Duration) time.Duration {
	return d + rand.N(d/2+1) //nolint:gosec // not a secret
}

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
