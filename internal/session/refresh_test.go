package session_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/uid"
)

func TestSession_Exchange(t *testing.T) {
	t.Parallel()
	opened := newTestClock().now()
	life := session.Lifetimes{Idle: 10 * time.Hour, Max: 24 * time.Hour}
	type outcome struct {
		good       bool
		generation int
		expires    time.Duration // after it was opened
		revoked    bool
	}
	tests := []struct {
		name  string
		token int
		after time.Duration // since the exchange that made generation 2
		want  outcome
	}{
		{"the present generation is exchanged for the next", 2, time.Minute, outcome{true, 3, 11*time.Hour + time.Minute, false}},
		{"the one before comes back within the grace", 1, 30 * time.Second, outcome{true, 2, 11 * time.Hour, false}},
		{"the one before comes back before its time, by another clock", 1, -time.Second, outcome{true, 2, 11 * time.Hour, false}},
		{"the one before comes back half a minute before its time, by the clock of a standby", 1, -30 * time.Second, outcome{true, 2, 11 * time.Hour, false}},
		{"the one before comes back before its time, by a wrong clock: the grace is void", 1, -31 * time.Second, outcome{false, 2, 11 * time.Hour, true}},
		{"the present one comes back before its time: it gets the right times", 2, -30 * time.Minute, outcome{true, 3, 10*time.Hour + 30*time.Minute, false}},
		{"the one before comes back after the grace", 1, 30*time.Second + 1, outcome{false, 2, 11 * time.Hour, true}},
		{"an older one comes back", 0, time.Second, outcome{false, 2, 11 * time.Hour, true}},
		{"one that was never given comes", 3, time.Second, outcome{false, 2, 11 * time.Hour, true}},
		{"the session was not used for too long", 2, 10 * time.Hour, outcome{false, 2, 11 * time.Hour, false}},
		{"the session's last hours are not prolonged", 2, 9*time.Hour + 59*time.Minute, outcome{true, 3, 20*time.Hour + 59*time.Minute, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			used := opened.Add(time.Hour)
			x := &session.Session{
				ID: uid.NewSession(opened), Generation: 2, Version: 5, CreatedAt: opened, LastUsedAt: used, ExpiresAt: used.Add(life.Idle),
			}
			good := x.Exchange(tt.token, life, used.Add(tt.after))
			got := outcome{good, x.Generation, x.ExpiresAt.Sub(opened), x.RevokedAt != nil}
			if got != tt.want {
				t.Errorf("Exchange gave %+v, want %+v", got, tt.want)
			}
			if evs := x.TakeEvents(); len(evs) == 1 != tt.want.revoked {
				t.Errorf("events = %+v, want one if and only if it was revoked", evs)
			}
			if changed := x.Version != 5; changed != (x.Generation == 3 || x.RevokedAt != nil) {
				t.Errorf("version = %d, want it raised by changes alone", x.Version)
			}
		})
	}
}

func TestService_Refresh_ends_at_the_limit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{IdleTTL: 10 * time.Hour, SessionTTL: 24 * time.Hour})
	tokens, _ := f.signIn(t, "ada")
	opened := f.clock.now()
	var err error
	for err == nil {
		f.clock.add(4*time.Hour + 59*time.Minute)
		last := tokens
		if tokens, err = f.Refresh(t.Context(), tokens.RefreshToken); err != nil {
			tokens = last
		} else if tokens.ExpiresAt.After(tokens.Session.ExpiresAt) {
			t.Errorf("an access token outlives its session by %s", tokens.ExpiresAt.Sub(tokens.Session.ExpiresAt))
		}
	}
	wantCode(t, "the last Refresh", err, session.CodeRefreshTokenInvalid)
	if life := tokens.Session.ExpiresAt.Sub(opened); life != 24*time.Hour {
		t.Errorf("the session lasted %s, want 24h", life)
	}
	if evs := f.store.Events(); len(evs) != 0 {
		t.Errorf("expiry recorded %v, want nothing", evs)
	}
}

func TestService_Refresh_refuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, _ := f.signIn(t, "ada")
	id := string(tokens.Session.ID)
	_, code, _ := strings.Cut(tokens.RefreshToken, ".1.")
	elsewhere := newFixture(t, session.Config{})
	foreign, _ := elsewhere.signIn(t, "ada")
	tests := []struct{ name, token string }{
		{"nothing", ""},
		{"an access token", tokens.AccessToken},
		{"a code of another generation", id + ".2." + code},
		{"a code that is none", id + ".1." + strings.Repeat("A", 43)},
		{"a code that is cut", id + ".1." + code[:42]},
		{"another session's id", string(uid.NewSession(f.clock.now())) + ".1." + code},
		{"another installation's token", foreign.RefreshToken},
		{"a generation in another spelling", id + ".01." + code},
		{"something behind it", tokens.RefreshToken + "."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := f.Refresh(t.Context(), tt.token)
			wantCode(t, "Refresh", err, session.CodeRefreshTokenInvalid)
			if evs := f.store.Events(); len(evs) != 0 {
				t.Errorf("a forged token recorded %v: it must not end a session", evs)
			}
		})
	}
}

func TestService_Refresh_refuses_an_account_that_is_not_active(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, ctx := f.signIn(t, "ada")
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
	_, err := f.Refresh(t.Context(), tokens.RefreshToken)
	wantCode(t, "Refresh for an account that may not act", err, session.CodeRefreshTokenInvalid)
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = true })
	must(t, f.SignOut(ctx, claim.None))
	_, err = f.Refresh(t.Context(), tokens.RefreshToken)
	wantCode(t, "Refresh after signing out", err, session.CodeRefreshTokenInvalid)
}

func TestService_Refresh_gives_two_parallel_calls_the_same_token(t *testing.T) {
	t.Parallel()
	for range 20 {
		f := newFixture(t, session.Config{})
		nodes := []*session.Service{f.Service, f.node(t, session.Config{})}
		first, _ := f.signIn(t, "ada")
		got := make([]*session.Tokens, 8)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				var err error
				if got[i], err = nodes[i%2].Refresh(t.Context(), first.RefreshToken); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, tokens := range got {
			if tokens.RefreshToken != got[0].RefreshToken || tokens.RefreshToken == first.RefreshToken {
				t.Errorf("racers got %q and %q from %q, want one new token", got[0].RefreshToken, tokens.RefreshToken, first.RefreshToken)
			}
			f.as(t, tokens.AccessToken)
		}
	}
}

// TestService_Refresh_property plays random clients: any of the tokens given so
// far is shown, time passes, and the rule of the design decides what is due.
func TestService_Refresh_property(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		f := newFixture(t, session.Config{IdleTTL: 2 * time.Hour, SessionTTL: 24 * time.Hour})
		nodes := []*session.Service{f.Service, f.node(t, session.Config{IdleTTL: 2 * time.Hour, SessionTTL: 24 * time.Hour})}
		tokens, _ := f.signIn(t, "ada")
		given := []string{tokens.RefreshToken} // by generation
		rotated, dead := f.clock.now(), false
		for step := range 30 {
			f.clock.add(time.Duration(r.IntN(25)) * time.Second)
			i := max(0, len(given)-1-r.IntN(10)/7-r.IntN(20)/19)
			due := !dead && (i == len(given)-1 || i == len(given)-2 && f.clock.now().Sub(rotated) <= 30*time.Second)
			got, err := nodes[r.IntN(2)].Refresh(t.Context(), given[i])
			if (err == nil) != due {
				t.Fatalf("seed %d, step %d: token %d of %d gave %v, want good %v", seed, step, i+1, len(given), err, due)
			}
			switch {
			case err != nil:
				wantCode(t, "Refresh", err, session.CodeRefreshTokenInvalid)
				dead = true
			case i == len(given)-1:
				given, rotated = append(given, got.RefreshToken), f.clock.now()
			case got.RefreshToken != given[len(given)-1]:
				t.Fatalf("seed %d, step %d: a token that came back gave another than the first time", seed, step)
			}
		}
		wantEvents(t, f.store, dead)
	}
}

// wantEvents checks that a session was ended by a reused token once, or never.
func wantEvents(t *testing.T, store *sessiontest.Memory, ended bool) {
	t.Helper()
	evs := store.Events()
	if ended != (len(evs) == 1) || ended && (evs[0].Type != session.EventSessionRevoked || !strings.Contains(string(evs[0].Data), "TOKEN_REUSED")) {
		t.Errorf("events = %v, want one session.revoked: %v", evs, ended)
	}
}

func FuzzParseRefreshToken(f *testing.F) {
	id := uid.NewSession(newTestClock().now())
	code := strings.Repeat("A", 43)
	for _, s := range []string{"", ".", "..", string(id), fmt.Sprintf("%s.1.%s", id, code), fmt.Sprintf("%s.+1.%s", id, code), fmt.Sprintf("%s.0.%s", id, code), fmt.Sprintf("%s.-1.%s", id, code), fmt.Sprintf("%s.999999999.%s", id, code), "key_" + string(id[4:]) + ".1." + code} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, id, generation, ok := session.ParseRefreshToken(s)
		if ok && (text != s || !id.Valid() || generation < 1) {
			t.Errorf("%q reads as %q: session %q, generation %d", s, text, id, generation)
		}
	})
}
