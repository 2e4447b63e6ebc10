package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/uid"
)

func TestService_SignIn(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, login, password string
		code                  fault.Code
	}{
		{"by user name", "ada", password, ""},
		{"by email address", "ada@example.com", password, ""},
		{"with spaces around the name", " ada ", password, ""},
		{"a wrong password", "ada", "wrong password", fault.CredentialsWrong},
		{"a password too short to be one", "ada", "short", fault.CredentialsWrong},
		{"an endless password", "ada", strings.Repeat("x", 2000), fault.CredentialsWrong},
		{"an unknown user", "eve", password, fault.CredentialsWrong},
		{"an unknown email address", "eve@example.com", password, fault.CredentialsWrong},
		{"an account that may not act", "idle", password, fault.CredentialsWrong},
		{"an account without a password", "nopass", password, fault.CredentialsWrong},
		{"an account without a password, and none given", "nopass", "", fault.CredentialsWrong},
		{"a damaged hash", "damaged", password, fault.CredentialsWrong},
		{"no name", "", password, fault.CredentialsWrong},
		{"a NUL in the name", "ada\x00", password, fault.CredentialsWrong},
		{"broken UTF-8 in the name", "ada\xff", password, fault.CredentialsWrong},
		{"an endless name", strings.Repeat("x", 5000), password, fault.CredentialsWrong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, session.Config{})
			idle := f.user(t, "idle")
			f.store.SetAccount(idle, func(a *session.Account) { a.Active = false })
			f.store.AddAccount(t, sessiontest.NewAccount{Username: "nopass"})
			f.store.AddAccount(t, sessiontest.NewAccount{Username: "damaged", PasswordHash: "no hash at all"})
			var hashes session.CallCounter
			f.OnHash(hashes.Call)
			before := f.store.Calls()
			tokens, err := f.SignIn(from(t, "192.0.2.1"), tt.login, tt.password)
			wantCode(t, "SignIn", err, tt.code)
			if n := hashes.Load(); n != 1 {
				t.Errorf("it took %d hashes, want 1 for every caller", n)
			}
			if err != nil {
				if e := fault.From(err); e.Message != "The login or the password is wrong." || e.Err != nil || f.store.Calls()-before > 2 {
					t.Errorf("the refusal is %+v after %d calls of the store, want it to reveal nothing after at most 2", e, f.store.Calls()-before)
				}
				return
			}
			if x := tokens.Session; x.UserID != f.ada || x.Address != "192.0.2.1" || x.UserAgent != "test" || !x.Current {
				t.Errorf("the session is %+v, want ada's, from where she called", x)
			}
			f.as(t, tokens.AccessToken)
		})
	}
}

func TestService_SignIn_prints_no_tokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, _ := f.signIn(t, "ada")
	shown := fmt.Sprintf("%v %+v %s", tokens, tokens, tokens.LogValue())
	if strings.Contains(shown, tokens.AccessToken) || strings.Contains(shown, tokens.RefreshToken) {
		t.Errorf("tokens print as %q", shown)
	}
}

func TestService_SignIn_checks_no_more_parallel_guesses_than_the_limit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{SignInsPerAccount: 4, HashQueue: 1000})
	nodes := []*session.Service{f.Service, f.node(t, session.Config{SignInsPerAccount: 4, HashQueue: 1000})}
	var hashes session.CallCounter
	for _, n := range nodes {
		n.OnHash(hashes.Call)
	}
	var refused atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			_, err := nodes[i%2].SignIn(from(t, "192.0.2.1"), "ada", fmt.Sprintf("wrong guess %d", i))
			if e := fault.From(err); e.Code == fault.RateLimited && e.Kind() == fault.KindExhausted && e.RetryAfter == 15*time.Minute {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if hashes.Load() != 4 || refused.Load() != 36 {
		t.Errorf("of 40 guesses at once %d were looked at and %d refused, want 4 and 36", hashes.Load(), refused.Load())
	}
	_, err := f.SignIn(from(t, "192.0.2.1"), "ada@example.com", password)
	wantCode(t, "SignIn under her other name", err, fault.RateLimited)
	_, err = f.SignIn(from(t, "192.0.2.2"), "ada", password)
	wantCode(t, "SignIn from elsewhere", err, "")
	f.clock.add(15 * time.Minute)
	_, err = f.SignIn(from(t, "192.0.2.1"), "ada", password)
	wantCode(t, "SignIn a window later", err, "")
}

// guess makes n wrong guesses and returns how many were looked at.
func guess(ctx context.Context, f *fixture, login string, n int) (looked int) {
	for range n {
		if _, err := f.SignIn(ctx, login, "a wrong guess"); fault.Is(err, fault.CredentialsWrong) {
			looked++
		}
	}
	return looked
}

func TestService_SignIn_throttle(t *testing.T) {
	t.Parallel()
	cfg := session.Config{SignInsPerAccount: 3, SignInsPerAddress: 8}
	tests := []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"a success forgives the account", func(t *testing.T, f *fixture) {
			ctx := from(t, "192.0.2.1")
			for range 2 {
				if got := guess(ctx, f, "ada", 2); got != 2 {
					t.Errorf("%d guesses were looked at, want 2", got)
				}
				f.signIn(t, "ada")
			}
		}},
		{"a success does not forgive the address", func(t *testing.T, f *fixture) {
			ctx, looked := from(t, "192.0.2.1"), 0
			for i := range 10 {
				looked += guess(ctx, f, fmt.Sprint("victim", i), 1)
				_, _ = f.SignIn(ctx, "ada", password)
			}
			if looked != 8 {
				t.Errorf("%d guesses were looked at, want 8", looked)
			}
		}},
		{"a guess that is refused for its account does not count for its address", func(t *testing.T, f *fixture) {
			ctx := from(t, "192.0.2.1")
			if got := guess(ctx, f, "ada", 50) + guess(ctx, f, "bob", 3) + guess(ctx, f, "eve", 3); got != 8 {
				t.Errorf("%d guesses were looked at, want 3, 3 and 2", got)
			}
		}},
		{"unknown accounts are counted as known ones are", func(t *testing.T, f *fixture) {
			ctx := from(t, "192.0.2.1")
			if got := guess(ctx, f, "unknown", 2) + guess(ctx, f, "UNKNOWN", 2); got != 3 {
				t.Errorf("%d guesses were looked at, want 3", got)
			}
		}},
		{"an IPv6 network counts as one address", func(t *testing.T, f *fixture) {
			got := 0
			for i := range 6 {
				got += guess(from(t, fmt.Sprintf("2001:db8::%d", i+1)), f, "ada", 1)
			}
			if got != 3 || guess(from(t, "2001:db8:0:1::1"), f, "ada", 1) != 1 {
				t.Errorf("%d guesses from one network were looked at, want 3", got)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, newFixture(t, cfg))
		})
	}
}

func TestService_SignIn_counts_right_passwords_as_well(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{AttemptsPerAccount: 3, AttemptsPerAddress: 7})
	for _, name := range []string{"bob", "eve"} {
		f.user(t, name)
	}
	var hashes session.CallCounter
	f.OnHash(hashes.Call)
	signIn := func(address, login string, n int) (opened int) {
		for range n {
			switch _, err := f.SignIn(from(t, address), login, password); {
			case err == nil:
				opened++
			case !fault.Is(err, fault.RateLimited):
				t.Errorf("SignIn(%s) from %s gave %v", login, address, err)
			}
		}
		return opened
	}
	got := []int{signIn("192.0.2.1", "ada", 10), signIn("192.0.2.1", "bob", 10), signIn("192.0.2.1", "eve", 10), signIn("192.0.2.2", "ada", 1)}
	if want := []int{3, 3, 1, 1}; !slices.Equal(got, want) || hashes.Load() != 8 {
		t.Errorf("%v sign-ins succeeded at the price of %d hashes, want %v and 8", got, hashes.Load(), want)
	}
	f.clock.add(15 * time.Minute)
	if got := signIn("192.0.2.1", "ada", 1); got != 1 {
		t.Error("a window later ada cannot sign in")
	}
}

func TestService_SignIn_does_not_count_a_guess_that_was_not_checked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, session.Config{SignInsPerAccount: 3, Hashers: 1, HashQueue: 1})
		release := make(chan struct{})
		f.OnHash(func() { <-release })
		hashed := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := f.HashPassword(t.Context(), password)
				hashed <- err
			}()
		}
		synctest.Wait() // one hashes, one waits: the queue is full
		for range 10 {
			_, err := f.SignIn(from(t, "192.0.2.1"), "ada", "a wrong guess")
			wantCode(t, "SignIn while the queue is full", err, fault.ServerBusy)
		}
		close(release)
		must(t, errors.Join(<-hashed, <-hashed))
		if got := guess(from(t, "192.0.2.1"), f, "ada", 5); got != 3 {
			t.Errorf("%d guesses were looked at afterwards, want 3", got)
		}
	})
}

func TestService_SignIn_has_no_limits_if_they_are_disabled(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{NoRateLimit: true, SignInsPerAccount: 1, SignUpsPerAddress: 1})
	if got := guess(from(t, "192.0.2.1"), f, "ada", 30); got != 30 {
		t.Errorf("%d guesses were looked at, want all 30", got)
	}
	for range 3 {
		wantCode(t, "AllowSignUp", f.AllowSignUp(from(t, "192.0.2.1")), "")
	}
}

func TestService_AllowSignUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	for range 20 {
		wantCode(t, "AllowSignUp", f.AllowSignUp(from(t, "192.0.2.1")), "")
	}
	wantCode(t, "the 21st", f.AllowSignUp(from(t, "192.0.2.1")), fault.RateLimited)
	wantCode(t, "one from elsewhere", f.AllowSignUp(from(t, "192.0.2.2")), "")
	f.clock.add(time.Hour)
	wantCode(t, "one an hour later", f.AllowSignUp(from(t, "192.0.2.1")), "")
}

func TestService_AllowNameChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{NamesPerUser: 2, NamesPerAddress: 3})
	ada, bob := uid.NewUser(f.clock.now()), uid.NewUser(f.clock.now())
	for range 2 {
		wantCode(t, "AllowNameChange", f.AllowNameChange(from(t, "192.0.2.1"), ada), "")
	}
	wantCode(t, "the third of a user", f.AllowNameChange(from(t, "192.0.2.2"), ada), fault.RateLimited)
	wantCode(t, "one of another user", f.AllowNameChange(from(t, "192.0.2.1"), bob), "")
	wantCode(t, "the fourth from an address", f.AllowNameChange(from(t, "192.0.2.1"), bob), fault.RateLimited)
	wantCode(t, "one from elsewhere", f.AllowNameChange(from(t, "192.0.2.2"), bob), "")
	f.clock.add(time.Hour)
	wantCode(t, "one an hour later", f.AllowNameChange(from(t, "192.0.2.1"), ada), "")
}

func TestService_SignIn_takes_a_password_typed_differently(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	hash, err := f.HashPassword(t.Context(), "caf\u00e9 au lait\u00a0bleu")
	must(t, err)
	f.store.AddAccount(t, sessiontest.NewAccount{Username: "zoe", PasswordHash: hash})
	_, err = f.SignIn(from(t, "192.0.2.1"), "zoe", "cafe\u0301 au lait bleu")
	wantCode(t, "SignIn", err, "")
	_, err = f.SignIn(from(t, "192.0.2.1"), "zoe", "CAF\u00c9 AU LAIT BLEU")
	wantCode(t, "SignIn in other case", err, fault.CredentialsWrong)
}

func TestService_SignIn_renews_hashes_of_another_cost(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	later, err := session.NewService(f.store, f.sealer, f.clock.now, nil, session.Costly(session.Config{}))
	must(t, err)
	before, err := f.store.AccountByID(t.Context(), f.ada)
	must(t, err)
	for range 2 {
		_, err = later.SignIn(from(t, "192.0.2.1"), "ada", password)
		wantCode(t, "SignIn", err, "")
	}
	after, err := f.store.AccountByID(t.Context(), f.ada)
	must(t, err)
	if !strings.Contains(after.PasswordHash, "m=16,") || after.PasswordVersion != before.PasswordVersion {
		t.Errorf("the credential is %q, version %d, want a new hash of the same password", after.PasswordHash, after.PasswordVersion)
	}
	f.signIn(t, "ada")
}

func TestService_SignIn_fails_if_the_password_changes_meanwhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	f.OnHash(func() {
		f.store.SetAccount(f.ada, func(a *session.Account) { a.PasswordVersion++ })
	})
	_, err := f.SignIn(from(t, "192.0.2.1"), "ada", password)
	wantCode(t, "SignIn", err, fault.CredentialsWrong)
}

func TestService_Open(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{MaxSessions: 3})
	_, err := f.Open(from(t, "192.0.2.1"), uid.NewUser(f.clock.now()))
	wantCode(t, "Open for an unknown user", err, fault.UserNotFound)
	var all []*session.Tokens
	for range 5 {
		tokens, err := f.Open(from(t, "192.0.2.1"), f.ada)
		must(t, err)
		all = append(all, tokens)
		f.clock.add(time.Second)
	}
	for i, tokens := range all {
		_, err := f.Authenticate(t.Context(), tokens.AccessToken)
		if gone := i < 2; gone != (err != nil) {
			t.Errorf("session %d of 5: %v, want the last 3 to live", i+1, err)
		}
	}
	if evs := f.store.Events(); len(evs) != 2 || evs[0].Type != session.EventSessionRevoked || evs[0].SubjectID != string(all[0].Session.ID) {
		t.Errorf("events = %+v, want a session.revoked for each of the first two", evs)
	}
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
	_, err = f.Open(from(t, "192.0.2.1"), f.ada)
	wantCode(t, "Open for an account that may not act", err, fault.CredentialsWrong)
}

func TestService_ChangePassword(t *testing.T) {
	t.Parallel()
	const next = "an entirely new password"
	f := newFixture(t, session.Config{SignInsPerAccount: 3})
	other, _ := f.signIn(t, "ada")
	mine, ctx := f.signIn(t, "ada")
	key := f.key(ctx, t)

	wantCode(t, "ChangePassword by an anonymous caller", f.ChangePassword(t.Context(), claim.None, password, next, false), fault.Unauthenticated)
	wantCode(t, "ChangePassword by a key", f.ChangePassword(f.as(t, key), claim.None, password, next, false), fault.Forbidden)
	err := f.ChangePassword(ctx, claim.None, password, "short", false)
	if e := fault.From(err); e.Code != fault.PasswordInvalid || len(e.Path) != 1 || e.Path[0] != "newPassword" {
		t.Errorf("ChangePassword to a short one gave %+v, want PASSWORD_INVALID at newPassword", e)
	}
	err = f.ChangePassword(ctx, claim.None, "a wrong guess", next, false)
	if e := fault.From(err); e.Code != fault.CredentialsWrong || len(e.Path) != 1 || e.Path[0] != "currentPassword" {
		t.Errorf("ChangePassword from a wrong one gave %+v, want CREDENTIALS_WRONG at currentPassword", e)
	}
	var codes []string
	for _, e := range fault.All(f.ChangePassword(ctx, claim.None, "a wrong guess", "short", false)) {
		codes = append(codes, e.Path[0]+" "+string(e.Code))
	}
	if want := []string{"currentPassword CREDENTIALS_WRONG", "newPassword PASSWORD_INVALID"}; !slices.Equal(codes, want) {
		t.Errorf("ChangePassword from a wrong one to a short one gave %v, want %v", codes, want)
	}
	wantCode(t, "ChangePassword", f.ChangePassword(ctx, claim.None, password, next, false), "")

	_, err = f.Authenticate(t.Context(), other.AccessToken)
	wantCode(t, "the other session", err, fault.Unauthenticated)
	_, err = f.Refresh(t.Context(), other.RefreshToken)
	wantCode(t, "the other session's refresh", err, session.CodeRefreshTokenInvalid)
	f.as(t, mine.AccessToken)
	f.as(t, key)
	_, err = f.SignIn(from(t, "192.0.2.1"), "ada", password)
	wantCode(t, "SignIn with the old password", err, fault.CredentialsWrong)
	_, err = f.SignIn(from(t, "192.0.2.1"), "ada", next)
	wantCode(t, "SignIn with the new password", err, "")

	for range 3 {
		wantCode(t, "a wrong guess", f.ChangePassword(ctx, claim.None, "a wrong guess", next, false), fault.CredentialsWrong)
	}
	wantCode(t, "one guess too many", f.ChangePassword(ctx, claim.None, next, password, false), fault.RateLimited)
}

// key makes an API key for the caller that may do everything a customer may.
func (f *fixture) key(ctx context.Context, t testing.TB) string {
	t.Helper()
	_, text, err := f.CreateAPIKey(ctx, session.CreateAPIKeyInput{Name: "key", Scopes: []auth.Scope{auth.UsersRead, auth.OrdersWrite}})
	must(t, err)
	return text
}
