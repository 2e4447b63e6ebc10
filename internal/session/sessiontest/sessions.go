package sessiontest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/throttle"
	"github.com/backplane-dev/backplane/internal/uid"
)

var lifetimes = session.Lifetimes{Idle: time.Hour, Max: 2 * time.Hour}

func updatesSessions(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	x := s.session(t, id, at)
	later := at.Add(time.Minute)
	got, err := s.Store.UpdateSession(t.Context(), claim.None, x.ID, func(x *session.Session) error {
		x.Exchange(1, lifetimes, later)
		return nil
	})
	must(t, err)
	stored, err := s.Store.SessionsByIDs(t.Context(), []uid.Session{x.ID})
	must(t, err)
	assertSame(t, "session", stored[x.ID], got)
	if got.Generation != 2 || got.Version != 2 || !got.LastUsedAt.Equal(later) || !got.ExpiresAt.Equal(later.Add(time.Hour)) {
		t.Errorf("after an exchange the session is %+v", got)
	}

	_, err = s.Store.UpdateSession(t.Context(), claim.None, x.ID, func(x *session.Session) error {
		x.Revoke(session.Revoked, later)
		return errStop
	})
	if !errors.Is(err, errStop) || len(s.Events(t)) != 0 {
		t.Errorf("UpdateSession = %v with %d events, want the function's error and none", err, len(s.Events(t)))
	}
	got, err = s.Store.UpdateSession(t.Context(), claim.None, x.ID, func(x *session.Session) error {
		x.Revoke(session.Revoked, later)
		return nil
	})
	must(t, err)
	if got.RevokedAt == nil || !slices.Equal(s.types(t, id), []event.Type{session.EventSessionRevoked}) {
		t.Errorf("the session is %+v with events %v, want it revoked with one", got, s.types(t, id))
	}
	_, err = s.Store.UpdateSession(t.Context(), claim.None, uid.NewSession(at), func(*session.Session) error { return nil })
	wantCode(t, err, session.CodeSessionNotFound)
}

func serialisesSessions(t *testing.T, s Subject) {
	x := s.session(t, s.account(t, "ada"), at)
	concurrently(t, 8, func(ctx context.Context, _ int) error {
		_, err := s.Store.UpdateSession(ctx, claim.None, x.ID, func(x *session.Session) error {
			if !x.Exchange(1, lifetimes, at.Add(time.Second)) {
				t.Error("an exchange within the grace was refused")
			}
			return nil
		})
		return err
	})
	stored, err := s.Store.SessionsByIDs(t.Context(), []uid.Session{x.ID})
	must(t, err)
	if got := stored[x.ID]; got.Generation != 2 || got.Version != 2 {
		t.Errorf("8 exchanges at once gave generation %d, version %d, want 2 of both", got.Generation, got.Version)
	}
}

func readsStatesWithAccounts(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	x, k := s.session(t, id, at), s.key(t, id, at)
	want, err := s.Store.AccountByID(t.Context(), id)
	must(t, err)

	gotSession, acct, err := s.Store.SessionWithAccount(t.Context(), x.ID)
	must(t, err)
	assertSame(t, "session", gotSession, x)
	if !acct.Active || acct.UserID != id || !slices.Equal(acct.Roles, want.Roles) {
		t.Errorf("the session's account is %+v, want %+v", acct, want)
	}
	gotKey, acct, err := s.Store.KeyWithAccount(t.Context(), k.ID)
	must(t, err)
	assertSame(t, "key", gotKey, k)
	if !acct.Active || acct.UserID != id || !slices.Equal(acct.Roles, want.Roles) {
		t.Errorf("the key's account is %+v, want %+v", acct, want)
	}

	_, _, err = s.Store.SessionWithAccount(t.Context(), uid.NewSession(at))
	wantCode(t, err, session.CodeSessionNotFound)
	_, _, err = s.Store.KeyWithAccount(t.Context(), uid.NewAPIKey(at))
	wantCode(t, err, session.CodeAPIKeyNotFound)
}

func listsSessions(t *testing.T, s Subject) {
	ada, bob := s.account(t, "ada"), s.account(t, "bob")
	s.session(t, bob, at)
	s.session(t, ada, at.Add(-time.Hour)) // expires at this moment
	first := s.session(t, ada, at.Add(-2*time.Minute))
	last := s.session(t, ada, at.Add(-time.Minute))
	got, err := s.Store.LiveSessions(t.Context(), ada, at, 10)
	must(t, err)
	assertSame(t, "list", got, []*session.Session{last, first})
	got, err = s.Store.LiveSessions(t.Context(), ada, at, 1)
	must(t, err)
	assertSame(t, "short list", got, []*session.Session{last})
}

func removesEndedRows(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	live, old, revoked := s.session(t, id, at), s.session(t, id, at.Add(-3*time.Hour)), s.session(t, id, at)
	for range 3 {
		s.session(t, id, at.Add(-4*time.Hour))
	}
	_, err := s.Store.UpdateSession(t.Context(), claim.None, revoked.ID, func(x *session.Session) error {
		x.Revoke(session.Revoked, at)
		return nil
	})
	must(t, err)
	liveKey, oldKey, revokedKey := s.key(t, id, at), s.key(t, id, at.Add(-3*time.Hour)), s.key(t, id, at.Add(-time.Minute))
	_, err = s.Store.UpdateKey(t.Context(), claim.None, revokedKey.ID, func(k *session.APIKey) error {
		k.Revoke(at.Add(-2 * time.Hour))
		return nil
	})
	must(t, err)
	takeCounters(t, s, at, throttle.Counter{Name: "short", Limit: 1, Window: time.Minute}, throttle.Counter{Name: "long", Limit: 1, Window: time.Hour})

	total := 0
	for range 10 {
		n, err := s.Store.Sweep(t.Context(), at.Add(-time.Hour), at.Add(2*time.Minute), 2)
		must(t, err)
		if n > 4 {
			t.Errorf("Sweep removed %d rows, want at most 2 of each kind", n)
		}
		total += n
	}
	if total != 7 {
		t.Errorf("Sweep removed %d rows, want 4 sessions, 2 keys and 1 counter", total)
	}
	for _, gone := range []*session.APIKey{oldKey, revokedKey} {
		_, _, err := s.Store.KeyWithAccount(t.Context(), gone.ID)
		wantCode(t, err, session.CodeAPIKeyNotFound)
	}
	_, _, err = s.Store.KeyWithAccount(t.Context(), liveKey.ID)
	must(t, err)
	left, err := s.Store.SessionsByIDs(t.Context(), []uid.Session{live.ID, old.ID, revoked.ID})
	must(t, err)
	if len(left) != 2 || left[old.ID] != nil {
		t.Errorf("%d sessions are left, want the live one and the one revoked lately", len(left))
	}
	if wait := takeCounters(t, s, at.Add(2*time.Minute), throttle.Counter{Name: "long", Limit: 1, Window: time.Hour}); wait == 0 {
		t.Error("a counter was removed within its window")
	}
}

func takeCounters(t testing.TB, s Subject, now time.Time, counters ...throttle.Counter) time.Duration {
	t.Helper()
	full, wait, err := s.Store.Take(t.Context(), counters, now)
	must(t, err)
	if known := slices.ContainsFunc(counters, func(c throttle.Counter) bool { return c.Name == full }); known != (wait > 0) {
		t.Errorf("Take gave the full counter %q, and a wait of %s", full, wait)
	}
	return wait
}

func takesExactly(t *testing.T, s Subject) {
	const tries, limit = 20, 5
	var passed atomic.Int32
	concurrently(t, tries, func(ctx context.Context, i int) error {
		counters := []throttle.Counter{{Name: "a", Limit: limit, Window: time.Minute}, {Name: "b", Limit: 100, Window: time.Minute}}
		if i%2 == 0 {
			slices.Reverse(counters) // whatever their order, no two calls block each other
		}
		_, wait, err := s.Store.Take(ctx, counters, at)
		if err == nil && wait == 0 {
			passed.Add(1)
		}
		return err
	})
	if passed.Load() != limit {
		t.Errorf("of %d tries at once %d passed, want %d", tries, passed.Load(), limit)
	}
	for range 100 - limit {
		if wait := takeCounters(t, s, at, throttle.Counter{Name: "b", Limit: 100, Window: time.Minute}); wait != 0 {
			t.Fatal("a refused try was counted")
		}
	}
}

func takesAllOrNone(t *testing.T, s Subject) {
	narrow, wide := throttle.Counter{Name: "n", Limit: 1, Window: time.Minute}, throttle.Counter{Name: "w", Limit: 2, Window: time.Hour}
	if wait := takeCounters(t, s, at, narrow, wide); wait != 0 {
		t.Fatalf("the first try must wait %s", wait)
	}
	if wait := takeCounters(t, s, at.Add(20*time.Second), narrow, wide); wait != 40*time.Second {
		t.Errorf("wait = %s, want the 40s left of the narrow window", wait)
	}
	if wait := takeCounters(t, s, at.Add(time.Minute), narrow, wide); wait != 0 {
		t.Errorf("wait = %s after the window ended, want none", wait)
	}
	if wait := takeCounters(t, s, at.Add(2*time.Minute), narrow, wide); wait != 58*time.Minute {
		t.Errorf("wait = %s, want the 58m left of the wide window", wait)
	}
	if wait := takeCounters(t, s, at.Add(2*time.Minute), narrow); wait != 0 {
		t.Errorf("wait = %s: the narrow counter was taken though the wide one refused", wait)
	}
}

func voidsWindowsOfTheFuture(t *testing.T, s Subject) {
	c := throttle.Counter{Name: "c", Limit: 1, Window: time.Minute}
	takeCounters(t, s, at.Add(30*time.Second), c)
	if wait := takeCounters(t, s, at, c); wait != 90*time.Second {
		t.Errorf("wait = %s, want the rest of a window that the clock of a standby began", wait)
	}
	takeCounters(t, s, at.Add(40*24*time.Hour), c)
	if wait := takeCounters(t, s, at.Add(2*time.Minute), c); wait != 0 {
		t.Errorf("wait = %s for a window that begins in 40 days, want none", wait)
	}
}

func givesBack(t *testing.T, s Subject) {
	a, b := throttle.Counter{Name: "a", Limit: 3, Window: time.Hour}, throttle.Counter{Name: "b", Limit: 3, Window: time.Hour}
	for range 3 {
		takeCounters(t, s, at, a, b)
	}
	must(t, s.Store.GiveBack(t.Context(), []string{"a"}, []string{"b", "unknown"}))
	passes := func(c throttle.Counter) (n int) {
		for takeCounters(t, s, at, c) == 0 {
			n++
		}
		return n
	}
	if got := passes(a); got != 3 {
		t.Errorf("a counter that was reset lets %d pass, want 3", got)
	}
	if got := passes(b); got != 1 {
		t.Errorf("a counter that got one back lets %d pass, want 1", got)
	}
	for range 5 {
		must(t, s.Store.GiveBack(t.Context(), nil, []string{"b"}))
	}
	if got := passes(b); got != 3 {
		t.Errorf("a counter that got everything back lets %d pass, want 3", got)
	}
}
