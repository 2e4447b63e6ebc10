// Package sessiontest owns the test suite that every session.Store and
// secrets.Store passes, and a store in memory for tests of what stands on one.
package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Subject is an empty store under test, and what the suite cannot do through it.
type Subject struct {
	Store   session.Store
	Secrets secrets.Store
	// AddAccount adds an account and returns its id.
	AddAccount func(testing.TB, NewAccount) uid.User
	// Events returns the events in the log but those of accounts, in order.
	Events func(testing.TB) []event.Event
}

// NewAccount describes an account.
type NewAccount struct {
	Username, Email string
	Roles           []auth.Role
	PasswordHash    string // empty for none
	Inactive        bool   // DEACTIVATED
}

// at is when everything happens: whole seconds, which every database keeps.
var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var errStop = errors.New("stop")

// Run runs the suite; newSubject makes an empty store for each test.
func Run(t *testing.T, newSubject func(testing.TB) Subject) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, Subject)
	}{
		{"an account is found by each of its names", findsAccounts},
		{"an account commits its credential, its sessions and their events together", commitsAccountSessions},
		{"a change of an account that fails commits nothing", failsAccountSessions},
		{"two changes of one account happen one after the other", serialisesAccountSessions},
		{"all access of an account commits together", commitsCredentials},
		{"a session commits with its events, or not at all", updatesSessions},
		{"two exchanges of one session happen one after the other", serialisesSessions},
		{"a standing shows session and account", readsStatesWithAccounts},
		{"live sessions are listed by use", listsSessions},
		{"sweeping removes what ended and nothing else", removesEndedRows},
		{"a key commits with its events if it is allowed", createsKeys},
		{"keys that end soon are announced once", announcesOnce},
		{"keys are counted exactly under concurrency", countsKeys},
		{"a key's use is written at most once a minute and raises no version", touchesKeys},
		{"nodes that start at once agree on the first signing key", agreesOnSigningKeys},
		{"signing keys come and go in one step", rotatesSigningKeys},
		{"counters let exactly as many through as the limit", takesExactly},
		{"counters are taken all or none, and start anew", takesAllOrNone},
		{"counters of a wrong clock are void", voidsWindowsOfTheFuture},
		{"counters are given back", givesBack},
		{"the first secret of a name stays", keepsSecrets},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, newSubject(t))
		})
	}
}

func (s Subject) account(t testing.TB, name string) uid.User {
	t.Helper()
	return s.AddAccount(t, NewAccount{Username: name, Email: name + "@example.com", Roles: []auth.Role{auth.Customer, auth.Staff}, PasswordHash: "hash of " + name})
}

// session opens a session of the user that was last used at the given time.
func (s Subject) session(t testing.TB, user uid.User, used time.Time) *session.Session {
	t.Helper()
	x := &session.Session{
		ID: uid.NewSession(used), UserID: user, Address: "192.0.2.1", UserAgent: "curl", Generation: 1, Nonce: bytes.Repeat([]byte{7}, 16),
		Version: 1, CreatedAt: used, UpdatedAt: used, LastUsedAt: used, ExpiresAt: used.Add(time.Hour),
	}
	must(t, s.Store.UpdateAccountSessions(t.Context(), claim.None, user, at, func(h *session.AccountSessions) error {
		h.Opened = x
		return nil
	}))
	return x
}

func (s Subject) key(t testing.TB, user uid.User, created time.Time) *session.APIKey {
	t.Helper()
	k := &session.APIKey{
		ID: uid.NewAPIKey(created), UserID: user, Name: "a key", Scopes: []auth.Scope{auth.UsersRead, auth.OrdersRead}, Hash: bytes.Repeat([]byte{9}, 32),
		Version: 1, CreatedAt: created, UpdatedAt: created, ExpiresAt: created.Add(time.Hour),
	}
	must(t, s.Store.CreateKey(t.Context(), k, at, func(*session.Account, int) error { return nil }))
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// assertSame compares what was stored with what is read.
func assertSame(t testing.TB, what string, got, want any) {
	t.Helper()
	hidden := cmpopts.IgnoreUnexported(session.Session{}, session.APIKey{}, token.SigningKey{})
	if diff := cmp.Diff(want, got, hidden, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s is not as stored (-want +got):\n%s", what, diff)
	}
}

// types returns the types of the events, and checks the user that they name.
func (s Subject) types(t testing.TB, related uid.User) []event.Type {
	t.Helper()
	var types []event.Type
	for _, e := range s.Events(t) {
		types = append(types, e.Type)
		if related != "" && !slices.Contains(e.Related, string(related)) {
			t.Errorf("event %s is related to %v, want %s among them", e.Type, e.Related, related)
		}
	}
	return types
}

func wantCode(t testing.TB, err error, code fault.Code) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Errorf("error = %v, want %s", err, code)
	}
}

func findsAccounts(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	idle := s.AddAccount(t, NewAccount{Username: "bob", Email: "bob@example.com", Roles: []auth.Role{auth.Admin}, Inactive: true})
	want := &session.Account{UserID: id, Active: true, Roles: []auth.Role{auth.Customer, auth.Staff}, PasswordHash: "hash of ada", PasswordVersion: 1}
	for _, login := range []string{"ada", "ADA", "ada@example.com", "Ada@Example.com"} {
		got, err := s.Store.AccountByLogin(t.Context(), login)
		must(t, err)
		assertSame(t, "account "+login, got, want)
	}
	got, err := s.Store.AccountByID(t.Context(), idle)
	must(t, err)
	assertSame(t, "account without a password", got, &session.Account{UserID: idle, Roles: []auth.Role{auth.Admin}})
	names, err := s.Store.AccountNames(t.Context(), idle)
	must(t, err)
	assertSame(t, "names", names, []string{"bob", "bob@example.com"})
	_, err = s.Store.AccountNames(t.Context(), uid.NewUser(at))
	wantCode(t, err, fault.UserNotFound)
	for _, login := range []string{"eve", "eve@example.com", ""} {
		_, err := s.Store.AccountByLogin(t.Context(), login)
		wantCode(t, err, fault.UserNotFound)
	}
	_, err = s.Store.AccountByID(t.Context(), uid.NewUser(at))
	wantCode(t, err, fault.UserNotFound)
}

func commitsAccountSessions(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	first, second := s.session(t, id, at.Add(-time.Minute)), s.session(t, id, at)
	expired := s.session(t, id, at.Add(-time.Hour))
	must(t, s.Store.UpdateAccountSessions(t.Context(), claim.None, id, at, func(h *session.AccountSessions) error {
		if len(h.Sessions) != 2 || h.Sessions[0].ID != first.ID || h.Sessions[1].ID != second.ID {
			t.Errorf("the account has %d sessions, want the two that are live, the older first", len(h.Sessions))
		}
		h.Sessions[0].Revoke(session.Revoked, at)
		h.PasswordHash, h.PasswordVersion = "another", h.PasswordVersion+1
		return nil
	}))
	acct, err := s.Store.AccountByID(t.Context(), id)
	must(t, err)
	if acct.PasswordHash != "another" || acct.PasswordVersion != 2 {
		t.Errorf("the credential is %q, version %d, want another, 2", acct.PasswordHash, acct.PasswordVersion)
	}
	stored, err := s.Store.SessionsByIDs(t.Context(), []uid.Session{first.ID, second.ID, expired.ID, uid.NewSession(at)})
	must(t, err)
	if len(stored) != 3 || stored[first.ID].RevokedAt == nil || stored[first.ID].Version != 2 {
		t.Errorf("of %d sessions the first is %+v, want it revoked", len(stored), stored[first.ID])
	}
	assertSame(t, "session left alone", stored[second.ID], second)
	if got := s.types(t, id); !slices.Equal(got, []event.Type{session.EventSessionRevoked}) {
		t.Errorf("events = %v, want one session.revoked", got)
	}
	err = s.Store.UpdateAccountSessions(t.Context(), claim.None, uid.NewUser(at), at, func(*session.AccountSessions) error { return nil })
	wantCode(t, err, fault.UserNotFound)
}

func failsAccountSessions(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	x := s.session(t, id, at)
	err := s.Store.UpdateAccountSessions(t.Context(), claim.None, id, at, func(h *session.AccountSessions) error {
		h.PasswordHash, h.PasswordVersion = "another", 9
		h.Sessions[0].Revoke(session.Revoked, at)
		return errStop
	})
	if !errors.Is(err, errStop) {
		t.Errorf("UpdateHolder = %v, want the function's error", err)
	}
	acct, err := s.Store.AccountByID(t.Context(), id)
	must(t, err)
	stored, err := s.Store.SessionsByIDs(t.Context(), []uid.Session{x.ID})
	must(t, err)
	if acct.PasswordVersion != 1 || stored[x.ID].RevokedAt != nil || len(s.Events(t)) != 0 {
		t.Errorf("something was stored: credential version %d, session %+v, %d events", acct.PasswordVersion, stored[x.ID], len(s.Events(t)))
	}
}

func serialisesAccountSessions(t *testing.T, s Subject) {
	const n = 8
	id := s.account(t, "ada")
	concurrently(t, n, func(ctx context.Context, _ int) error {
		return s.Store.UpdateAccountSessions(ctx, claim.None, id, at, func(h *session.AccountSessions) error {
			h.PasswordVersion++
			h.PasswordHash = strconv.Itoa(h.PasswordVersion)
			return nil
		})
	})
	acct, err := s.Store.AccountByID(t.Context(), id)
	must(t, err)
	if acct.PasswordVersion != n+1 || acct.PasswordHash != strconv.Itoa(n+1) {
		t.Errorf("after %d changes the credential is version %d (%q), want %d", n, acct.PasswordVersion, acct.PasswordHash, n+1)
	}
}

func commitsCredentials(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	x, k := s.session(t, id, at.Add(-time.Minute)), s.key(t, id, at.Add(-time.Minute))
	s.key(t, id, at.Add(-2*time.Hour)) // has expired
	must(t, s.Store.UpdateCredentials(t.Context(), claim.None, id, at, func(a *session.Credentials) error {
		assertSame(t, "sessions", a.Sessions, []*session.Session{x})
		assertSame(t, "keys", a.Keys, []*session.APIKey{k})
		a.Sessions[0].Revoke(session.AccountEnded, at)
		a.Keys[0].Revoke(at)
		a.PasswordHash, a.PasswordVersion = "another", a.PasswordVersion+1
		return nil
	}))
	acct, err := s.Store.AccountByID(t.Context(), id)
	must(t, err)
	if acct.PasswordHash != "another" || acct.PasswordVersion != 2 {
		t.Errorf("the credential is %q, version %d, want another, 2", acct.PasswordHash, acct.PasswordVersion)
	}
	must(t, s.Store.UpdateCredentials(t.Context(), claim.None, id, at, func(a *session.Credentials) error {
		if len(a.Sessions)+len(a.Keys) != 0 {
			t.Errorf("after all was revoked there are %d sessions and %d keys", len(a.Sessions), len(a.Keys))
		}
		return nil
	}))
	if got := s.types(t, id); !slices.Equal(got, []event.Type{session.EventSessionRevoked, session.EventAPIKeyRevoked}) {
		t.Errorf("events = %v, want both revocations", got)
	}
	wantCode(t, s.Store.UpdateCredentials(t.Context(), claim.None, uid.NewUser(at), at, func(*session.Credentials) error { return nil }), fault.UserNotFound)
}

// concurrently calls fn n times at once.
func concurrently(t *testing.T, n int, fn func(ctx context.Context, i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := fn(t.Context(), i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
