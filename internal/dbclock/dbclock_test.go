package dbclock

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDatabase is a database and a node in a bubble of synctest, whose clocks are off by so much.
type fakeDatabase struct {
	mu               sync.Mutex
	ahead, nodeAhead time.Duration
	latency          time.Duration
	err              error
	reads            int
}

// change alters the clocks, or the database, while others use them.
func (d *fakeDatabase) change(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn()
}

func (d *fakeDatabase) now() (at time.Time) {
	d.change(func() { at = time.Now().Add(d.ahead) })
	return at
}

func (d *fakeDatabase) nodeNow() (at time.Time) {
	d.change(func() { at = time.Now().Add(d.nodeAhead) })
	return at
}

func (d *fakeDatabase) read(context.Context) (at time.Time, err error) {
	var latency time.Duration
	d.change(func() {
		d.reads++
		latency, err = d.latency, d.err
	})
	time.Sleep(latency / 2)
	at = d.now()
	time.Sleep(latency / 2)
	return at, err
}

func (d *fakeDatabase) clock() *Clock { return newClock(d.read, d.nodeNow) }

func measure(t *testing.T, c *Clock) {
	t.Helper()
	if err := c.Measure(t.Context()); err != nil {
		t.Fatalf("Measure = %v", err)
	}
}

func near(a, b time.Time, tolerance time.Duration) bool { return a.Sub(b).Abs() <= tolerance }

func TestClock_shows_the_databases_time(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDatabase{nodeAhead: 40 * 24 * time.Hour, latency: 80 * time.Millisecond}
		c := d.clock()
		measure(t, c)
		time.Sleep(time.Hour)
		if !near(c.Now(), d.now(), time.Microsecond) || c.Skew() != d.nodeAhead {
			t.Errorf("Now = %v with a skew of %v, want the database's %v and %v", c.Now(), c.Skew(), d.now(), d.nodeAhead)
		}
		d.change(func() { d.nodeAhead = -time.Hour }) // a step of the wall clock does not show
		if !near(c.Now(), d.now(), time.Microsecond) {
			t.Errorf("after a step of the node's clock Now = %v, want %v", c.Now(), d.now())
		}
	})
}

func TestClock_moves_only_as_far_as_a_measurement_proves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDatabase{}
		c := d.clock()
		measure(t, c)
		before := time.Duration(c.offset.Load())
		d.change(func() { d.latency, d.ahead = 2*time.Second, 500*time.Millisecond })
		measure(t, c)
		if got := time.Duration(c.offset.Load()); got != before {
			t.Errorf("a slow round trip moved the clock by %v", got-before)
		}
		d.change(func() { d.latency = 20 * time.Millisecond })
		measure(t, c)
		if !near(c.Now(), d.now(), 11*time.Millisecond) {
			t.Errorf("Now = %v, want %v", c.Now(), d.now())
		}
	})
}

func TestClock_checks_skew_and_steps(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ahead, nodeAhead time.Duration // set after the first measurement
		skewed, aged     string        // parts of the errors
	}{
		"small skew":      {0, MaxSkew, "", ""},
		"node ahead":      {0, 35 * time.Second, "35s ahead of", "35s ahead of"},
		"node behind":     {0, -time.Hour, "1h0m0s behind", "1h0m0s behind"},
		"both stepped":    {time.Hour, time.Hour, "", "stepped by 1h0m0s"},
		"stepped back":    {-time.Hour, -time.Hour, "", "stepped by -1h0m0s"},
		"a standby's":     {20 * time.Second, 0, "", ""},
		"database astray": {40 * 24 * time.Hour, 0, "behind", "behind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDatabase{}
				c := d.clock()
				measure(t, c)
				d.change(func() { d.ahead, d.nodeAhead = tt.ahead, tt.nodeAhead })
				measure(t, c)
				for what, check := range map[string]struct {
					err  error
					want string
				}{"CheckSkew": {c.CheckSkew(), tt.skewed}, "CheckAge": {c.CheckAge(), tt.aged}} {
					if (check.err == nil) != (check.want == "") || check.err != nil && !strings.Contains(check.err.Error(), check.want) {
						t.Errorf("%s = %v, want %q", what, check.err, check.want)
					}
				}
				d.change(func() { d.nodeAhead = d.ahead })
				measure(t, c)
				time.Sleep(holdTime)
				if err := errors.Join(c.CheckSkew(), c.CheckAge()); err != nil {
					t.Errorf("an hour after the clocks agree, the checks give %v", err)
				}
			})
		})
	}
}

func TestClock_without_a_source_follows_the_wall_clock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDatabase{}
		c := newClock(nil, d.nodeNow)
		measure(t, c)
		go func() { _ = c.Run(t.Context(), slog.New(slog.DiscardHandler)) }()
		for _, step := range []time.Duration{time.Hour, -2 * time.Hour} {
			d.change(func() { d.nodeAhead = step })
			time.Sleep(lookInterval)
			synctest.Wait()
			if !near(c.Now(), d.nodeNow(), time.Millisecond) || c.CheckSkew() != nil || c.CheckAge() == nil {
				t.Errorf("after a step by %v: Now = %v, want %v; CheckSkew = %v, CheckAge = %v, want only the latter to refuse", step, c.Now(), d.nodeNow(), c.CheckSkew(), c.CheckAge())
			}
		}
	})
}

func TestClock_Run_measures_each_minute_and_at_a_step(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDatabase{}
		c := d.clock()
		var logged strings.Builder
		go func() { _ = c.Run(t.Context(), slog.New(slog.NewTextHandler(&logged, nil))) }()
		measure(t, c)
		time.Sleep(interval + lookInterval)
		synctest.Wait()
		if d.reads != 2 || logged.Len() > 0 {
			t.Errorf("%d reads in the first minute, log %q; want 2 and nothing", d.reads, logged.String())
		}
		d.change(func() { d.nodeAhead = -time.Minute })
		time.Sleep(lookInterval)
		synctest.Wait()
		if d.reads != 3 || !strings.Contains(logged.String(), "level=ERROR") || !strings.Contains(logged.String(), "1m0s behind") {
			t.Errorf("%d reads after a step, log %q; want 3 and an error", d.reads, logged.String())
		}
		d.change(func() { d.err = errors.New("gone") })
		time.Sleep(3 * interval)
		synctest.Wait()
		if d.reads > 6 || c.CheckSkew() == nil || !near(c.Now(), d.now(), time.Millisecond) {
			t.Errorf("without a database: %d reads, CheckSkew = %v, Now = %v; want one a minute, and what was known", d.reads, c.CheckSkew(), c.Now())
		}
	})
}

func TestWindows_of_the_future_are_void(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const length = time.Minute
	for name, tt := range map[string]struct {
		began time.Time
		want  bool
	}{
		"now":                      {now, true},
		"at its end":               {now.Add(-length), true},
		"after its end":            {now.Add(-length - 1), false},
		"by a clock of a standby":  {now.Add(Tolerance), true},
		"in the future":            {now.Add(Tolerance + 1), false},
		"by a clock of 40 days on": {now.Add(40 * 24 * time.Hour), false},
	} {
		if got := Open(tt.began, length, now); got != tt.want {
			t.Errorf("%s: Open = %v, want %v", name, got, tt.want)
		}
		want := tt.want && name != "at its end" // expiry is exclusive
		if got := Live(tt.began.Add(length), length, now); got != want {
			t.Errorf("%s: Live = %v, want %v", name, got, want)
		}
	}
}
