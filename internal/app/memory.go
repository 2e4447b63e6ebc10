package app

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/backplane-dev/backplane/internal/membudget"
)

// heapRatio is the part of the memory that the process may have at which the garbage collector
// works harder. The rest is for stacks of system calls, SQLite and the kernel's buffers.
const heapRatio = 0.9

// LimitHeap sets the soft memory limit of the Go runtime from that of the container, or else
// from the machine's memory, unless GOMEMLIMIT is set. Unless GOGC is set, it also lets the heap grow
// by a headroom before it is collected, so that a small heap is not collected many times a second.
func LimitHeap(env Env) {
	defer keepHeadroom()
	limit, err := memlimit.Set(
		memlimit.WithRatio(heapRatio),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	)
	if err != nil {
		env.Log.Warn("the memory limit is unknown: set GOMEMLIMIT", "error", err)
		return
	}
	if limit > 0 {
		env.Log.Debug("soft memory limit set", "bytes", limit)
	}
}

// Bounds of the headroom.
const (
	headroomPart = 16        // of the memory limit
	maxHeadroom  = 128 << 20 // in bytes
)

// keepHeadroom sets the percentage of the garbage collector after each collection, by what is live then.
func keepHeadroom() {
	if os.Getenv("GOGC") != "" {
		return
	}
	headroom := uint64(maxHeadroom)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		headroom = min(headroom, uint64(limit)/headroomPart) //nolint:gosec // never negative
	}
	set := 0
	afterEachCollection(func() {
		if percent := gcPercent(liveBytes(), headroom); percent != set { // setting it stops all goroutines for a moment
			set = percent
			debug.SetGCPercent(percent)
		}
	})
}

// gcPercent returns by how much the heap may grow until the next collection, in percent of what is live: to the
// double, as by default, or by the headroom if that is more.
func gcPercent(live, headroom uint64) int {
	live = max(live, 1<<20)
	return int(max(100, 100*headroom/live)) //nolint:gosec // a few thousand at most
}

func liveBytes() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return live[0].Value.Uint64()
}

// afterEachCollection calls fn after each garbage collection from now on.
func afterEachCollection(fn func()) {
	type sentinel struct{ _ *int } // unreachable at once, so each collection finds it
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		fn()
		afterEachCollection(fn)
	})
}

// NewMemory builds the budget of memory that all transports share.
func NewMemory(env Env) *membudget.Budget {
	return membudget.New(env.Config.HTTP.MemoryBytes, env.Config.HTTP.QueueTime)
}
