package session_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session"
)

// eventLog collects the security events that a service records.
type eventLog struct {
	mu     sync.Mutex
	events []security.Event
}

func (l *eventLog) record(e security.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// take returns the events since the last call.
func (l *eventLog) take() []security.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events = nil
	return events
}

// wantOne checks that one event was recorded.
func (l *eventLog) wantOne(t *testing.T, what string, want security.EventType, detail string, about string) {
	t.Helper()
	all := l.take()
	if len(all) != 1 || all[0].Type != want || all[0].Detail != detail || string(all[0].UserID) != about {
		t.Errorf("%s recorded %+v, want %s %s about %q", what, all, want, detail, about)
	}
}

func TestService_records_failed_sign_ins_without_the_login(t *testing.T) {
	t.Parallel()
	var log eventLog
	f := newFixture(t, session.Config{SignInsPerAccount: 2, Security: log.record})
	ctx := auth.WithClient(t.Context(), auth.Client{Address: "192.0.2.1", UserAgent: "curl/8"})
	fail := func(login string, want fault.Code) {
		t.Helper()
		_, err := f.SignIn(ctx, login, "not the password")
		wantCode(t, "SignIn as "+login, err, want)
	}
	fail("ada", fault.CredentialsWrong)
	log.wantOne(t, "a wrong password", security.SignInFailed, "WRONG_PASSWORD", string(f.ada))
	fail("a password in the wrong field", fault.CredentialsWrong)
	log.wantOne(t, "an unknown login", security.SignInFailed, "UNKNOWN_LOGIN", "")
	fail("ada@example.com", fault.CredentialsWrong)
	log.wantOne(t, "a wrong password", security.SignInFailed, "WRONG_PASSWORD", string(f.ada))
	_, err := f.SignIn(ctx, "ada", "not the password")
	if _, again := security.EventOf(ctx, err, time.Now()); !fault.Is(err, fault.RateLimited) || again {
		t.Errorf("a throttled sign-in gave %v, want RATE_LIMITED that is recorded already", err)
	}
	log.wantOne(t, "a throttled sign-in", security.SignInThrottled, "", string(f.ada))
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
	_, err = f.SignIn(auth.WithClient(t.Context(), auth.Client{Address: "192.0.2.2"}), "ada", password)
	wantCode(t, "SignIn to an inactive account", err, fault.CredentialsWrong)
	log.wantOne(t, "an inactive account", security.SignInFailed, "INACTIVE", string(f.ada))
}

func TestService_records_refused_refresh_tokens(t *testing.T) {
	t.Parallel()
	var log eventLog
	f := newFixture(t, session.Config{IdleTTL: time.Hour, Security: log.record})
	first, _ := f.signIn(t, "ada")
	refuse := func(token string) {
		t.Helper()
		_, err := f.Refresh(t.Context(), token)
		wantCode(t, "Refresh", err, session.CodeRefreshTokenInvalid)
	}
	refuse("nonsense")
	log.wantOne(t, "no token", security.CredentialRefused, "MALFORMED", "")
	refuse(first.RefreshToken[:strings.LastIndex(first.RefreshToken, ".")+1] + strings.Repeat("A", 43))
	log.wantOne(t, "a forged token", security.CredentialRefused, "UNKNOWN", "")
	f.clock.add(2 * time.Hour)
	refuse(first.RefreshToken)
	log.wantOne(t, "an expired session", security.CredentialRefused, "EXPIRED", string(f.ada))
	second, _ := f.signIn(t, "ada")
	third, err := f.Refresh(t.Context(), second.RefreshToken)
	must(t, err)
	f.clock.add(time.Minute)
	refuse(second.RefreshToken)
	if all := log.take(); len(all) != 0 {
		t.Errorf("a reused token recorded %+v; the session that ends is the event", all)
	}
	refuse(third.RefreshToken)
	log.wantOne(t, "a token of a revoked session", security.CredentialRefused, "REVOKED", string(f.ada))
}

func TestService_Authenticate_says_what_a_refused_credential_was(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, ctx := f.signIn(t, "ada")
	key := f.key(ctx, t)
	ended, endedCtx := f.signIn(t, "ada")
	must(t, f.SignOut(endedCtx, claim.None))
	parts := strings.Split(tokens.AccessToken, ".")
	wantRefusal := func(what, bearer, detail string, about string) {
		t.Helper()
		code := fault.Unauthenticated
		if detail == "EXPIRED" && f.IsAccessToken(bearer) {
			code = fault.TokenExpired
		}
		_, err := f.Authenticate(t.Context(), bearer)
		wantCode(t, "Authenticate", err, code)
		e, ok := security.EventOf(t.Context(), err, time.Now())
		if !ok || e.Type != security.CredentialRefused || e.Detail != detail || string(e.UserID) != about || (e.SessionID != "" || e.APIKeyID != "") != (about != "") {
			t.Errorf("%s is the security event %+v, want %s about %q", what, e, detail, about)
		}
	}
	wantRefusal("text", "nonsense", "MALFORMED", "")
	wantRefusal("a key in another form", "bpk_nonsense", "MALFORMED", "")
	wantRefusal("a key with another secret", key[:len(key)-43]+strings.Repeat("A", 43), "UNKNOWN", "")
	wantRefusal("a token with another signature", parts[0]+"."+parts[1]+"."+strings.Repeat("A", len(parts[2])), "UNKNOWN", "")
	wantRefusal("the token of a session that was signed out", ended.AccessToken, "REVOKED", string(f.ada))
	f.clock.add(6 * time.Minute)
	wantRefusal("a token that was verified before it expired", ended.AccessToken, "EXPIRED", string(f.ada))
	wantRefusal("a token that was never verified", tokens.AccessToken, "EXPIRED", string(f.ada))
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
	wantRefusal("a key of an inactive account", key, "REVOKED", string(f.ada))
	f.clock.add(91 * 24 * time.Hour)
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = true })
	wantRefusal("an expired key", key, "EXPIRED", string(f.ada))
}

func TestService_limits_say_what_was_asked_for(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{SignUpsPerAddress: 1, NamesPerUser: 1, SignInsPerAccount: 1})
	_, ctx := f.signIn(t, "ada")
	for detail, call := range map[string]func(context.Context) error{
		"SIGN_UP":     f.AllowSignUp,
		"NAME_CHANGE": func(ctx context.Context) error { return f.AllowNameChange(ctx, f.ada) },
		"PASSWORD_CHANGE": func(ctx context.Context) error {
			return f.ChangePassword(ctx, claim.None, "wrong", "a password of mine", false)
		},
	} {
		_ = call(ctx)
		err := call(ctx)
		if e, ok := security.EventOf(ctx, err, time.Now()); !fault.Is(err, fault.RateLimited) || !ok || e.Type != security.RateLimited || e.Detail != detail {
			t.Errorf("the second %s gave %v, which is %+v", detail, err, e)
		}
	}
}

func TestService_records_a_wrong_current_password(t *testing.T) {
	t.Parallel()
	var log eventLog
	f := newFixture(t, session.Config{Security: log.record})
	_, ctx := f.signIn(t, "ada")
	wantCode(t, "ChangePassword", f.ChangePassword(ctx, claim.None, "wrong", "a password of mine", false), fault.CredentialsWrong)
	if all := log.take(); len(all) != 1 || all[0].Type != security.PasswordChangeFailed || all[0].UserID != f.ada || all[0].SessionID == "" {
		t.Errorf("a wrong current password recorded %+v", all)
	}
	must(t, f.ChangePassword(ctx, claim.None, password, "a password of mine", false))
	stored := f.store.SecurityEvents()
	types := make([]security.EventType, 0, len(stored))
	for _, e := range stored {
		types = append(types, e.Type)
	}
	if want := []security.EventType{security.SignInSucceeded, security.PasswordChanged}; !slices.Equal(types, want) || stored[0].SessionID == "" || stored[0].Actor != string(f.ada) {
		t.Errorf("the changes stored %+v, want %v", stored, want)
	}
}
