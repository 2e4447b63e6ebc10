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
	entries *bounded.Map[[sha256.Size]byte, knownPrincipal]
}

// knownPrincipal is a principal, with the revocation sequence number of when its check began.
type knownPrincipal struct {
	*auth.Principal

	sequence uint64
}

func newPrincipalCache(size int, now func() time.Time) *principalCache {
	return &principalCache{now, bounded.NewMap[[sha256.Size]byte, knownPrincipal](size)}
}

// put caches the principal for principalCacheTTL, but not beyond the expiry of
// its token; zero if that has none of its own.
func (c *principalCache) put(bearer string, p knownPrincipal, expiry time.Time) {
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

func (c *principalCache) get(bearer string) (p knownPrincipal, ok bool) {
	p, until := c.entries.Get(sha256.Sum256([]byte(bearer)))
	return p, dbclock.Live(until, principalCacheTTL, c.now())
}

// LastKnown returns the principal that Authenticate last returned for the token,
// on this node and within a quarter of an hour; nil if there is none, if the token
// has expired, if Authenticate has refused it since, or if it or its user was changed or revoked. It is
// for requests that are served while Authenticate is UNAVAILABLE: a revocation that
// could not be read does not count.
func (s *Service) LastKnown(bearer string) *auth.Principal {
	p, ok := s.lastKnown.get(bearer)
	if !ok || s.revocations.revokedSince(p.sequence, p.Principal) {
		return nil
	}
	return p.Principal
}

// cachePrincipal keeps LastKnown up to date with what Authenticate returned: an
// access token holds until its expiry, an API key for principalCacheTTL, and a
// refused token is dropped.
func (s *Service) cachePrincipal(bearer string, p *auth.Principal, sequence uint64, err error) {
	switch {
	case err == nil:
		s.lastKnown.put(bearer, knownPrincipal{p, sequence}, s.Expiry(bearer))
	case fault.From(err).Kind() == fault.KindUnauthenticated:
		s.lastKnown.invalidate(bearer)
	}
}
