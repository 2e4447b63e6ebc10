package monotime_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/backplane-dev/backplane/internal/monotime"
)

// stepWall returns t as time.Now would have returned it after a step of the wall clock by whole seconds: its
// monotonic reading stays. A Time with one has the seconds of its wall clock above 30 bits of nanoseconds.
func stepWall(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30
	return t
}

func TestNanos_do_not_step_with_the_wall_clock(t *testing.T) {
	t.Parallel()
	before := time.Now()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		after := stepWall(before.Add(time.Second), by)
		if got := after.Round(0).Sub(before.Round(0)); got != by+time.Second {
			t.Fatalf("the wall clock stepped by %v, want %v and a second", got, by)
		}
		if got := time.Duration(monotime.Nanos(after) - monotime.Nanos(before)); got != time.Second {
			t.Errorf("a second is %v after a step by %v", got, by)
		}
		if got := after.Sub(monotime.Time(monotime.Nanos(before))); got != time.Second {
			t.Errorf("a second since the moment of a number is %v after a step by %v", got, by)
		}
	}
}

func TestNanos_of_now_are_near_Unix_time(t *testing.T) {
	t.Parallel()
	if d := time.Duration(time.Now().UnixNano() - monotime.Now()).Abs(); d > time.Minute {
		t.Errorf("Now differs from Unix time by %v", d)
	}
	if !monotime.Time(0).Before(time.Now().AddDate(-1, 0, 0)) {
		t.Errorf("0 is %v, want long ago", monotime.Time(0))
	}
}
