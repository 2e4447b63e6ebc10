package sessiontest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Memory is a session.Store and a secrets.Store without a database, for tests of
// what stands on one. It makes no claims. The zero value is not ready:
// use NewMemory.
type Memory struct {
	mu       sync.Mutex
	down     error
	calls    int
	accounts map[uid.User]session.Account
	logins   map[string]uid.User
	names    map[uid.User][]string
	sessions map[uid.Session]session.Session
	keys     map[uid.APIKey]session.APIKey
	signing  map[string]token.SigningKey
	counters map[string]counter
	secrets  map[string][]byte
	events   []event.Event
	security []security.Event
}

type counter struct {
	count int
	until time.Time
}

var _ session.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		accounts: map[uid.User]session.Account{}, logins: map[string]uid.User{}, names: map[uid.User][]string{},
		sessions: map[uid.Session]session.Session{}, keys: map[uid.APIKey]session.APIKey{},
		signing: map[string]token.SigningKey{}, counters: map[string]counter{}, secrets: map[string][]byte{},
	}
}

// Subject returns the store as the suite wants it.
func (m *Memory) Subject() Subject {
	return Subject{Store: m, Secrets: m, AddAccount: m.AddAccount, Events: func(testing.TB) []event.Event { return m.Events() }}
}

// AddAccount adds an account and returns its id.
func (m *Memory) AddAccount(_ testing.TB, a NewAccount) uid.User {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := uid.NewUser(time.Now())
	acct := session.Account{UserID: id, Active: !a.Inactive, Roles: a.Roles, PasswordHash: a.PasswordHash}
	if a.PasswordHash != "" {
		acct.PasswordVersion = 1
	}
	m.accounts[id] = acct
	m.names[id] = slices.DeleteFunc([]string{a.Username, a.Email}, func(name string) bool { return name == "" })
	m.logins[strings.ToLower(a.Username)], m.logins[strings.ToLower(a.Email)] = id, id
	return id
}

// SetAccount changes what the store says of an account.
func (m *Memory) SetAccount(id uid.User, change func(*session.Account)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[id]
	change(&a)
	m.accounts[id] = a
}

// Fail makes every call fail with err until it is called with nil.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
}

// Calls returns how many calls there were.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Events returns what was committed, in order.
func (m *Memory) Events() []event.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// SecurityEvents returns the security events that were committed, in order. Those that a store derives from
// events are not among them.
func (m *Memory) SecurityEvents() []security.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.security)
}

// begin starts a transaction: they run one after the other.
func (m *Memory) begin(ctx context.Context) error {
	m.mu.Lock()
	m.calls++
	if err := cmp.Or(m.down, ctx.Err()); err != nil {
		m.mu.Unlock()
		return err
	}
	return nil
}

func noUser() error {
	return fault.New(fault.UserNotFound, "There is no such user.")
}

// AccountByLogin implements session.Accounts.
func (m *Memory) AccountByLogin(ctx context.Context, login string) (*session.Account, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return m.account(m.logins[strings.ToLower(login)])
}

// AccountByID implements session.Accounts.
func (m *Memory) AccountByID(ctx context.Context, id uid.User) (*session.Account, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return m.account(id)
}

// AccountNames implements session.Accounts.
func (m *Memory) AccountNames(ctx context.Context, id uid.User) ([]string, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if _, err := m.account(id); err != nil {
		return nil, err
	}
	return slices.Clone(m.names[id]), nil
}

func (m *Memory) account(id uid.User) (*session.Account, error) {
	a, ok := m.accounts[id]
	if !ok {
		return nil, noUser()
	}
	return &a, nil
}

// UpdateAccountSessions implements session.Accounts.
func (m *Memory) UpdateAccountSessions(ctx context.Context, cl claim.Claim, id uid.User, at time.Time, fn func(*session.AccountSessions) error) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	a, err := m.account(id)
	if err != nil {
		return err
	}
	h := &session.AccountSessions{Account: *a, Sessions: m.live(id, at)}
	if err := fn(h); err != nil {
		return err
	}
	a.PasswordHash, a.PasswordVersion = h.PasswordHash, h.PasswordVersion
	m.accounts[id] = *a
	m.events = append(m.events, h.TakeEvents()...)
	m.security = append(m.security, h.Security...)
	for _, s := range append(h.Sessions, h.Opened) {
		if s != nil {
			m.sessions[s.ID] = *s
		}
	}
	return nil
}

// UpdateCredentials implements session.Accounts.
func (m *Memory) UpdateCredentials(ctx context.Context, cl claim.Claim, id uid.User, at time.Time, fn func(*session.Credentials) error) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	acct, err := m.account(id)
	if err != nil {
		return err
	}
	a := &session.Credentials{Account: *acct, Sessions: m.live(id, at)}
	for _, k := range m.keys {
		if k.UserID == id && k.Live(at) {
			a.Keys = append(a.Keys, &k)
		}
	}
	slices.SortFunc(a.Keys, func(a, b *session.APIKey) int { return cmp.Compare(a.ID, b.ID) })
	if err := fn(a); err != nil {
		return err
	}
	acct.PasswordHash, acct.PasswordVersion = a.PasswordHash, a.PasswordVersion
	m.accounts[id] = *acct
	m.events = append(m.events, a.TakeEvents()...)
	m.security = append(m.security, a.Security...)
	for _, s := range a.Sessions {
		m.sessions[s.ID] = *s
	}
	for _, k := range a.Keys {
		m.keys[k.ID] = *k
	}
	return nil
}

// live returns copies of the live sessions of a user, by id.
func (m *Memory) live(id uid.User, at time.Time) []*session.Session {
	var found []*session.Session
	for _, s := range m.sessions {
		if s.UserID == id && s.Live(at) {
			found = append(found, &s)
		}
	}
	slices.SortFunc(found, func(a, b *session.Session) int { return cmp.Compare(a.ID, b.ID) })
	return found
}

// UpdateSession implements session.Sessions.
func (m *Memory) UpdateSession(ctx context.Context, cl claim.Claim, id uid.Session, fn func(*session.Session) error) (*session.Session, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return nil, session.NotFound()
	}
	if err := fn(&s); err != nil {
		return nil, err
	}
	m.events = append(m.events, s.TakeEvents()...)
	m.sessions[id] = s
	return &s, nil
}

// SessionWithAccount implements session.Sessions.
func (m *Memory) SessionWithAccount(ctx context.Context, id uid.Session) (*session.Session, *session.Account, error) {
	if err := m.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return nil, nil, session.NotFound()
	}
	a, err := m.account(s.UserID)
	return &s, a, err
}

// SessionsByIDs implements session.Sessions.
func (m *Memory) SessionsByIDs(ctx context.Context, ids []uid.Session) (map[uid.Session]*session.Session, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return byIDs(m.sessions, ids), nil
}

func byIDs[K comparable, V any](rows map[K]V, ids []K) map[K]*V {
	found := map[K]*V{}
	for _, id := range ids {
		if row, ok := rows[id]; ok {
			found[id] = &row
		}
	}
	return found
}

// LiveSessions implements session.Sessions.
func (m *Memory) LiveSessions(ctx context.Context, user uid.User, at time.Time, limit int) ([]*session.Session, error) {
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	found := m.live(user, at)
	slices.SortStableFunc(found, func(a, b *session.Session) int { return b.LastUsedAt.Compare(a.LastUsedAt) })
	return found[:min(limit, len(found))], nil
}

// Sweep implements session.Sessions.
func (m *Memory) Sweep(ctx context.Context, ended, now time.Time, limit int) (int, error) {
	if err := m.begin(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	isEnded := func(expires time.Time, revoked *time.Time) bool {
		return expires.Before(ended) || revoked != nil && revoked.Before(ended)
	}
	credentials, counters := 0, 0
	for id, s := range m.sessions {
		if credentials < limit && isEnded(s.ExpiresAt, s.RevokedAt) {
			delete(m.sessions, id)
			credentials++
		}
	}
	for id, k := range m.keys {
		if credentials < limit && isEnded(k.ExpiresAt, k.RevokedAt) {
			delete(m.keys, id)
			credentials++
		}
	}
	for name, c := range m.counters {
		if c.until.Before(now) && counters < limit {
			delete(m.counters, name)
			counters++
		}
	}
	return credentials + counters, nil
}
