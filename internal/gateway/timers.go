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

// timers ends a call that does not move, or takes too long in all.
type timers struct {
	start      time.Time
	idle       time.Duration
	progressAt atomic.Int64 // nanoseconds after start
	expire     func(cause error)

	mu      sync.Mutex
	total   time.Duration // 0 for none
	timer   *time.Timer
	stopped bool
}

// startTimers starts the timers. It calls end at most once, on a goroutine of its own, and never after
// stop has returned: the caller's connection then serves the next request. End must not call the watch.
func startTimers(idle, total time.Duration, end func(cause error)) *timers {
	w := &timers{start: time.Now(), idle: idle, total: total, expire: end}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.untilDue(0), w.checkLimits)
	return w
}

// recordProgress says that a byte has moved.
func (w *timers) recordProgress() { w.progressAt.Store(int64(time.Since(w.start))) }

// setTotal sets another total, 0 for none.
func (w *timers) setTotal(total time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total = total
	if !w.stopped {
		w.timer.Reset(max(0, w.untilDue(time.Since(w.start))))
	}
}

func (w *timers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

// untilDue is how long after now something may be over. The caller holds the lock.
func (w *timers) untilDue(now time.Duration) time.Duration {
	d := time.Duration(w.progressAt.Load()) + w.idle - now
	if w.total > 0 {
		d = min(d, w.total-now)
	}
	return d
}

// checkLimits ends the call if it is time, else looks again when it may be. It holds the lock meanwhile,
// so that stop waits for it.
func (w *timers) checkLimits() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Since(w.start)
	switch {
	case w.stopped:
	case w.total > 0 && now >= w.total:
		w.stopped = true
		w.expire(errTotal)
	case now-time.Duration(w.progressAt.Load()) >= w.idle:
		w.stopped = true
		w.expire(errIdle)
	default:
		w.timer.Reset(max(0, w.untilDue(now)))
	}
}
