package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff gives pauses between tries: longer after each failure, and never in step with
// other clients that failed at the same moment.
type backoff struct {
	first, most time.Duration
	tries       int
}

// next returns how long to wait before the next try: half of what it gives is chance.
func (b *backoff) next() time.Duration {
	d := min(b.first<<min(b.tries, 16), b.most)
	b.tries++
	return d/2 + rand.N(d/2+1) //nolint:gosec // nothing to guess
}

func (b *backoff) reset() { b.tries = 0 }

// sleep waits, or until ctx is over.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
