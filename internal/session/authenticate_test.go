package session_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
)

func TestService_Authenticate_sees_changes_within_a_second(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*testing.T, *fixture, *session.Service, context.Context)
		good   bool
	}{
		{"nothing", func(*testing.T, *fixture, *session.Service, context.Context) {}, true},
		{"the account may not act any more", func(_ *testing.T, f *fixture, _ *session.Service, _ context.Context) {
			f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
		}, false},
		{"the session was ended on another node", func(t *testing.T, _ *fixture, other *session.Service, ctx context.Context) {
			must(t, other.SignOut(ctx, claim.None))
		}, false},
		{"the sessions were ended on another node", func(t *testing.T, _ *fixture, other *session.Service, ctx context.Context) {
			_, err := other.RevokeAll(ctx, claim.None, false, false)
			must(t, err)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, session.Config{})
			tokens, ctx := f.signIn(t, "ada")
			tt.change(t, f, f.node(t, session.Config{}), ctx)
			f.clock.add(999 * time.Millisecond)
			f.as(t, tokens.AccessToken) // still what it was
			f.clock.add(time.Millisecond)
			p, err := f.Authenticate(t.Context(), tokens.AccessToken)
			if (err == nil) != tt.good || tt.good && p.SessionID() != tokens.Session.ID {
				t.Errorf("Authenticate a second later = %+v, %v, want good %v", p, err, tt.good)
			}
		})
	}
}

func TestService_Authenticate_sees_roles_within_a_second(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, ctx := f.signIn(t, "ada")
	key := f.key(ctx, t)
	for _, bearer := range []string{tokens.AccessToken, key} {
		f.store.SetAccount(f.ada, func(a *session.Account) { a.Roles = []auth.Role{auth.Customer} })
		f.clock.add(time.Second)
		if p := auth.From(f.as(t, bearer)); !slices.Equal(p.Roles, []auth.Role{auth.Customer}) {
			t.Errorf("roles = %v, want CUSTOMER", p.Roles)
		}
		f.store.SetAccount(f.ada, func(a *session.Account) { a.Roles = []auth.Role{auth.Admin} })
		f.clock.add(time.Second)
		if p := auth.From(f.as(t, bearer)); !slices.Equal(p.Roles, []auth.Role{auth.Admin}) {
			t.Errorf("roles a second later = %v, want ADMIN", p.Roles)
		}
	}
}

func TestService_Authenticate_refuses_at_once_on_the_node_that_revoked_the_session(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, ctx := f.signIn(t, "ada")
	must(t, f.SignOut(ctx, claim.None))
	_, err := f.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate after SignOut", err, fault.Unauthenticated)
}

func TestService_Authenticate_is_unavailable_without_the_database(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, ctx := f.signIn(t, "ada")
	bearers := []string{tokens.AccessToken, f.key(ctx, t)}
	f.clock.add(time.Second)
	f.store.Fail(errors.New("connection refused"))
	for _, bearer := range bearers {
		_, err := f.Authenticate(t.Context(), bearer)
		if e := fault.From(err); e.Kind() != fault.KindUnavailable || e.Code != fault.Unavailable || e.Message == "" {
			t.Errorf("Authenticate = %v, want UNAVAILABLE", err)
		}
	}
	_, err := f.node(t, session.Config{}).Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate on a node that knows no keys", err, fault.Unavailable)
	f.store.Fail(nil)
	for _, bearer := range bearers {
		f.as(t, bearer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.ClearCaches()
	f.store.Fail(context.Canceled)
	cancel()
	if _, err := f.Authenticate(ctx, tokens.AccessToken); !errors.Is(err, context.Canceled) {
		t.Errorf("Authenticate of a caller that left = %v, want context.Canceled", err)
	}
}

func TestService_Authenticate_reads_the_database_once_a_second(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, _ := f.signIn(t, "ada")
	f.clock.add(time.Second)
	before := f.store.Calls()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, err := f.Authenticate(t.Context(), tokens.AccessToken); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := f.store.Calls() - before; n != 1 {
		t.Errorf("400 requests within a second took %d reads, want 1", n)
	}
}

func TestReadCache_shares_reads_but_not_old_ones(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		get, _ := session.NewReadCache(time.Second, 10, time.Now)
		var reads atomic.Int64
		release := make(chan struct{})
		slow := func(ctx context.Context) (int, error) {
			n := reads.Add(1)
			<-release
			return int(n), ctx.Err()
		}
		results := make(chan int, 4)
		ask := func() {
			v, err := get(t.Context(), 1, slow)
			must(t, err)
			results <- v
		}
		go ask()
		go ask()
		synctest.Wait() // one reads, the other waits for it
		time.Sleep(time.Second)
		go ask() // the read under way began too long ago
		synctest.Wait()
		close(release)
		got := []int{<-results, <-results, <-results}
		slices.Sort(got)
		if !slices.Equal(got, []int{1, 1, 2}) {
			t.Errorf("three callers got reads %v, want 1, 1 and 2", got)
		}
	})
}

func TestReadCache_reads_on_for_callers_that_joined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		get, length := session.NewReadCache(time.Second, 10, time.Now)
		release := make(chan struct{})
		first, leave := context.WithCancel(t.Context())
		read := func(ctx context.Context) (int, error) {
			<-release
			return 7, ctx.Err()
		}
		results := make(chan error, 2)
		go func() {
			_, err := get(first, 1, read)
			results <- err
		}()
		synctest.Wait()
		go func() {
			_, err := get(t.Context(), 1, read)
			results <- err
		}()
		waiting, give := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := get(waiting, 1, read)
			left <- err
		}()
		synctest.Wait()
		leave()
		give()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that waited and left got %v, want context.Canceled", err)
		}
		close(release)
		must(t, errors.Join(<-results, <-results))
		if length() != 1 {
			t.Errorf("the memo holds %d values, want 1", length())
		}
	})
}

func TestReadCache_keeps_no_errors_and_is_bounded(t *testing.T) {
	t.Parallel()
	c := newTestClock()
	get, length := session.NewReadCache(time.Second, 16, c.now)
	fails := func(context.Context) (int, error) { return 0, errors.New("no") }
	if _, err := get(t.Context(), 1, fails); err == nil || length() != 0 {
		t.Errorf("a failed read gave %v and left %d values, want an error and none", err, length())
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = get(t.Context(), 1, func(context.Context) (int, error) { panic("broken") })
	}()
	if length() != 0 {
		t.Error("a read that panicked is remembered")
	}
	for i := range 1000 {
		v, err := get(t.Context(), i, func(context.Context) (int, error) { return i, nil })
		if err != nil || v != i || length() > 16 {
			t.Fatalf("get(%d) = %d, %v with %d values, want at most 16", i, v, err, length())
		}
	}
}
