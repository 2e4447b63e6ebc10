package session

import (
	"context"
	"crypto/ed25519"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// What the tests, which live outside the package to use sessiontest, need from
// within.

// Cheap returns the configuration with hashes that cost next to nothing.
func Cheap(c Config) Config {
	c.cost = cost{8, 1, 1}
	return c
}

// Costly returns the configuration with hashes at another cost than Cheap.
func Costly(c Config) Config {
	c.cost = cost{16, 1, 1}
	return c
}

// OnHash makes the service call fn before each hash.
func (s *Service) OnHash(fn func()) {
	derive := s.hasher.derive
	s.hasher.derive = func(password, salt []byte, c cost) []byte {
		fn()
		return derive(password, salt, c)
	}
}

// Signer returns the key that signs now.
func (s *Service) Signer(ctx context.Context) (id string, key ed25519.PrivateKey) {
	k, err := s.ring.signer(ctx, s.now())
	if err != nil {
		panic(err)
	}
	return k.id, k.private
}

// ForgetAll empties what the service remembers of tokens, sessions and keys.
func (s *Service) ForgetAll() {
	clear(s.tokens.proofs)
	clear(s.sessions.reads)
	clear(s.keys.reads)
}

// Remembered returns how many tokens and sessions the service remembers.
func (s *Service) Remembered() (tokens, sessions int) {
	return len(s.tokens.proofs), len(s.sessions.reads)
}

// Heard returns how many words of the log the service remembers.
func (s *Service) Heard() int { return len(s.news.heard) }

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

// ParseHash reads a hash and writes it again.
func ParseHash(s string) (string, bool) {
	h, ok := parseHash(s)
	return h.String(), ok
}

// Network returns what an address counts as.
func Network(address string) string { return network(address) }

// NewMemo returns a memo of ints and its number of entries.
func NewMemo(age time.Duration, size int, now func() time.Time) (get func(context.Context, int, func(context.Context) (int, error)) (int, error), length func() int) {
	m := newMemo[int, int](age, size, now, func() uint64 { return 0 })
	young := func(_ *reading[int], old time.Duration) bool { return old < age }
	get = func(ctx context.Context, key int, read func(context.Context) (int, error)) (int, error) {
		return m.get(ctx, key, young, read)
	}
	return get, func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.reads)
	}
}

// CallCounter counts calls.
type CallCounter struct{ atomic.Int64 }

// Call counts one call.
func (c *CallCounter) Call() { c.Add(1) }
