package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/session/password"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// What the tests, which live outside the package to use sessiontest, need from
// within.

// Cheap returns the configuration with hashes that cost next to nothing.
func Cheap(c Config) Config {
	c.hashCost = password.Cost{Memory: 8, Passes: 1, Threads: 1}
	return c
}

// Costly returns the configuration with hashes at another cost than Cheap.
func Costly(c Config) Config {
	c.hashCost = password.Cost{Memory: 16, Passes: 1, Threads: 1}
	return c
}

// OnHash makes the service call fn before each hash.
func (s *Service) OnHash(fn func()) {
	cfg := s.cfg.passwordConfig()
	cfg.DeriveKey = func(text, salt []byte, c password.Cost) []byte {
		fn()
		return password.Argon2id(text, salt, c)
	}
	s.passwords = password.NewHasher(cfg)
}

// ClearCaches empties the caches of tokens, sessions and keys.
func (s *Service) ClearCaches() {
	s.accessTokens = token.NewAccessTokens(s.signingKeys, s.cfg.tokenConfig(), s.now)
	s.verifiers = newVerifiers(s)
	clear(s.sessionStates.reads.reads)
	clear(s.keyStates.reads.reads)
}

// CachedSessions returns how many sessions the service has cached.
func (s *Service) CachedSessions() int { return len(s.sessionStates.reads.reads) }

// RevocationCount returns how many revocations the service keeps.
func (s *Service) RevocationCount() int { return len(s.revocations.byID) }

// ParseRefreshToken reads a refresh token and writes it again.
func ParseRefreshToken(s string) (text string, id uid.Session, generation int, ok bool) {
	t, ok := parseRefreshToken(s)
	return t.String(), t.session, t.generation, ok
}

// ParseKey reads an API key and writes it again.
func ParseKey(s string) (text string, id uid.APIKey, ok bool) {
	id, secret, ok := parseKey(s)
	return keyText(id, secret), id, ok
}

// NewReadCache returns a cache of ints that trusts reads younger than maxAge, and
// its number of entries.
func NewReadCache(maxAge time.Duration, size int, now func() time.Time) (get func(context.Context, int, func(context.Context) (int, error)) (int, error), length func() int) {
	c := newReadCache[int, int](maxAge, size, now, func() uint64 { return 0 })
	young := func(_ *cachedRead[int], age time.Duration) bool { return age < maxAge }
	get = func(ctx context.Context, key int, read func(context.Context) (int, error)) (int, error) {
		return c.get(ctx, key, young, read)
	}
	return get, func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.reads)
	}
}

// CallCounter counts calls.
type CallCounter struct{ atomic.Int64 }

// Call counts one call.
func (c *CallCounter) Call() { c.Add(1) }
