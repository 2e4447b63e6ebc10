package connection

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// uncheckableTime is how long a connection stays open while its credential cannot be
// checked: long enough for a database failover.
const uncheckableTime = 10 * time.Second

// checkTimeout bounds one check of a credential.
const checkTimeout = 5 * time.Second

// Credential is the credential of a connection and its principal as of the last check.
type Credential struct {
	principal atomic.Pointer[auth.Principal] // nil for an anonymous caller

	mu       sync.Mutex
	check    CredentialCheck
	expires  time.Time
	checked  time.Time // when the last check began
	failing  time.Time // since when it cannot be checked; zero if it can
	fresh    bool      // it was not checked since it was set
	checking bool
	renewals int
	notices  int // of revocations that may concern it
	applied  int // notices that came before the last check began
}

// retryTime is the time to the next check of a credential that could not be checked, and to the first
// one after it was set: a revocation may have come just before the connection was told of any.
const retryTime = time.Second

// Principal returns the principal as of the last check, nil for an anonymous caller.
func (c *Credential) Principal() *auth.Principal { return c.principal.Load() }

// Set makes the caller's credential that of the connection.
func (c *Credential) Set(caller Caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.check, c.expires, c.checked, c.failing = caller.Check, caller.Expires, now, time.Time{}
	c.checking, c.fresh = false, true
	c.renewals++
	c.notices++ // a revocation may have come before the connection was told of any
	c.principal.Store(caller.Principal)
}

// NextCheck returns when Check is due again; ok is false if never.
func (c *Credential) NextCheck(every time.Duration) (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.check == nil {
		return at, false
	}
	at = c.checked.Add(c.interval(every))
	if !c.expires.IsZero() && c.expires.Before(at) {
		at = c.expires
	}
	return at, true
}

// ExpediteCheck makes Check due now if the principal is affected; it reports whether that is
// so. A check that is under way may have read too early, and is followed by another.
func (c *Credential) ExpediteCheck(affected func(*auth.Principal) bool) bool {
	if !affected(c.principal.Load()) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked = time.Time{}
	c.notices++
	return c.check != nil
}

// ApplyNotices checks the credential now if a revocation may concern it that came since the last check began,
// and returns why the connection must close, if it must: an operation that begins after a change of
// rights must not run with those from before.
func (c *Credential) ApplyNotices(ctx context.Context) *CloseReason {
	c.mu.Lock()
	check, renewals, notices := c.check, c.renewals, c.notices
	applied := check == nil || c.applied == notices
	c.mu.Unlock()
	if applied {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout) // a client that stops its operation says nothing of its credential
	defer cancel()
	p, err := check(ctx)
	return c.endCheck(time.Now(), checkNumber{renewals, notices}, p, err)
}

// Check checks the credential if that is due, and returns why the connection must close, if
// it must.
func (c *Credential) Check(ctx context.Context, every time.Duration) *CloseReason {
	check, number, reason := c.beginCheck(time.Now(), every)
	if check == nil || reason != nil {
		return reason
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	p, err := check(ctx)
	return c.endCheck(time.Now(), number, p, err)
}

// checkNumber says what a check knows of: renewals of the credential, and notices.
type checkNumber struct{ renewals, notices int }

// beginCheck returns the check to run, nil if it is not due yet.
func (c *Credential) beginCheck(now time.Time, every time.Duration) (check CredentialCheck, number checkNumber, reason *CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.check == nil || c.checking:
		return nil, number, nil
	case !c.expires.IsZero() && !now.Before(c.expires):
		return nil, number, reasonExpired
	case now.Before(c.checked.Add(c.interval(every))):
		return nil, number, nil
	}
	c.checking, c.checked, c.fresh = true, now, false
	return c.check, checkNumber{c.renewals, c.notices}, nil
}

// interval is the time from the last check to the next. The caller holds the lock.
func (c *Credential) interval(every time.Duration) time.Duration {
	if c.fresh || !c.failing.IsZero() {
		return min(every, retryTime)
	}
	return every
}

// endCheck takes the result of a check of the number. If the credential was renewed meanwhile, the
// result is about the old one and is ignored, and so is that of a check that began before another which
// has ended.
func (c *Credential) endCheck(now time.Time, number checkNumber, p *auth.Principal, err error) *CloseReason {
	c.mu.Lock()
	defer c.mu.Unlock()
	if number.renewals != c.renewals {
		return nil
	}
	c.checking = false
	if number.notices < c.applied {
		return nil
	}
	if err == nil && p != nil {
		c.applied = number.notices
	}
	switch {
	case err == nil && p != nil:
		if !p.Equal(c.principal.Load()) { // else subscriptions, which compare pointers, would see a change at each check
			c.principal.Store(p)
		}
		c.failing = time.Time{}
	case fault.Is(err, fault.TokenExpired):
		return reasonExpired
	case err == nil || fault.From(err).Kind() == fault.KindUnauthenticated:
		return reasonRevoked
	case c.failing.IsZero():
		c.failing = now
	case now.Sub(c.failing) >= uncheckableTime:
		return reasonUncheckable
	}
	return nil
}

// renew replaces the credential by a new one of the same user.
func (c *Credential) renew(caller Caller) *CloseReason {
	old := c.principal.Load()
	if old != nil && (caller.Principal == nil || caller.Principal.UserID != old.UserID) {
		return reasonOtherUser
	}
	c.Set(caller)
	return nil
}

// ExpiresAt returns when the credential expires, zero if that is not known.
func (c *Credential) ExpiresAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expires
}
