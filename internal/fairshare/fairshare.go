// Package fairshare bounds how much of a resource of this node one caller holds at a time: each
// owner of a share has a weighted semaphore.
//
// Shares are reference counted: one exists while its owner holds or awaits some of the
// resource, so their number is bounded by what is in use. Waiters of one share are served in
// their order, and never hold up the waiters of another.
package fairshare

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
)

// Shares are the shares of the owners that hold or await some of a resource. It is safe for
// concurrent use.
type Shares struct {
	mu      sync.Mutex
	byOwner map[string]*Share
}

// Share is what one owner may hold of the resource.
type Share struct {
	*semaphore.Weighted

	owner string
	users int
}

// New returns Shares without an owner.
func New() *Shares { return &Shares{byOwner: map[string]*Share{}} }

// Join returns the share of the owner, which has the size if it is new. The caller leaves it.
func (s *Shares) Join(owner string, size int64) *Share {
	s.mu.Lock()
	defer s.mu.Unlock()
	share := s.byOwner[owner]
	if share == nil {
		share = &Share{Weighted: semaphore.NewWeighted(size), owner: owner}
		s.byOwner[owner] = share
	}
	share.users++
	return share
}

// Leave ends one use of a share. What was acquired must have been released.
func (s *Shares) Leave(share *Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if share.users--; share.users == 0 {
		delete(s.byOwner, share.owner)
	}
}

// Acquire waits until the owner may hold n more of its share of the size, or ctx ends, whose error it returns. An owner
// that needs more than the size gets all of it. The empty owner, see Caller, is not bounded. The caller of Acquire releases the hold.
func (s *Shares) Acquire(ctx context.Context, owner string, n, size int64) (Hold, error) {
	if owner == "" {
		return Hold{}, nil
	}
	n = min(n, size)
	share := s.Join(owner, size)
	if err := share.Acquire(ctx, n); err != nil {
		s.Leave(share)
		return Hold{}, err
	}
	return Hold{s, share, n}, nil
}

// Hold is what an owner holds of its share. The zero value is nothing.
type Hold struct {
	shares *Shares
	share  *Share
	n      int64
}

// Release gives back what is held. It is called once.
func (h Hold) Release() {
	if h.share != nil {
		h.share.Release(h.n)
		h.shares.Leave(h.share)
	}
}

// Len returns how many owners have a share.
func (s *Shares) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byOwner)
}

// Caller names the caller of ctx as an owner: its user, or the anonymous callers of its address
// together. It is empty for work of the server itself, and under WithoutCaller.
func Caller(ctx context.Context) string {
	if ctx.Value(sharedKey{}) != nil {
		return ""
	}
	if p := auth.From(ctx); p != nil {
		if p.UserID == "" {
			return ""
		}
		return "user " + string(p.UserID)
	}
	if network := auth.ClientFrom(ctx).Network(); network != "" {
		return "anonymous " + network
	}
	return ""
}

type sharedKey struct{}

// WithoutCaller returns a context for work that several callers wait for, such as the response
// of equal subscriptions: it counts against none of them, since one whose share is used up
// must not keep the others waiting.
func WithoutCaller(ctx context.Context) context.Context {
	return context.WithValue(ctx, sharedKey{}, true)
}
