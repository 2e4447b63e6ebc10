// Package dbclock keeps one time for all nodes: that of their database. Rules that outlive a
// request (retention, token lifetimes, throttles, idempotency keys, leases) use it, whatever the
// clocks of the nodes say.
//
// A Clock is the node's monotonic clock plus a measured offset, so reading it costs no round trip,
// and a step of the node's wall clock does not show. On SQLite the database's time is the node's
// wall clock, which the Clock follows.
//
// The package also says when a clock is not to be relied on (CheckSkew, CheckAge), and which windows
// are void that another clock has written (Open, Live).
package dbclock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxSkew is the skew between a node's clock and the database's, or the step of the
	// database's, beyond which work that depends on the clock is not done.
	MaxSkew = 30 * time.Second
	// holdTime is how long a step of the database's clock keeps such work from being done: a
	// step that was a mistake is mostly undone sooner.
	holdTime = time.Hour

	interval      = time.Minute // between two measurements
	lookInterval  = time.Second // between two looks at the wall clock, see drifted
	driftLimit    = time.Second // movement of the wall clock against the monotonic one that is measured at once
	reported      = time.Second // skew or step from which the log tells of it
	attempts      = 3           // round trips of a measurement, of which the shortest counts
	goodRoundTrip = 5 * time.Millisecond
	measureTime   = 5 * time.Second // time limit of a measurement
)

// Source reads the database's time.
type Source func(ctx context.Context) (time.Time, error)

// Clock is the database's time on this node. It is safe for concurrent use.
type Clock struct {
	source Source           // nil if the node's wall clock is the database's
	wall   func() time.Time // the node's wall clock
	fake   func() time.Time // if set, the time

	base   time.Time    // with a monotonic reading, from which time is measured
	offset atomic.Int64 // of the database's clock from base plus the monotonic time since
	skew   atomic.Int64 // of the wall clock from the database's; positive if it is ahead

	mu         sync.Mutex // serializes measurements
	measured   bool
	measuredAt time.Duration // since base
	drift      time.Duration // of the wall clock from the monotonic one at the last measurement
	stepped    atomic.Pointer[step]
}

// step is a step of the database's clock beyond MaxSkew.
type step struct {
	by        time.Duration
	heldUntil time.Duration // since base
}

// New returns a Clock that has the node's time until Measure is called. Without a source the
// database has no clock but the node's.
func New(source Source) *Clock {
	skew, _ := time.ParseDuration(testSkew)
	return newClock(source, func() time.Time { return time.Now().Add(skew) })
}

// testSkew is by how much the wall clock is wrong in a binary that testenv builds: the linker sets it.
var testSkew string

func newClock(source Source, wall func() time.Time) *Clock {
	c := &Clock{source: source, wall: func() time.Time { return wall().Round(0) }, base: time.Now()}
	c.offset.Store(int64(c.wall().Sub(c.base.Round(0))))
	return c
}

// Fake returns a Clock that shows what now returns, for tests.
func Fake(now func() time.Time) *Clock {
	c := New(nil)
	c.fake = now
	return c
}

// Now returns the database's time, in UTC and in the precision that both databases store.
func (c *Clock) Now() time.Time {
	now := c.fake
	if now == nil {
		now = func() time.Time { return c.at(time.Since(c.base)) }
	}
	return now().UTC().Truncate(time.Microsecond)
}

// at returns the database's time at a monotonic time since base.
func (c *Clock) at(elapsed time.Duration) time.Time {
	return c.base.Round(0).Add(elapsed + time.Duration(c.offset.Load()))
}

// Skew returns by how much the node's wall clock was ahead of the database's when it was last
// measured; it is negative if it was behind.
func (c *Clock) Skew() time.Duration { return time.Duration(c.skew.Load()) }

// CheckSkew returns why the node must evaluate nothing by its clock, or nil.
func (c *Clock) CheckSkew() error {
	skew := c.Skew()
	if skew.Abs() <= MaxSkew {
		return nil
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	return fmt.Errorf("the clock of this node is %v %s the database's: have both follow NTP", skew.Abs().Round(time.Millisecond), direction)
}

// CheckAge returns why the node must remove nothing by its age, or nil.
func (c *Clock) CheckAge() error {
	if err := c.CheckSkew(); err != nil {
		return err
	}
	if s := c.stepped.Load(); s != nil && time.Since(c.base) < s.heldUntil {
		return fmt.Errorf("the database's clock stepped by %v: nothing is removed by its age for %v", s.by.Round(time.Millisecond), holdTime)
	}
	return nil
}

// Measure asks the database for its time. It fails if the database does, and leaves the Clock as
// it was then.
func (c *Clock) Measure(ctx context.Context) error {
	_, err := c.measure(ctx)
	return err
}

// reading is one answer of the database.
type reading struct {
	offset time.Duration
	errs   time.Duration // by which the offset may be wrong
}

// measure returns by how much the database's clock has stepped since the last measurement.
func (c *Clock) measure(ctx context.Context) (moved time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	best, err := c.bestReading(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the database's clock: %w", err)
	}
	elapsed := time.Since(c.base)
	drift := c.wall().Sub(c.base.Round(0)) - elapsed
	offset := time.Duration(c.offset.Load())
	if moved = best.offset - offset; c.measured && moved.Abs() <= best.errs {
		moved = 0 // within what cannot be told from the round trip
	}
	offset += moved
	c.offset.Store(int64(offset))
	if !c.measured {
		moved = 0
	}
	if moved.Abs() > MaxSkew {
		c.stepped.Store(&step{moved, elapsed + holdTime})
	}
	c.measured, c.measuredAt, c.drift = true, elapsed, drift
	c.skew.Store(int64(drift - offset))
	return moved, nil
}

// bestReading returns the reading with the shortest of a few round trips.
func (c *Clock) bestReading(ctx context.Context) (best reading, err error) {
	if c.source == nil {
		return reading{offset: c.wall().Sub(c.base.Round(0)) - time.Since(c.base), errs: time.Millisecond}, nil
	}
	for n := range attempts {
		asked := time.Since(c.base)
		at, err := c.source(ctx)
		if err != nil {
			return best, err
		}
		trip := time.Since(c.base) - asked
		if r := (reading{at.Round(0).Sub(c.base.Round(0)) - asked - trip/2, trip/2 + time.Millisecond}); n == 0 || r.errs < best.errs {
			best = r
		}
		if trip <= goodRoundTrip {
			break
		}
	}
	return best, nil
}

// Run measures each minute, and at once when the wall clock has stepped, and tells the log of steps
// and of a skew, until ctx is cancelled; then it returns nil.
func (c *Clock) Run(ctx context.Context, log *slog.Logger) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	c.report(ctx, log, 0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		if !c.due() {
			continue
		}
		moved, err := c.measure(ctx)
		if err != nil {
			if ctx.Err() == nil {
				log.WarnContext(ctx, "the database's clock cannot be read; the next measurement tries again", "error", err)
			}
			c.skipMeasurement()
			continue
		}
		c.report(ctx, log, moved)
	}
}

// due reports whether the clock is to be measured.
func (c *Clock) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	elapsed := time.Since(c.base)
	drift := c.wall().Sub(c.base.Round(0)) - elapsed
	return elapsed-c.measuredAt >= interval || (drift-c.drift).Abs() > driftLimit
}

// skipMeasurement has the next measurement wait for its interval.
func (c *Clock) skipMeasurement() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.measuredAt = time.Since(c.base)
	c.drift = c.wall().Sub(c.base.Round(0)) - c.measuredAt
}

func (c *Clock) report(ctx context.Context, log *slog.Logger, moved time.Duration) {
	if moved.Abs() >= reported {
		log.WarnContext(ctx, "the database's clock stepped; this node follows it", "step", moved)
	}
	switch skewed, stepped := c.CheckSkew(), c.CheckAge(); {
	case skewed != nil:
		log.ErrorContext(ctx, "the clock of this node is wrong: it removes nothing by age and does not evaluate leases of instances", "error", skewed, "skew", c.Skew())
	case stepped != nil:
		log.ErrorContext(ctx, "the database's clock cannot be relied on: this node removes nothing by age", "error", stepped)
	case c.Skew().Abs() >= reported:
		log.WarnContext(ctx, "the clock of this node differs from the database's, whose time counts", "skew", c.Skew())
	}
}
