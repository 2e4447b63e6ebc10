package store

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/fairshare"
	"github.com/backplane-dev/backplane/internal/fault"
)

// Bounds of a queue, beyond which it is congested: far more calls and time than a burst takes, and
// less than the callers wait for an answer.
const (
	minQueueLength = 32
	queueFactor    = 4 // calls that wait for each connection
	maxQueueDelay  = 500 * time.Millisecond
)

// queue is where calls wait for the connections of a pool, in their order. While it is congested
// (many calls wait, and for long) it refuses operations that have not used the database yet, so
// that those which have begun finish: admission control. A database that stalls then does not
// gather more work than it can do once it is back.
type queue struct {
	conns     *semaphore.Weighted
	maxLength int64

	length    atomic.Int64 // calls that wait
	waits     atomic.Int64 // calls that have waited, in all
	refusals  atomic.Int64
	lastDelay atomic.Int64 // nanoseconds that the last call waited that got a connection
	lastGrant atomic.Int64 // when it got it, in nanoseconds since the start of the queue
	start     time.Time
}

func newQueue(conns int) *queue {
	return &queue{conns: semaphore.NewWeighted(int64(conns)), maxLength: int64(max(minQueueLength, queueFactor*conns)), start: time.Now()}
}

// acquire waits for a connection, or until ctx ends. Its error is that of ctx, or SERVER_BUSY.
func (q *queue) acquire(ctx context.Context) error {
	if q.conns.TryAcquire(1) {
		q.grant(ctx, 0)
		return nil
	}
	if !fairshare.IsAdmitted(ctx) && q.isCongested() {
		q.refusals.Add(1)
		return fault.New(fault.ServerBusy, "The database is busy; try again in a moment.").After(time.Second)
	}
	q.waits.Add(1)
	q.length.Add(1)
	defer q.length.Add(-1)
	began := time.Now()
	if err := q.conns.Acquire(ctx, 1); err != nil {
		return err
	}
	q.grant(ctx, time.Since(began))
	return nil
}

func (q *queue) grant(ctx context.Context, delay time.Duration) {
	q.lastDelay.Store(int64(delay))
	q.lastGrant.Store(int64(time.Since(q.start)))
	fairshare.Admit(ctx)
}

// isCongested reports whether many calls wait and the last one that got a connection waited for long, or
// none has got one for as long.
func (q *queue) isCongested() bool {
	sinceGrant := time.Since(q.start) - time.Duration(q.lastGrant.Load())
	return q.length.Load() >= q.maxLength && max(time.Duration(q.lastDelay.Load()), sinceGrant) > maxQueueDelay
}

func (q *queue) release() { q.conns.Release(1) }
