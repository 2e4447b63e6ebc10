// Package monotime writes moments of the monotonic clock as numbers, for atomic values and keys of
// windows. A time.Time of time.Now has a monotonic reading, its Unix time has none: when the wall
// clock steps, a window between two Unix times would end at once, or last longer by the step.
//
// The numbers are for one process. What outlives it, or leaves it, uses the database's time (package dbclock).
package monotime

import "time"

var (
	origin      = time.Now()
	originNanos = origin.UnixNano()
)

// Now is Nanos of time.Now.
func Now() int64 { return Nanos(time.Now()) }

// Nanos returns t in nanoseconds: what its Unix time would be if the wall clock had not stepped
// since the start of the process. 0 is long ago.
func Nanos(t time.Time) int64 { return originNanos + int64(t.Sub(origin)) }

// Time returns the moment of a number of Nanos, with its monotonic reading.
func Time(nanos int64) time.Time { return origin.Add(time.Duration(nanos - originNanos)) }
