package session

import (
	"crypto/sha256"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/bounded"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/fault"
)

// principalCacheTTL is how long the principal of a credential is cached for
// requests that are served without the database.
const principalCacheTTL = 15 * time.Minute

// principalCache keeps the last known principals of bearer tokens, by the hash of
// the token. It is bounded.
type principalCache struct {
	now     func() time.Time
	entries *bounded.Map[[sha256.Size]byte, *auth.Principal]
}

func newPrincipalCache(size int, now func() time.Time) *principalCache {
	return &principalCache{now, bounded.NewMap[[sha256.Size]byte, *auth.Principal](size)}
}

// put caches the principal for principalCacheTTL, but not beyond the expiry of
// its token; zero if that has none of its own.
func (c *principalCache) put(bearer string, p *auth.Principal, expiry time.Time) {
	at := c.now()
	until := at.Add(principalCacheTTL)
	if !expiry.IsZero() {
		until = earlierOf(until, expiry)
	}
	c.entries.Put(sha256.Sum256([]byte(bearer)), p, until, at)
}

func (c *principalCache) invalidate(bearer string) {
	c.entries.Delete(sha256.Sum256([]byte(bearer)))
}

func (c *principalCache) clear() { c.entries.Clear() }

func (c *principalCache) get(bearer string) *auth.Principal {
	p, until := c.entries.Get(sha256.Sum256([]byte(bearer)))
	if !dbclock.Live(until, principalCacheTTL, c.now()) {
		return nil
	}
	return p
}

// LastKnown returns the principal that Authenticate last returned for the token,
// on this node and within a quarter of an hour; nil if there is none, if the token
// has expired, or if Authenticate has refused it since. It is for requests that
// are served while Authenticate is UNAVAILABLE: a revocation that could not be
// read does not count.
func (s *Service) LastKnown(bearer string) *auth.Principal { return s.lastKnown.get(bearer) }

// cachePrincipal keeps LastKnown up to date with what Authenticate returned: an
// access token holds until its expiry, an API key for principalCacheTTL, and a
// refused token is dropped.
func (s *Service) cachePrincipal(bearer string, p *auth.Principal, err error) {
	switch {
	case err == nil:
		s.lastKnown.put(bearer, p, s.Expiry(bearer))
	case fault.From(err).Kind() == fault.KindUnauthenticated:
		s.lastKnown.invalidate(bearer)
	}
}
