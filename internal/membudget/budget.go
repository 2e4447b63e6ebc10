// Package membudget bounds the memory that requests take on this node: a weighted semaphore of
// bytes, with a share for each caller and each address, so that no client takes all of it.
//
// What costs memory takes its bytes from a Grant before it allocates them: a request body
// beyond a few KiB, the objects and texts of a response in execution. The grant is released
// once the response is written, so a client that does not read holds bytes of its own share.
//
// Bytes are estimates of the heap that a request keeps alive, rounded up; the budget does not
// measure. Invariants: the grants together never hold more than the total, and those of one
// owner never more than a share. Waiters of one owner are served in their order.
package membudget

import (
	"cmp"
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fairshare"
	"github.com/backplane-dev/backplane/internal/fault"
)

// Parts of the total that one owner may hold.
const (
	callerPart  = 4 // a quarter: a user, or the anonymous callers of one address
	addressPart = 2 // a half: all callers of one address
)

// Budget is the memory for all requests of a node. It is safe for concurrent use. A nil Budget
// has no limit.
type Budget struct {
	size  int64
	wait  time.Duration
	total *semaphore.Weighted

	shares *fairshare.Shares // of owners with a grant that holds bytes or waits for some
}

// New returns a budget of size bytes. A grant waits for at most wait until bytes are free.
func New(size int64, wait time.Duration) *Budget {
	return &Budget{size: size, wait: wait, total: semaphore.NewWeighted(size), shares: fairshare.New()}
}

// Caller returns the bytes that one caller may hold: what a single request can have.
func (b *Budget) Caller() int64 {
	if b == nil {
		return 1 << 62
	}
	return b.size / callerPart
}

// Open returns an empty grant of the caller of ctx: of its principal, or of the anonymous
// callers of its address, and of its address in both cases. The caller of Open releases it.
func (b *Budget) Open(ctx context.Context) *Grant {
	if b == nil {
		return nil
	}
	address := auth.ClientFrom(ctx).Network()
	caller := cmp.Or(fairshare.Caller(ctx), "anonymous")
	return &Grant{budget: b, owners: []owner{{caller, callerPart}, {"address " + address, addressPart}}}
}

// OpenShared returns an empty grant of what several callers share, such as responses of equal
// subscriptions: it counts against no caller.
func (b *Budget) OpenShared() *Grant {
	if b == nil {
		return nil
	}
	return &Grant{budget: b, owners: []owner{{"shared", callerPart}}}
}

func (b *Budget) joinShares(owners []owner) []*fairshare.Share {
	all := make([]*fairshare.Share, len(owners))
	for i, o := range owners {
		all[i] = b.shares.Join(o.name, b.size/o.part)
	}
	return all
}

func (b *Budget) leaveShares(all []*fairshare.Share) {
	for _, s := range all {
		b.shares.Leave(s)
	}
}

// owner is what a grant counts against, and which part of the total it may hold.
type owner struct {
	name string
	part int64
}

func errShare(wait time.Duration) error {
	return fault.New(fault.RateLimited, "Your requests hold as much memory as those of one caller may: read the responses, or send fewer at once.").After(wait)
}

func errTotal(wait time.Duration) error {
	return fault.New(fault.ServerBusy, "The server has no memory to spare for another request; try again in a moment.").After(wait)
}
