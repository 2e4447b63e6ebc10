// Package writelimit bounds how fast callers change data on this node: a token bucket for each user, and
// one for each address, of IPv6 each /64.
//
// Customers and anonymous callers take a token of their address for each write, and customers one of
// their own as well. STAFF, ADMIN and SERVICE, whose roles an ADMIN gave them, have a larger bucket of
// their own and share none: they may be one program that works for many.
//
// A bucket is kept as the time at which it is full again (GCRA). One that is full is the same as none,
// so the number of buckets is bounded by what callers have taken lately, and by a maximum; beyond it
// buckets are forgotten, and their callers have full ones. What counts as a write is left to the caller
// of Take.
package writelimit

import (
	"context"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/bounded"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/setting"
)

const (
	burst       = 4 * time.Second // a full bucket has the tokens of this time
	staffFactor = 10              // how many times a customer's rate STAFF, ADMIN and SERVICE have
	maxBuckets  = 50_000
)

// Config holds the rates, in writes a second.
type Config struct {
	User     int  // of a user without a role but CUSTOMER; others have ten times as many
	Address  int  // of the customers and anonymous callers of one address together
	Disabled bool // let everything pass: for benchmarks and tests
}

// Settings declares the rates.
func (c *Config) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Count(&c.User, "LIMIT_USER_WRITES", 50, "changes a second of one user, on each node; four seconds' worth may come at once; ten times as many for STAFF, ADMIN and SERVICE"),
		setting.Count(&c.Address, "LIMIT_ADDRESS_WRITES", 250, "changes a second of all customers and anonymous callers of one address (the /64 of IPv6), on each node"),
	}
}

// Limiter limits the writes of callers. It is safe for concurrent use. A nil Limiter has no limit.
type Limiter struct {
	cfg   Config
	start time.Time
	now   func() time.Time

	mu     sync.Mutex
	fullAt map[string]time.Duration // since start, by owner
}

// New returns a Limiter. now must be monotonic. It returns an error if a rate is negative.
func New(cfg Config, now func() time.Time) (*Limiter, error) {
	if err := setting.ApplyDefaults("writelimit", cfg.Settings()); err != nil {
		return nil, err
	}
	return &Limiter{cfg: cfg, start: now(), now: now, fullAt: map[string]time.Duration{}}, nil
}

// bucket is one that a write takes a token from.
type bucket struct {
	owner    string
	interval time.Duration // in which it gets a token
}

// Take takes n tokens from each bucket of the caller of ctx, or none and returns RATE_LIMITED with the time
// to wait. More tokens than a bucket can hold are taken from a full one, which then is overdrawn.
func (l *Limiter) Take(ctx context.Context, n int) error {
	if l == nil || l.cfg.Disabled || n == 0 {
		return nil
	}
	buckets := l.bucketsOf(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.now().Sub(l.start)
	for _, b := range buckets {
		need := min(time.Duration(n)*b.interval, burst)
		if wait := max(l.fullAt[b.owner], at) + need - burst - at; wait > 0 {
			return errLimited(wait)
		}
	}
	for _, b := range buckets {
		fullAt, known := l.fullAt[b.owner]
		if !known {
			bounded.MakeRoom(l.fullAt, maxBuckets, func(fullAt time.Duration) bool { return fullAt <= at })
		}
		l.fullAt[b.owner] = max(fullAt, at) + time.Duration(n)*b.interval
	}
	return nil
}

// bucketsOf returns the buckets of the caller of ctx; none for the server's own work.
func (l *Limiter) bucketsOf(ctx context.Context) []bucket {
	p := auth.From(ctx)
	address := bucket{"address " + auth.ClientFrom(ctx).Network(), time.Second / time.Duration(l.cfg.Address)}
	switch {
	case p == nil:
		return []bucket{address}
	case p.UserID == "":
		return nil
	case p.IsStaff() || p.Has(auth.Service):
		return []bucket{{"user " + string(p.UserID), time.Second / time.Duration(staffFactor*l.cfg.User)}}
	}
	return []bucket{{"user " + string(p.UserID), time.Second / time.Duration(l.cfg.User)}, address}
}

// Len returns the number of buckets that are kept.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.fullAt)
}

func errLimited(wait time.Duration) error {
	return security.Refuse(security.RateLimited, "WRITES", fault.New(fault.RateLimited, "Too many changes in a short time; wait a while.").After(wait))
}
