package membudget

import (
	"context"
	"io"
	"sync"

	"github.com/backplane-dev/backplane/internal/fairshare"
)

// Grant is the bytes that one request or operation holds. It is safe for concurrent use. A
// nil Grant has no limit.
type Grant struct {
	budget *Budget
	owners []owner

	mu     sync.Mutex
	shares []*fairshare.Share // nil until the grant takes its first bytes, and after Release
	bytes  int64
}

// Take adds n bytes to the grant. It waits until they are free, for the time that the budget
// gives; its error is RATE_LIMITED if the owner holds too much, SERVER_BUSY if all callers
// together do, or that of ctx. One grant holds at most a caller's share: what is beyond it is
// not counted.
func (g *Grant) Take(ctx context.Context, n int64) error {
	if g == nil || n <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.budget.wait)
	defer cancel()
	return g.take(ctx, n)
}

// Await is Take without a time limit of its own, for streams: it waits until ctx ends.
func (g *Grant) Await(ctx context.Context, n int64) error {
	if g == nil || n <= 0 {
		return nil
	}
	return g.take(ctx, n)
}

// TryTake is Take without a wait: it reports false if the bytes are not free, and takes none.
func (g *Grant) TryTake(n int64) bool {
	if g == nil || n <= 0 {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n = min(n, g.budget.Caller()-g.bytes); n == 0 {
		return true
	}
	shares := g.join()
	for i, s := range shares {
		if !s.TryAcquire(n) {
			releaseAll(shares[:i], n)
			return false
		}
	}
	if !g.budget.total.TryAcquire(n) {
		releaseAll(shares, n)
		return false
	}
	g.bytes += n
	return true
}

// take acquires the bytes of the owners first and of the total last, so that who waits for
// its own share holds nothing of the others'.
func (g *Grant) take(ctx context.Context, n int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n = min(n, g.budget.Caller()-g.bytes); n == 0 {
		return nil
	}
	shares := g.join()
	for i, s := range shares {
		if s.Acquire(ctx, n) != nil {
			releaseAll(shares[:i], n)
			return g.errWait(ctx, errShare(g.budget.wait))
		}
	}
	if g.budget.total.Acquire(ctx, n) != nil {
		releaseAll(shares, n)
		return g.errWait(ctx, errTotal(g.budget.wait))
	}
	g.bytes += n
	return nil
}

// errWait returns why waiting ended: the caller has gone, or err.
func (g *Grant) errWait(ctx context.Context, err error) error {
	if ctx.Err() == context.Canceled {
		return ctx.Err()
	}
	return err
}

func (g *Grant) join() []*fairshare.Share {
	if g.shares == nil {
		g.shares = g.budget.joinShares(g.owners)
	}
	return g.shares
}

// Shrink returns the bytes of the grant beyond n.
func (g *Grant) Shrink(n int64) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if extra := g.bytes - max(n, 0); extra > 0 {
		g.free(extra)
	}
}

// Bytes returns how many bytes the grant holds.
func (g *Grant) Bytes() int64 {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bytes
}

func (g *Grant) free(n int64) {
	releaseAll(g.shares, n)
	g.budget.total.Release(n)
	g.bytes -= n
}

// Release returns all bytes. The grant may take some again.
func (g *Grant) Release() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bytes > 0 {
		g.free(g.bytes)
	}
	if g.shares != nil {
		g.budget.leaveShares(g.shares)
		g.shares = nil
	}
}

func releaseAll(shares []*fairshare.Share, n int64) {
	for _, s := range shares {
		s.Release(n)
	}
}

// JSONFactor is how many bytes of memory a byte of JSON takes, read and decoded: an empty object in
// an array is three bytes of it.
const JSONFactor = 16

// readStep is how many bytes of a body are taken at a time, and are free at its beginning.
const readStep = 4 << 10

// Reader returns r with the bytes that it yields taken from the grant before they are read,
// each times factor. The first 4 KiB are free. Its error is that of Take.
func (g *Grant) Reader(ctx context.Context, r io.Reader, factor int64) io.Reader {
	if g == nil {
		return r
	}
	return &reader{ctx: ctx, grant: g, from: r, factor: factor, paid: readStep}
}

type reader struct {
	ctx    context.Context
	grant  *Grant
	from   io.Reader
	factor int64
	paid   int64 // bytes that may be read before more must be taken
	steps  int64
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.paid == 0 {
		r.steps = min(2*r.steps+1, 16) // few steps for a long body
		if err := r.grant.Take(r.ctx, r.steps*readStep*r.factor); err != nil {
			return 0, err
		}
		r.paid = r.steps * readStep
	}
	n, err := r.from.Read(p[:min(int64(len(p)), r.paid)])
	r.paid -= int64(n)
	return n, err
}

type grantKey struct{}

// WithGrant returns a context in which operations take their memory from the grant.
func WithGrant(ctx context.Context, g *Grant) context.Context {
	return context.WithValue(ctx, grantKey{}, g)
}

// GrantFrom returns the grant of ctx, nil if it has none.
func GrantFrom(ctx context.Context) *Grant {
	g, _ := ctx.Value(grantKey{}).(*Grant)
	return g
}
