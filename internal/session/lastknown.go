package session

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// lastKnownLife is how long a credential that was good is remembered as such for
// what goes on without the database.
const lastKnownLife = 15 * time.Minute

// lastKnown remembers who presented good credentials. It is bounded.
type lastKnown struct {
	size int
	now  func() time.Time

	mu    sync.Mutex
	known map[[sha256.Size]byte]acquaintance
}

type acquaintance struct {
	principal *auth.Principal
	until     time.Time
}

func newLastKnown(size int, now func() time.Time) *lastKnown {
	return &lastKnown{size: size, now: now, known: map[[sha256.Size]byte]acquaintance{}}
}

// note remembers the principal until the end of its credential, zero if it has
// none of its own, and not for long.
func (l *lastKnown) note(bearer string, p *auth.Principal, end time.Time) {
	sum, at := sha256.Sum256([]byte(bearer)), l.now()
	until := at.Add(lastKnownLife)
	if !end.IsZero() && end.Before(until) {
		until = end
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	makeRoom(l.known, l.size, func(a acquaintance) bool { return !at.Before(a.until) })
	l.known[sum] = acquaintance{p, until}
}

func (l *lastKnown) forget(bearer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, sha256.Sum256([]byte(bearer)))
}

func (l *lastKnown) get(bearer string) *auth.Principal {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.known[sha256.Sum256([]byte(bearer))]
	if !l.now().Before(a.until) {
		return nil
	}
	return a.principal
}

// LastKnown returns who presented the token when Authenticate last took it, on
// this node and within a quarter of an hour; nil if nobody did, if it has expired, or if
// Authenticate has refused it since. It is for what goes on when Authenticate is
// UNAVAILABLE: a revocation that nobody could read does not count.
func (s *Service) LastKnown(bearer string) *auth.Principal { return s.last.get(bearer) }

// remember notes what Authenticate found: an access token is good until its end,
// an API key for a while, and what was refused is forgotten.
func (s *Service) remember(bearer string, p *auth.Principal, err error) {
	var end time.Time
	if !strings.HasPrefix(bearer, keyPrefix) {
		end = s.tokens.expiry(bearer)
	}
	switch {
	case err == nil:
		s.last.note(bearer, p, end)
	case fault.Is(err, fault.Unauthorized):
		s.last.forget(bearer)
	}
}
