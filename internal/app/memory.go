package app

import (
	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/backplane-dev/backplane/internal/membudget"
)

// heapRatio is the part of the memory that the process may have at which the garbage collector
// works harder. The rest is for stacks of system calls, SQLite and the kernel's buffers.
const heapRatio = 0.9

// LimitHeap sets the soft memory limit of the Go runtime from that of the container, or else
// from the machine's memory, unless GOMEMLIMIT is set.
func LimitHeap(env Env) {
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

// NewMemory builds the budget of memory that all transports share.
func NewMemory(env Env) *membudget.Budget {
	return membudget.New(env.Config.HTTP.MemoryBytes, env.Config.HTTP.QueueTime)
}
