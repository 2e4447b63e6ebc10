package dbclock

import "time"

// Tolerance is by how much a time that another node has written may be in the future: the clock that
// both follow may have been replaced by that of a standby.
const Tolerance = MaxSkew

// Future reports whether a time that was the present when it was written is in the future by more than
// the Tolerance: what begins there is void.
func Future(written, now time.Time) bool { return written.After(now.Add(Tolerance)) }

// Open reports whether a window that began at a time and lasts for a length is open. One that begins in
// the future is void.
func Open(began time.Time, length time.Duration, now time.Time) bool {
	return now.Sub(began) <= length && !Future(began, now)
}

// Live reports whether something is valid that expires at a time, with at most the whole of its
// lifetime left. With more it was written by a wrong clock, and is void.
func Live(expires time.Time, lifetime time.Duration, now time.Time) bool {
	return now.Before(expires) && !Future(expires.Add(-lifetime), now)
}
