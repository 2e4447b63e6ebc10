package connection

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// doubtTime is how long a connection lives on while nobody can say whether its
// credential is good: long enough for a database to change its leader.
const doubtTime = 10 * time.Second

// standingTime bounds one look at a credential.
const standingTime = 5 * time.Second

// credential is who stands behind a connection, as of the last look.
type credential struct {
	principal atomic.Pointer[auth.Principal] // nil for a stranger

	mu       sync.Mutex
	standing CredentialCheck
	expires  time.Time
	checked  time.Time // when standing was last asked
	sure     time.Time // when standing last had an answer
	asking   bool
	renewals int
}

// set makes the caller the one who stands behind the connection.
func (c *credential) set(who Caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.standing, c.expires, c.checked, c.sure = who.Check, who.Expires, now, now
	c.asking = false
	c.renewals++
	c.principal.Store(who.Principal)
}

// next returns when check is due again; ok is false if never.
func (c *credential) next(every time.Duration) (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.standing == nil {
		return at, false
	}
	at = c.checked.Add(every)
	if !c.expires.IsZero() && c.expires.Before(at) {
		at = c.expires
	}
	return at, true
}

// hasten makes check due now if the principal is concerned; it reports whether
// that is so. A look that is under way may have come too early, and is followed
// by another.
func (c *credential) hasten(concerns func(*auth.Principal) bool) bool {
	if !concerns(c.principal.Load()) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked = time.Time{}
	return c.standing != nil
}

// check returns why the connection must end, if it must.
func (c *credential) check(ctx context.Context, every time.Duration) *ending {
	standing, renewals, why := c.due(time.Now(), every)
	if standing == nil || why != nil {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, standingTime)
	defer cancel()
	p, err := standing(ctx)
	return c.judge(time.Now(), renewals, p, err)
}

// due returns what to ask, nil if it is not yet time to.
func (c *credential) due(now time.Time, every time.Duration) (standing CredentialCheck, renewals int, why *ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.standing == nil || c.asking:
		return nil, 0, nil
	case !c.expires.IsZero() && !now.Before(c.expires):
		return nil, 0, endExpired
	case now.Before(c.checked.Add(every)):
		return nil, 0, nil
	}
	c.asking, c.checked = true, now
	return c.standing, c.renewals, nil
}

// judge takes the answer to a question that due gave out. If the credential was
// renewed meanwhile, the answer is about the old one and does not count.
func (c *credential) judge(now time.Time, renewals int, p *auth.Principal, err error) *ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	if renewals != c.renewals {
		return nil
	}
	c.asking = false
	switch {
	case err == nil && p != nil:
		if !p.Equal(c.principal.Load()) { // else those who compare pointers would see a change each second
			c.principal.Store(p)
		}
		c.sure = now
	case err == nil || fault.From(err).Kind == fault.Unauthenticated:
		return endRevoked
	case now.Sub(c.sure) >= doubtTime:
		return endUncheckable
	}
	return nil
}

// renew puts a new credential of the same user in the place of the old.
func (c *credential) renew(who Caller) *ending {
	old := c.principal.Load()
	if old != nil && (who.Principal == nil || who.Principal.UserID != old.UserID) {
		return endOtherUser
	}
	c.set(who)
	return nil
}

// expiry returns when the credential ends as RFC 3339 says it, nil if that is
// not known.
func (c *credential) expiry() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expires.IsZero() {
		return nil
	}
	return c.expires.UTC().Format(time.RFC3339)
}

// adopt puts a caller behind a connection that is open already.
func (s *Server) adopt(ctx context.Context, c connection, cred *credential, who Caller) *ending {
	if why := cred.renew(who); why != nil {
		return why
	}
	if err := s.readmit(c, ownerOf(ctx, who.Principal)); err != nil {
		return refused(err)
	}
	return nil
}
