package sessiontest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/throttle"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// CreateKey implements session.Keys.
func (m *Memory) CreateKey(ctx context.Context, k *session.APIKey, at time.Time, allow func(*session.Account, int) error) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, err := m.account(k.UserID)
	if err != nil {
		return err
	}
	live := 0
	for _, other := range m.keys {
		if other.UserID == k.UserID && other.Live(at) {
			live++
		}
	}
	if err := allow(a, live); err != nil {
		return err
	}
	m.events = append(m.events, k.TakeEvents()...)
	m.keys[k.ID] = *k
	return nil
}

// UpdateKey implements session.Keys.
func (m *Memory) UpdateKey(ctx context.Context, cl claim.Claim, id uid.APIKey, fn func(*session.APIKey) error) (*session.APIKey, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	k, ok := m.keys[id]
	if !ok {
		return nil, session.KeyNotFound()
	}
	if err := fn(&k); err != nil {
		return nil, err
	}
	m.events = append(m.events, k.TakeEvents()...)
	m.keys[id] = k
	return &k, nil
}

// KeyWithAccount implements session.Keys.
func (m *Memory) KeyWithAccount(ctx context.Context, id uid.APIKey) (*session.APIKey, *session.Account, error) {
	if err := m.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer m.mu.Unlock()
	k, ok := m.keys[id]
	if !ok {
		return nil, nil, session.KeyNotFound()
	}
	a, err := m.account(k.UserID)
	return &k, a, err
}

// KeysByIDs implements session.Keys.
func (m *Memory) KeysByIDs(ctx context.Context, ids []uid.APIKey) (map[uid.APIKey]*session.APIKey, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return byIDs(m.keys, ids), nil
}

// KeysOf implements session.Keys.
func (m *Memory) KeysOf(ctx context.Context, user uid.User, limit int) ([]*session.APIKey, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var found []*session.APIKey
	for _, k := range m.keys {
		if k.UserID == user {
			found = append(found, &k)
		}
	}
	slices.SortFunc(found, func(a, b *session.APIKey) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	return found[:min(limit, len(found))], nil
}

// TouchKeys implements session.Keys.
func (m *Memory) TouchKeys(ctx context.Context, used map[uid.APIKey]time.Time) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for id, at := range used {
		k, ok := m.keys[id]
		if ok && (k.LastUsedAt == nil || at.Sub(*k.LastUsedAt) > session.UseInterval) {
			k.LastUsedAt = &at
			m.keys[id] = k
		}
	}
	return nil
}

// SigningKeys implements token.KeyStore.
func (m *Memory) SigningKeys(ctx context.Context) ([]*token.SigningKey, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return m.signingKeys(), nil
}

func (m *Memory) signingKeys() []*token.SigningKey {
	var found []*token.SigningKey
	for _, k := range m.signing {
		found = append(found, &k)
	}
	slices.SortFunc(found, func(a, b *token.SigningKey) int {
		return cmp.Or(a.SignsAt.Compare(b.SignsAt), cmp.Compare(a.ID, b.ID))
	})
	return found
}

// UpdateSigningKeys implements token.KeyStore.
func (m *Memory) UpdateSigningKeys(ctx context.Context, fn func([]*token.SigningKey) (*token.SigningKey, []string, error)) ([]*token.SigningKey, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	add, drop, err := fn(m.signingKeys())
	if err != nil {
		return nil, err
	}
	if add != nil {
		m.events = append(m.events, add.TakeEvents()...)
		m.signing[add.ID] = *add
	}
	for _, id := range drop {
		delete(m.signing, id)
	}
	return m.signingKeys(), nil
}

// Take implements throttle.Store.
func (m *Memory) Take(ctx context.Context, counters []throttle.Counter, at time.Time) (string, time.Duration, error) {
	if err := m.begin(ctx); err != nil {
		return "", 0, err
	}
	defer m.mu.Unlock()
	next := map[string]counter{}
	for _, c := range slices.SortedFunc(slices.Values(counters), func(a, b throttle.Counter) int { return cmp.Compare(a.Name, b.Name) }) {
		now := m.counters[c.Name]
		if !dbclock.Live(now.until, c.Window, at) {
			now = counter{0, at.Add(c.Window)}
		}
		if now.count >= c.Limit {
			return c.Name, now.until.Sub(at), nil
		}
		now.count++
		next[c.Name] = now
	}
	maps.Copy(m.counters, next)
	return "", 0, nil
}

// GiveBack implements throttle.Store.
func (m *Memory) GiveBack(ctx context.Context, reset, less []string) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, name := range reset {
		delete(m.counters, name)
	}
	for _, name := range less {
		if c, ok := m.counters[name]; ok {
			c.count = max(0, c.count-1)
			m.counters[name] = c
		}
	}
	return nil
}

// Secret implements secrets.Store.
func (m *Memory) Secret(_ context.Context, name string, fresh []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.secrets[name]; !ok {
		m.secrets[name] = fresh
	}
	return m.secrets[name], nil
}

// StoredSecret implements secrets.Store.
func (m *Memory) StoredSecret(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.secrets[name], nil
}

// ReplaceSecret implements secrets.Store.
func (m *Memory) ReplaceSecret(_ context.Context, name string, old, next []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Equal(m.secrets[name], old) {
		m.secrets[name] = next
	}
	return m.secrets[name], nil
}

// AnnounceExpiring implements session.Keys.
func (m *Memory) AnnounceExpiring(ctx context.Context, now, before time.Time, limit int) (n int, err error) {
	if err := m.begin(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	for _, k := range m.expiring(now, before) {
		if k.ExpiryAnnouncedAt != nil || n == limit {
			continue
		}
		k.AnnounceExpiry(now)
		m.events = append(m.events, k.TakeEvents()...)
		m.keys[k.ID] = *k
		n++
	}
	return n, nil
}

// ExpiringKeys implements session.Keys.
func (m *Memory) ExpiringKeys(ctx context.Context, now, before time.Time, limit int) ([]*session.APIKey, int, error) {
	if err := m.begin(ctx); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	found := m.expiring(now, before)
	return found[:min(limit, len(found))], len(found), nil
}

// expiring returns the keys that are live now and end by the time before, the first to end first.
func (m *Memory) expiring(now, before time.Time) (found []*session.APIKey) {
	for _, k := range m.keys {
		if k.Live(now) && !k.ExpiresAt.After(before) {
			found = append(found, &k)
		}
	}
	slices.SortFunc(found, func(a, b *session.APIKey) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), cmp.Compare(a.ID, b.ID))
	})
	return found
}
