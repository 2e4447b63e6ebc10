package executor

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/fairshare"
	"github.com/backplane-dev/backplane/internal/fault"
)

// workloadPart divides Limits.Complexity: what the operations of one caller may cost together while they are executed.
const workloadPart = 5

// parsePause is for how many times its duration no other document is parsed for a caller.
const parsePause = 3

// workload bounds how much of the processors one caller uses at a time: the documents that are parsed for
// it, one after the other, and the cost of its operations in execution. Without it one connection with
// a burst of large documents keeps every processor from the others for seconds. Work of the
// server itself is not bounded.
type workload struct {
	parsing   *fairshare.Shares // of one document each
	executing *fairshare.Shares // of cost
	cost      int64             // size of a share of executing
}

func newWorkload(limits Limits) *workload {
	return &workload{parsing: fairshare.New(), executing: fairshare.New(), cost: int64(max(1, limits.Complexity/workloadPart))}
}

// parse waits until no other document is parsed for the caller of ctx, and then for three times as long as the last one
// took: a caller uses a quarter of one processor, and less while others need it. Its error is RATE_LIMITED once ctx has ended.
func (w *workload) parse(ctx context.Context) (release func(), err error) {
	hold, err := w.parsing.Acquire(ctx, fairshare.Caller(ctx), 1, 1)
	if err != nil {
		return nil, errWorkload(err)
	}
	begun := time.Now()
	return func() { time.AfterFunc(parsePause*time.Since(begun), hold.Release) }, nil
}

// execute waits until the operations of the caller in execution leave room for one of the cost; one that costs
// more than a share runs alone. Its error is RATE_LIMITED once ctx has ended.
func (w *workload) execute(ctx context.Context, cost int) (fairshare.Hold, error) {
	hold, err := w.executing.Acquire(ctx, fairshare.Caller(ctx), int64(cost), w.cost)
	return hold, errWorkload(err)
}

func errWorkload(err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.RateLimited, "Your other operations keep the server busy: send fewer or smaller ones at once.").Because(err)
}
