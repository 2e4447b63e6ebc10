package token

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/uid"
)

// memoryStore keeps signing keys and secrets in memory.
type memoryStore struct {
	mu      sync.Mutex
	keys    []*SigningKey
	secrets map[string][]byte
}

func (s *memoryStore) SigningKeys(context.Context) ([]*SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, nil
}

func (s *memoryStore) UpdateSigningKeys(_ context.Context, fn func([]*SigningKey) (*SigningKey, []string, error)) ([]*SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add, _, err := fn(s.keys)
	if add != nil {
		s.keys = append(s.keys, add)
	}
	return s.keys, err
}

func (s *memoryStore) Secret(_ context.Context, name string, fresh []byte) ([]byte, error) {
	if _, ok := s.secrets[name]; !ok {
		s.secrets[name] = fresh
	}
	return s.secrets[name], nil
}

func (s *memoryStore) StoredSecret(_ context.Context, name string) ([]byte, error) {
	return s.secrets[name], nil
}

func (s *memoryStore) ReplaceSecret(_ context.Context, name string, _, next []byte) ([]byte, error) {
	s.secrets[name] = next
	return next, nil
}

func TestAccessTokens_are_verified_once_and_at_most_CacheSize_are_cached(t *testing.T) {
	t.Parallel()
	store := &memoryStore{secrets: map[string][]byte{}}
	key, err := secrets.ParseMasterKey(strings.Repeat("k", 32))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := secrets.OpenSealer(t.Context(), store, key)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return at }
	cfg := Config{Issuer: "i", Audience: "a", AccessTTL: 5 * time.Minute, KeyInterval: time.Minute, CacheSize: 8}
	tokens := NewAccessTokens(NewKeyRing(store, sealer, cfg, now), cfg, now)
	for n := range 50 {
		token, expires, err := tokens.Issue(t.Context(), "usr_1", uid.NewSession(at), at.Add(time.Hour), at)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if c, err := tokens.Verify(t.Context(), token); err != nil || c.User != "usr_1" || !c.ExpiresAt.Equal(expires) {
				t.Fatalf("Verify = %+v, %v, want the claims of the token", c, err)
			}
		}
		if got := tokens.verified.Len(); n < 7 && got != n+1 || got > 8 {
			t.Errorf("after %d tokens, each verified twice, %d are cached; want one a token and 8 at most", n+1, got)
		}
	}
}
