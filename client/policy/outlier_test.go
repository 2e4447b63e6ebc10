package policy

import (
	"testing"
	"time"
	"unsafe"
)

// fail lets calls of one instance fail, as long as it is picked, n times.
func fail(t *testing.T, p *pool, all *set, bad func(i int) bool, picks int) (counts []int) {
	t.Helper()
	counts = make([]int, len(all.Instances))
	for range picks {
		i, got := pick(t, p, all, RoundRobin, "")
		got.Done(!bad(i), time.Millisecond)
		counts[i]++
	}
	return counts
}

func is(n int) func(int) bool { return func(i int) bool { return i == n } }

func TestEjection_after_failures_in_a_row(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	if got := fail(t, p, all, is(2), 1000); got[2] > 6 {
		t.Fatalf("an instance that always fails got %d of 1000 calls, want 5", got[2])
	}
	for _, s := range strategies {
		if got := spread(t, p, all, s, 400); got[2] != 0 {
			t.Errorf("%s picked the ejected instance %d times", s, got[2])
		}
	}
}

func TestEjection_ends_and_the_instance_comes_back_slowly(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{Eject: 10 * time.Second, SlowStart: 10 * time.Second})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	fail(t, p, all, is(2), 100)
	c.advance(9 * time.Second)
	if got := spread(t, p, all, RoundRobin, 400); got[2] != 0 {
		t.Fatalf("it came back %d times before its time", got[2])
	}
	c.advance(time.Second)
	var shares []int
	for range 11 {
		shares = append(shares, spread(t, p, all, RoundRobin, 4000)[2])
		c.advance(time.Second)
	}
	if shares[0] > 200 || shares[0] == 0 || shares[10] != 1000 {
		t.Errorf("its shares of 4000 were %v, want about 130 at first and 1000 in the end", shares)
	}
	for i := 1; i < len(shares); i++ {
		if shares[i] < shares[i-1] {
			t.Errorf("its shares of 4000 were %v, want them to grow", shares)
		}
	}
}

func TestEjection_lasts_longer_each_time(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{Eject: time.Second, SlowStart: time.Nanosecond})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	for round := range 3 {
		fail(t, p, all, is(2), 100)
		c.advance(time.Duration(round+1)*time.Second - time.Millisecond)
		if got := spread(t, p, all, RoundRobin, 40); got[2] != 0 {
			t.Fatalf("ejection %d ended early", round+1)
		}
		c.advance(time.Millisecond)
		spread(t, p, all, RoundRobin, 1)
		c.advance(time.Millisecond) // the end of its slow start
		if got := spread(t, p, all, RoundRobin, 4); got[2] != 1 {
			t.Fatalf("ejection %d did not end in time: %v", round+1, got)
		}
	}
}

func TestEjection_is_capped(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), equal(5)...)
	got := fail(t, p, all, func(int) bool { return true }, 500)
	out := 0
	for _, m := range p.of(all).members {
		if m.ejected.Load() {
			out++
		}
	}
	if out != 2 {
		t.Errorf("%d of 5 are out, want 2, at most half: %v", out, got)
	}
}

func TestEjection_by_success_rate(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	b := p.of(all)
	calls := make([]int, 4)
	for range 400 {
		i, got := pick(t, p, all, RoundRobin, "")
		calls[i]++
		got.Done(i != 1 || calls[i]%5 > 1, time.Millisecond) // of i1 two in five fail, never five in a row
	}
	c.advance(11 * time.Second)
	fail(t, p, all, is(-1), 1) // ends the interval
	if !b.members[1].ejected.Load() || b.ejected != 1 {
		t.Errorf("%d are out, want the one that fails most", b.ejected)
	}
}

func TestEjection_spares_instances_when_all_do_badly(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	b := p.of(all)
	for range 3 {
		for k := range 400 {
			_, got := pick(t, p, all, RoundRobin, "")
			got.Done(k/4%2 == 0, time.Millisecond)
		}
		c.advance(11 * time.Second)
	}
	if b.ejected != 0 {
		t.Errorf("%d are out although all fail alike", b.ejected)
	}
}

func TestEjection_of_who_loses_calls(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lost func(i int) bool
		out  int
	}{
		"one loses all of its calls":  {is(2), 1},
		"no outcome is ever reported": {func(int) bool { return true }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, c := newPool(t, Config{})
			all := setOf(c.now().Add(-time.Hour), equal(4)...)
			b := p.of(all)
			fail(t, p, all, is(-1), 1) // begins an interval
			for range 400 {
				i, got := pick(t, p, all, RoundRobin, "")
				if tt.lost(i) {
					got.Lost()
				} else {
					got.Done(true, time.Millisecond)
				}
			}
			if b.ejected != 0 {
				t.Errorf("%d are out before all were compared: a lost call is no failure in a row", b.ejected)
			}
			c.advance(11 * time.Second)
			_, last := pick(t, p, all, RoundRobin, "")
			last.Lost() // ends the interval
			if b.ejected != tt.out || b.members[2].ejected.Load() != (tt.out == 1) {
				t.Errorf("%d are out, want %d", b.ejected, tt.out)
			}
			if left := p.Inflight(); len(left) > 0 {
				t.Errorf("lost calls are still under way: %v", left)
			}
		})
	}
}

func TestEjection_of_who_takes_far_longer_than_others(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	b := p.of(all)
	for range 400 {
		i, got := pick(t, p, all, RoundRobin, "")
		took := time.Millisecond
		if i == 3 {
			took = time.Second
		}
		got.Done(true, took)
	}
	c.advance(11 * time.Second)
	fail(t, p, all, is(-1), 1) // ends the interval
	if !b.members[3].ejected.Load() {
		t.Error("an instance that takes a thousand times longer was not ejected")
	}
}

func TestSlowStart_of_a_new_instance(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	old := setOf(c.now().Add(-time.Hour), 1, 1, 1, 1)
	spread(t, p, old, RoundRobin, 10)
	old.Instances[3].Since = c.now()
	all := &set{Instances: old.Instances}
	for _, s := range []Strategy{RoundRobin, Random, LeastConnections, PowerOfTwo} {
		if got := spread(t, p, all, s, 3100)[3]; got > 150 {
			t.Errorf("%s gave a new instance %d of 3100 calls, want about 100", s, got)
		}
	}
	c.advance(11 * time.Second)
	if got := spread(t, p, all, RoundRobin, 4000)[3]; got != 1000 {
		t.Errorf("once warm it got %d of 4000 calls, want 1000", got)
	}
}

func TestSlowStart_does_not_count_while_all_are_new(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now(), 1, 2, 3)
	all.Instances[0].Since = c.now().Add(-3 * time.Second)
	if got := spread(t, p, all, RoundRobin, 600); got[0] != 100 || got[1] != 200 || got[2] != 300 {
		t.Errorf("600 picks gave %v, want 100, 200 and 300", got)
	}
}

func TestPanic_ignores_ejections_when_too_few_are_left(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), equal(4)...)
	fail(t, p, all, func(i int) bool { return i < 2 }, 200) // two of four are out
	rest := &set{Instances: all.Instances[:2]}
	for _, s := range strategies {
		if got := spread(t, p, rest, s, 100); got[0]+got[1] != 100 {
			t.Errorf("%s picked %v", s, got)
		}
	}
	if got := spread(t, p, rest, RoundRobin, 100); got[0] != 50 {
		t.Errorf("when only ejected ones are left 100 picks gave %v, want 50 each", got)
	}
}

func TestConfig_refuses_what_makes_no_sense(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{Failures: -1}, {MaxEjected: 1.5}, {Panic: -0.1}, {SlowRatio: 0.5}, {SuccessRatio: 2}} {
		if _, err := New(time.Now, cfg); err == nil {
			t.Errorf("NewPool takes %+v", cfg)
		}
	}
}

// stepWall returns at as time.Now would have returned it after a step of the wall clock by whole seconds: its
// monotonic reading stays. A Time with one has the seconds of its wall clock above 30 bits of nanoseconds.
func stepWall(at time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&at)) += uint64(by/time.Second) << 30
	return at
}

func TestEjection_ends_in_its_time_when_the_wall_clock_steps(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		now := time.Now()
		b, err := New(func() time.Time { return now }, Config{Eject: 10 * time.Second, SlowStart: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		p := &pool{Balancer: b}
		all := setOf(now.Add(-time.Hour), equal(4)...)
		fail(t, p, all, is(2), 100)
		now = stepWall(now, by)
		for _, tt := range []struct {
			after time.Duration
			in    bool
		}{{0, false}, {9 * time.Second, false}, {time.Second, true}} {
			now = now.Add(tt.after)
			if got := spread(t, p, all, RoundRobin, 400); (got[2] > 0) != tt.in {
				t.Errorf("after a step by %v and %v more the ejected instance got %d calls, want some: %t", by, tt.after, got[2], tt.in)
			}
		}
	}
}
