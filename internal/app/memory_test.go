package app

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestGCPercent_keeps_a_headroom(t *testing.T) {
	t.Parallel()
	const MiB = 1 << 20
	for _, c := range []struct {
		live, headroom uint64
		want           int
	}{
		{0, 128 * MiB, 12800}, {MiB, 128 * MiB, 12800}, {32 * MiB, 128 * MiB, 400}, {127 * MiB, 128 * MiB, 100},
		{128 * MiB, 128 * MiB, 100}, {4096 * MiB, 128 * MiB, 100}, {32 * MiB, 8 * MiB, 100}, {32 * MiB, 0, 100},
	} {
		if got := gcPercent(c.live, c.headroom); got != c.want {
			t.Errorf("gcPercent(%d, %d) = %d, want %d", c.live, c.headroom, got, c.want)
		}
	}
	if liveBytes() == 0 {
		runtime.GC()
		if liveBytes() == 0 {
			t.Error("the runtime does not say what is live")
		}
	}
}

func TestAfterEachCollection_is_called_again_and_again(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	afterEachCollection(func() { calls.Add(1) })
	for want := range int32(3) {
		testenv.Eventually(t, "the function is called after a collection", func() bool { runtime.GC(); return calls.Load() > want })
	}
}
