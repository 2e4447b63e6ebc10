package gateway

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// The causes of a call's expiry.
var (
	errIdle  = errors.New("idle timeout: no byte moved in either direction")
	errTotal = errors.New("total timeout: the call took too long")
)

// timers ends a call that is idle, or takes too long in total.
type timers struct {
	start      time.Time
	idle       time.Duration
	progressAt atomic.Int64 // nanoseconds after start
	expire     func(cause error)

	mu      sync.Mutex
	total   time.Duration // 0 for no limit
	timer   *time.Timer
	stopped bool
}

// startTimers starts the timers. It calls expire at most once, on a goroutine of its own, and never after
// stop has returned: the caller's connection then serves the next request. expire must not call timers.
func startTimers(idle, total time.Duration, expire func(cause error)) *timers {
	w := &timers{start: time.Now(), idle: idle, total: total, expire: expire}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.untilDue(0), w.checkLimits)
	return w
}

// recordProgress restarts the idle time: a byte has moved.
func (w *timers) recordProgress() { w.progressAt.Store(int64(time.Since(w.start))) }

// setTotal replaces the total time, 0 for no limit.
func (w *timers) setTotal(total time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total = total
	if !w.stopped {
		w.timer.Reset(max(0, w.untilDue(time.Since(w.start))))
	}
}

// expireNow ends the call for the cause, before any limit is reached.
func (w *timers) expireNow(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.stopped = true
		w.timer.Stop()
		w.expire(cause)
	}
}

func (w *timers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

// untilDue is how long after now the next limit may be reached. The caller holds the lock.
func (w *timers) untilDue(now time.Duration) time.Duration {
	d := time.Duration(w.progressAt.Load()) + w.idle - now
	if w.total > 0 {
		d = min(d, w.total-now)
	}
	return d
}

// checkLimits ends the call if a limit is reached, else waits for the next one. It holds the lock while
// it calls expire, so that stop waits for that.
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
