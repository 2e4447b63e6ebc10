package session_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
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

func TestService_Revoke(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	f.user(t, "staff", auth.Staff)
	f.user(t, "root", auth.Admin)
	victim, _ := f.signIn(t, "ada")
	second, ada := f.signIn(t, "ada")
	_, staff := f.signIn(t, "staff")
	_, root := f.signIn(t, "root")

	_, err := f.Revoke(t.Context(), claim.None, victim.Session.ID)
	wantCode(t, "by an anonymous caller", err, fault.Unauthenticated)
	_, err = f.Revoke(f.as(t, f.key(ada, t)), claim.None, victim.Session.ID)
	wantCode(t, "by an API key", err, fault.Forbidden)
	_, err = f.Revoke(staff, claim.None, victim.Session.ID)
	wantCode(t, "by STAFF", err, session.CodeSessionNotFound)
	_, err = f.Revoke(ada, claim.None, "ses_1")
	wantCode(t, "of what is no session", err, session.CodeSessionNotFound)
	_, err = f.Revoke(ada, claim.None, uid.NewSession(f.clock.now()))
	wantCode(t, "of a session that does not exist", err, session.CodeSessionNotFound)
	for range 2 {
		x, err := f.Revoke(ada, claim.None, victim.Session.ID)
		must(t, err)
		if x.RevokedAt == nil || x.Version != 2 || x.Current {
			t.Errorf("the session is %+v, want it revoked once, and not the caller's", x)
		}
	}
	_, err = f.Authenticate(t.Context(), victim.AccessToken)
	wantCode(t, "Authenticate", err, fault.Unauthenticated)
	f.as(t, second.AccessToken)
	_, err = f.Revoke(root, claim.None, second.Session.ID)
	wantCode(t, "by ADMIN", err, "")
	_, err = f.Authenticate(t.Context(), second.AccessToken)
	wantCode(t, "Authenticate", err, fault.Unauthenticated)

	revoked := 0
	for _, e := range f.store.Events() {
		if e.Type == session.EventSessionRevoked {
			revoked++
		}
	}
	if revoked != 2 {
		t.Errorf("%d sessions were revoked by the log, want 2", revoked)
	}
}

func TestService_RevokeAll(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	var tokens []*session.Tokens
	for range 3 {
		got, _ := f.signIn(t, "ada")
		tokens = append(tokens, got)
	}
	f.user(t, "bob")
	bob, _ := f.signIn(t, "bob")
	ctx := f.as(t, tokens[0].AccessToken)
	for _, tt := range []struct {
		exceptCurrent bool
		want          int
	}{{true, 2}, {true, 0}, {false, 1}} {
		if got, err := f.RevokeAll(ctx, claim.None, tt.exceptCurrent, false); err != nil || got != tt.want {
			t.Errorf("RevokeAll(%v) = %d, %v, want %d", tt.exceptCurrent, got, err, tt.want)
		}
	}
	for _, x := range tokens {
		_, err := f.Authenticate(t.Context(), x.AccessToken)
		wantCode(t, "Authenticate", err, fault.Unauthenticated)
	}
	f.as(t, bob.AccessToken)
	if n := len(f.store.Events()); n != 3 {
		t.Errorf("%d events, want one for each session", n)
	}
	_, err := f.RevokeAll(t.Context(), claim.None, false, false)
	wantCode(t, "RevokeAll by an anonymous caller", err, fault.Unauthenticated)
	wantCode(t, "SignOut by an anonymous caller", f.SignOut(t.Context(), claim.None), fault.Unauthenticated)
}

func TestAPI_keys_end_with_sessions_on_request(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	for name, end := range map[string]func(ctx context.Context, keys bool) error{
		"ChangePassword": func(ctx context.Context, keys bool) error {
			return f.ChangePassword(ctx, claim.None, password, password, keys)
		},
		"RevokeAll": func(ctx context.Context, keys bool) error {
			n, err := f.RevokeAll(ctx, claim.None, true, keys)
			if keys && n != 2 {
				t.Errorf("RevokeAll ended %d, want a session and a key", n)
			}
			return err
		},
	} {
		for _, keys := range []bool{false, true} {
			other, _ := f.signIn(t, "ada")
			mine, ctx := f.signIn(t, "ada")
			key := f.key(ctx, t)
			f.as(t, key)
			must(t, end(ctx, keys))
			f.as(t, mine.AccessToken)
			_, err := f.Authenticate(t.Context(), other.AccessToken)
			wantCode(t, name+": the other session", err, fault.Unauthenticated)
			_, err = f.Authenticate(t.Context(), key)
			if ended := fault.Is(err, fault.Unauthenticated); ended != keys {
				t.Errorf("%s with keys %v: the key gives %v", name, keys, err)
			}
			all, err := f.APIKeys(ctx, f.ada)
			must(t, err)
			for _, k := range all {
				_, err := f.RevokeAPIKey(ctx, claim.None, k.ID)
				must(t, err)
			}
			must(t, f.SignOut(ctx, claim.None))
		}
	}
}

func TestNewService_refuses_invalid_configurations(t *testing.T) {
	t.Parallel()
	for _, cfg := range []session.Config{{AccessTTL: 6 * time.Minute}, {AccessTTL: -1}, {IdleTTL: -1}, {HashQueue: -1}, {SignInsPerAddress: -1}} {
		store := sessiontest.NewMemory()
		if _, err := session.NewService(store, openSealer(t, store), time.Now, nil, cfg); err == nil {
			t.Errorf("NewService took %+v", cfg)
		}
	}
}

// runFixture is a fixture within a synctest bubble, whose clock is the bubble's.
func runFixture(t *testing.T) (*session.Service, *fixture) {
	f := newFixture(t, session.Config{})
	s, err := session.NewService(f.store, f.sealer, time.Now, slog.New(slog.DiscardHandler), session.Cheap(session.Config{}))
	must(t, err)
	f.Service = s
	return s, f
}

func TestService_Run(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, f := runFixture(t)
		must(t, s.Prepare(t.Context()))
		_, ada := f.signIn(t, "ada")
		text := f.key(ada, t)
		used := func() time.Time {
			t.Helper()
			keys, err := f.store.KeysOf(t.Context(), f.ada, 1)
			must(t, err)
			if keys[0].LastUsedAt == nil {
				return time.Time{}
			}
			return *keys[0].LastUsedAt
		}
		ctx, stop := newContext(t)
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()

		first := time.Now()
		f.as(t, text)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !used().Equal(first) {
			t.Errorf("LastUsedAt = %s, want %s", used(), first)
		}
		f.as(t, text) // within the minute: not worth a write
		before := f.store.Calls()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := f.store.Calls() - before; n != 0 {
			t.Errorf("a second use within a minute took %d calls, want none", n)
		}

		other := f.node(t, session.Config{})
		next, err := other.RotateSigningKey(t.Context())
		must(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		if ids := keyIDs(t, s); len(ids) != 2 || ids[1] != next.ID {
			t.Errorf("an interval after a rotation elsewhere %v are published, want the new one too", ids)
		}

		last := time.Now()
		f.as(t, text)
		f.store.Fail(errors.New("down")) // a failing round ends nothing, and loses nothing
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		f.store.Fail(nil)
		stop()
		must(t, <-done)
		if !used().Equal(last) {
			t.Errorf("LastUsedAt = %s after the end, want %s", used(), last)
		}
	})
}

func TestService_Run_removes_what_ended_long_ago(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, session.Config{IdleTTL: 90 * 24 * time.Hour})
		ended, ada := f.signIn(t, "ada")
		must(t, f.SignOut(ada, claim.None))
		live, _ := f.signIn(t, "ada")
		ctx, stop := newContext(t)
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		exists := func(id uid.Session) bool {
			found, err := f.store.SessionsByIDs(t.Context(), []uid.Session{id})
			must(t, err)
			return found[id] != nil
		}
		for _, tt := range []struct {
			after time.Duration
			want  bool
		}{{29 * 24 * time.Hour, true}, {2 * 24 * time.Hour, false}} {
			f.clock.add(tt.after)
			time.Sleep(time.Hour) // until the next round
			synctest.Wait()
			if exists(ended.Session.ID) != tt.want || !exists(live.Session.ID) {
				t.Errorf("%s later the ended session exists: %v, want %v; the live one: %v", tt.after, !tt.want, tt.want, exists(live.Session.ID))
			}
		}
		stop()
		must(t, <-done)
	})
}

// TestService_sweeps_soon_after_its_start: a node that restarts each half hour would never sweep otherwise.
func TestService_sweeps_soon_after_its_start(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, session.Config{})
		_, ada := f.signIn(t, "ada")
		id := auth.From(ada).SessionID()
		f.clock.add(2 * 365 * 24 * time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(time.Minute + time.Second)
		found, err := f.store.SessionsByIDs(t.Context(), []uid.Session{id})
		must(t, err)
		if len(found) != 0 {
			t.Errorf("the session that ended long ago is still stored a minute after the start")
		}
		cancel()
		must(t, <-done)
	})
}

// TestService_announces_keys_that_end_soon: once, whichever node and however often it starts.
func TestService_announces_keys_that_end_soon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, session.Config{})
		_, ada := f.signIn(t, "ada")
		soon, late := f.clock.now().Add(session.ExpiryNotice-time.Hour), f.clock.now().Add(session.ExpiryNotice+time.Hour)
		for name, end := range map[string]*time.Time{"soon": &soon, "late": &late} {
			_, _, err := f.CreateAPIKey(ada, session.CreateAPIKeyInput{Name: name, ExpiresAt: end, Scopes: []auth.Scope{auth.UsersRead}})
			must(t, err)
		}
		for range 2 { // starts
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			node := f.node(t, session.Config{})
			go func() { done <- node.Run(ctx) }()
			time.Sleep(time.Minute + time.Second)
			if n := node.ExpiringKeys(); n != 1 {
				t.Errorf("the metric says that %d keys end soon, want 1", n)
			}
			cancel()
			must(t, <-done)
		}
		var announced []string
		for _, e := range f.store.Events() {
			if e.Type == session.EventAPIKeyExpiring {
				announced = append(announced, string(e.Data))
			}
		}
		if len(announced) != 1 || !strings.Contains(announced[0], `"name":"soon"`) {
			t.Errorf("announced were %v, want the key that ends soon, once", announced)
		}
	})
}
