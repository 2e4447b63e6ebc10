package session

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/uid"
)

// apiKeyVerifier authenticates callers by API keys, and records their use.
type apiKeyVerifier struct {
	states *stateCache
	uses   *usageRecorder
	now    func() time.Time
}

func (v *apiKeyVerifier) recognizes(bearer string) bool { return strings.HasPrefix(bearer, keyPrefix) }

func (v *apiKeyVerifier) verify(ctx context.Context, bearer string) (*auth.Principal, error) {
	id, secret, ok := parseKey(bearer)
	if !ok {
		return nil, &invalidCredential{detail: credentialMalformed}
	}
	sum := sha256.Sum256([]byte(secret))
	return v.principal(ctx, id, func(st *credentialState) bool { return subtle.ConstantTimeCompare(sum[:], st.hash) == 1 })
}

func (v *apiKeyVerifier) expiry(bearer string) time.Time {
	id, _, _ := parseKey(bearer)
	if st, ok := v.states.cached(string(id)); ok {
		return st.expiresAt
	}
	return time.Time{}
}

func (v *apiKeyVerifier) identifies(credentialID string) bool {
	return uid.APIKey(credentialID).Valid()
}

func (v *apiKeyVerifier) revalidate(ctx context.Context, credentialID string) (*auth.Principal, error) {
	return v.principal(ctx, uid.APIKey(credentialID), anyState)
}

func (v *apiKeyVerifier) principal(ctx context.Context, id uid.APIKey, matches func(*credentialState) bool) (*auth.Principal, error) {
	st, err := v.states.live(ctx, string(id), matches)
	if err != nil {
		return nil, err
	}
	if at := v.now(); st.lastUse.advance(at) {
		v.uses.record(id, at)
	}
	return st.principal, nil
}

func (s *Service) readKeyState(ctx context.Context, id string) (*credentialState, error) {
	k, acct, err := s.store.KeyWithAccount(ctx, uid.APIKey(id))
	if err != nil {
		return nil, err
	}
	p := &auth.Principal{UserID: acct.UserID, Roles: acct.Roles, Credential: auth.APIKeyCredential(k.ID, k.Scopes...)}
	st := &credentialState{principal: p, active: acct.Active && k.RevokedAt == nil, expiresAt: k.ExpiresAt, hash: k.Hash, lastUse: &lastUse{}}
	if k.LastUsedAt != nil {
		st.lastUse.nanos.Store(k.LastUsedAt.UnixNano())
	}
	return st, nil
}

// lastUse is when an API key was last used, as far as this node knows.
type lastUse struct{ nanos atomic.Int64 } // Unix time

// advance moves the last use to the given time if it is more than UseInterval
// ago, and reports whether it did: of parallel calls one does.
func (u *lastUse) advance(at time.Time) bool {
	last := u.nanos.Load()
	return at.Sub(time.Unix(0, last)) > UseInterval && u.nanos.CompareAndSwap(last, at.UnixNano())
}

// usageRecorder collects which API keys were used, to be stored together. It is
// bounded: a use that does not fit is not recorded, and the next one may be.
type usageRecorder struct {
	limit   int
	mu      sync.Mutex
	pending map[uid.APIKey]time.Time
}

func (u *usageRecorder) record(id uid.APIKey, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, recorded := u.pending[id]; recorded || len(u.pending) >= u.limit {
		return
	}
	if u.pending == nil {
		u.pending = map[uid.APIKey]time.Time{}
	}
	u.pending[id] = at
}

func (u *usageRecorder) drain() map[uid.APIKey]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	pending := u.pending
	u.pending = nil
	return pending
}

// flushKeyUses stores the uses recorded since the last flush, or keeps them for
// the next.
func (s *Service) flushKeyUses(ctx context.Context) error {
	pending := s.uses.drain()
	if len(pending) == 0 {
		return nil
	}
	err := s.store.TouchKeys(ctx, pending)
	if err != nil {
		for id, at := range pending {
			s.uses.record(id, at)
		}
	}
	return err
}
