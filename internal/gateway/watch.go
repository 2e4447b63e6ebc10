package gateway

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// The ends of a call that took too long.
var (
	errIdle  = errors.New("nothing moved for too long")
	errTotal = errors.New("the call took too long in all")
)

// watch ends a call that does not move, or takes too long in all.
type watch struct {
	start time.Time
	idle  time.Duration
	moved atomic.Int64 // nanoseconds after start
	end   func(cause error)

	mu    sync.Mutex
	total time.Duration // 0 for none
	timer *time.Timer
	over  bool
}

// newWatch starts the timers. It calls end at most once, on a goroutine of its own, and never after
// stop has returned: the caller's connection then serves the next request. End must not call the watch.
func newWatch(idle, total time.Duration, end func(cause error)) *watch {
	w := &watch{start: time.Now(), idle: idle, total: total, end: end}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.next(0), w.look)
	return w
}

// touch says that a byte has moved.
func (w *watch) touch() { w.moved.Store(int64(time.Since(w.start))) }

// limit sets another total, 0 for none.
func (w *watch) limit(total time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total = total
	if !w.over {
		w.timer.Reset(max(0, w.next(time.Since(w.start))))
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// next is how long after now something may be over. The caller holds the lock.
func (w *watch) next(now time.Duration) time.Duration {
	d := time.Duration(w.moved.Load()) + w.idle - now
	if w.total > 0 {
		d = min(d, w.total-now)
	}
	return d
}

// look ends the call if it is time, else looks again when it may be. It holds the lock meanwhile,
// so that stop waits for it.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Since(w.start)
	switch {
	case w.over:
	case w.total > 0 && now >= w.total:
		w.over = true
		w.end(errTotal)
	case now-time.Duration(w.moved.Load()) >= w.idle:
		w.over = true
		w.end(errIdle)
	default:
		w.timer.Reset(max(0, w.next(now)))
	}
}
