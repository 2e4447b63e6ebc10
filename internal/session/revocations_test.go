package session_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
)

// fakeLog is a log that the test speaks through.
type fakeLog struct {
	deliver func([]*event.Event, bool)
	pending func([]*event.Event)
	lag     atomic.Int64
	looks   atomic.Int64
	await   func(context.Context) error // what a read of the log takes; nil if it does not suffice
}

func (w *fakeLog) OnDeliver(fn func([]*event.Event, bool)) { w.deliver = fn }
func (w *fakeLog) OnPending(fn func([]*event.Event))       { w.pending = fn }
func (w *fakeLog) SeenLag() time.Duration                  { return time.Duration(w.lag.Load()) }
func (w *fakeLog) Look()                                   { w.looks.Add(1) }

func (w *fakeLog) AwaitSeen(ctx context.Context, _ time.Duration) (bool, error) {
	if w.await == nil {
		return false, nil
	}
	return true, w.await(ctx)
}

// publish delivers an event of the type about the subject.
func (w *fakeLog) publish(t event.Type, subject string) {
	w.deliver([]*event.Event{{Type: t, SubjectID: subject}}, false)
}

// newFollowingFixture returns a fixture whose service follows a log.
func newFollowingFixture(t testing.TB) (*fixture, *fakeLog) {
	t.Helper()
	w := &fakeLog{}
	f := newFixture(t, session.Config{EventLog: w})
	w.deliver(nil, true)
	return f, w
}

func TestService_Authenticate_needs_no_database_while_it_follows_the_log(t *testing.T) {
	t.Parallel()
	f, w := newFollowingFixture(t)
	tokens, ctx := f.signIn(t, "ada")
	bearers := []string{tokens.AccessToken, f.key(ctx, t)}
	for _, b := range bearers {
		f.as(t, b)
	}
	w.publish(session.EventSessionRevoked, string(uid.NewSession(f.clock.now())))
	w.publish(event.UserUpdated, string(uid.NewUser(f.clock.now())))
	w.publish(order.EventOrderPlaced, string(f.ada))
	before := f.store.Calls()
	f.store.Fail(errors.New("connection refused"))
	for range 100 {
		f.clock.add(2 * time.Second) // 200 s in all; a token lives for 300
		for _, b := range bearers {
			f.as(t, b)
		}
	}
	if n := f.store.Calls() - before; n != 0 {
		t.Errorf("200 warm requests made %d calls of the database, want none", n)
	}
}

func TestService_Authenticate_applies_revocations_of_the_log_at_once(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		publish func(w *fakeLog, f *fixture, p *auth.Principal)
	}{
		{"that the user changed", func(w *fakeLog, f *fixture, _ *auth.Principal) { w.publish(event.UserUpdated, string(f.ada)) }},
		{"that the user was deleted", func(w *fakeLog, f *fixture, _ *auth.Principal) { w.publish(event.UserDeleted, string(f.ada)) }},
		{"that the session or key ended", func(w *fakeLog, _ *fixture, p *auth.Principal) {
			if p.APIKeyID() != "" {
				w.publish(session.EventAPIKeyRevoked, string(p.APIKeyID()))
				return
			}
			w.publish(session.EventSessionRevoked, string(p.SessionID()))
		}},
		{"that this node has changed the user", func(_ *fakeLog, f *fixture, _ *auth.Principal) { f.RecheckUser(f.ada) }},
		{"that this node has ended the session or key", func(_ *fakeLog, f *fixture, p *auth.Principal) { f.RecheckCredential(p.Credential.ID) }},
		{"that some of it was missed", func(w *fakeLog, _ *fixture, _ *auth.Principal) { w.deliver(nil, true) }},
	}
	for _, tt := range tests {
		for _, kind := range []string{"token", "key"} {
			t.Run(tt.name+" of a "+kind, func(t *testing.T) {
				t.Parallel()
				f, w := newFollowingFixture(t)
				tokens, ctx := f.signIn(t, "ada")
				bearer := tokens.AccessToken
				if kind == "key" {
					bearer = f.key(ctx, t)
				}
				p := auth.From(f.as(t, bearer))
				f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
				f.as(t, bearer) // no revocation was published yet
				notified := 0
				f.OnRevoked(func(r auth.Revocation) {
					if !r.Concerns(p) {
						return
					}
					_, err := f.Authenticate(t.Context(), bearer)
					wantCode(t, "Authenticate when streams are notified", err, fault.Unauthenticated)
					notified++
				})
				tt.publish(w, f, p)
				if notified != 1 {
					t.Errorf("streams were notified %d times, want once", notified)
				}
			})
		}
	}
}

func TestService_LastKnown_forgets_who_was_changed_or_revoked(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(f *fixture, p *auth.Principal){
		"the user":       func(f *fixture, _ *auth.Principal) { f.RecheckUser(f.ada) },
		"the credential": func(f *fixture, p *auth.Principal) { f.RecheckCredential(p.Credential.ID) },
	} {
		f, _ := newFollowingFixture(t)
		tokens, ctx := f.signIn(t, "ada")
		for _, bearer := range []string{tokens.AccessToken, f.key(ctx, t)} {
			p := auth.From(f.as(t, bearer))
			if f.LastKnown(bearer) != p {
				t.Errorf("the last known principal is %v, want %v", f.LastKnown(bearer), p)
			}
			revoke(f, p)
			if got := f.LastKnown(bearer); got != nil {
				t.Errorf("after %s has changed the last known principal is %v", name, got)
			}
			if p := auth.From(f.as(t, bearer)); f.LastKnown(bearer) != p {
				t.Errorf("once it was authenticated again it is %v, want %v", f.LastKnown(bearer), p)
			}
		}
	}
}

func TestService_Authenticate_reads_the_database_if_the_log_goes_on_to_lag(t *testing.T) {
	t.Parallel()
	f, w := newFollowingFixture(t)
	tokens, _ := f.signIn(t, "ada")
	w.lag.Store(int64(700 * time.Millisecond))
	before := f.store.Calls()
	f.as(t, tokens.AccessToken)
	if n := f.store.Calls() - before; n != 0 || w.looks.Load() != 1 {
		t.Errorf("at a lag of 0.7 s: %d reads and %d looks, want none and one", n, w.looks.Load())
	}
	w.lag.Store(int64(time.Second + 1))
	for range 5 {
		f.as(t, tokens.AccessToken)
	}
	if n := f.store.Calls() - before; n != 5 {
		t.Errorf("5 requests at a lag of more than a second made %d reads, want 5", n)
	}
	f.store.Fail(errors.New("connection refused"))
	_, err := f.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate without log and database", err, fault.Unavailable)
	f.store.Fail(nil)
	w.lag.Store(0)
	f.as(t, tokens.AccessToken)
}

func TestService_Authenticate_waits_for_the_log_that_all_late_requests_share(t *testing.T) {
	t.Parallel()
	f, w := newFollowingFixture(t)
	tokens, _ := f.signIn(t, "ada")
	w.lag.Store(int64(time.Minute))
	w.await = func(context.Context) error { return nil }
	before := f.store.Calls()
	for range 5 {
		f.as(t, tokens.AccessToken)
	}
	if n := f.store.Calls() - before; n != 0 {
		t.Errorf("5 requests that waited for a read of the log made %d reads of their own, want none", n)
	}
	w.await = func(context.Context) error { return errors.New("connection refused") }
	_, err := f.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate while the log cannot be read", err, fault.Unavailable)
	if n := f.store.Calls() - before; n != 0 {
		t.Errorf("it asked the database %d times, want never", n)
	}
}

func TestService_Authenticate_applies_revocations_that_wait_for_a_position(t *testing.T) {
	t.Parallel()
	f, w := newFollowingFixture(t)
	tokens, _ := f.signIn(t, "ada")
	f.as(t, tokens.AccessToken)
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
	w.pending([]*event.Event{{Type: event.UserUpdated, SubjectID: string(f.ada)}})
	_, err := f.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate", err, fault.Unauthenticated)
}

// readThenCall is a store in which something happens right after a session was read.
type readThenCall struct {
	session.Store
	after func()
}

func (o readThenCall) SessionWithAccount(ctx context.Context, id uid.Session) (*session.Session, *session.Account, error) {
	s, a, err := o.Store.SessionWithAccount(ctx, id)
	o.after()
	return s, a, err
}

func TestService_Authenticate_does_not_keep_a_read_that_a_revocation_overtook(t *testing.T) {
	t.Parallel()
	f, w := newFixture(t, session.Config{}), &fakeLog{}
	tokens, _ := f.signIn(t, "ada")
	end := sync.OnceFunc(func() {
		f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
		w.publish(event.UserUpdated, string(f.ada))
	})
	s, err := session.NewService(readThenCall{f.store, end}, f.sealer, f.clock.now, slog.New(slog.DiscardHandler), session.Cheap(session.Config{EventLog: w}))
	must(t, err)
	_, err = s.Authenticate(t.Context(), tokens.AccessToken)
	must(t, err) // it was asked before
	_, err = s.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate after that", err, fault.Unauthenticated)
}

func TestService_Authenticate_sees_an_expiry_that_moved(t *testing.T) {
	t.Parallel()
	f, _ := newFollowingFixture(t)
	tokens, _ := f.signIn(t, "ada")
	f.clock.add(30*24*time.Hour - time.Minute)
	tokens, err := f.Refresh(t.Context(), tokens.RefreshToken)
	must(t, err)
	f.as(t, tokens.AccessToken)
	f.clock.add(2 * time.Minute)
	f.as(t, tokens.AccessToken)
}

func TestRevocationLog_is_bounded(t *testing.T) {
	t.Parallel()
	w := &fakeLog{}
	f := newFixture(t, session.Config{CacheSize: 16, EventLog: w})
	tokens, _ := f.signIn(t, "ada")
	f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
	w.publish(event.UserUpdated, string(f.ada))
	for range 1000 {
		w.publish(session.EventSessionRevoked, string(uid.NewSession(f.clock.now())))
		if n := f.RevocationCount(); n > 16 {
			t.Fatalf("the service remembers %d revocations, want 16 at most", n)
		}
	}
	_, err := f.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate after its word was dropped", err, fault.Unauthenticated)
}
