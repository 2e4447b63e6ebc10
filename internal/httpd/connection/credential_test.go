package connection

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
)

// checkUntil runs the checks of the credential when they are due, for the time, and returns how
// many there were and why the connection must close.
func checkUntil(t *testing.T, c *Credential, calls *int, limit time.Duration) (n int, reason *CloseReason) {
	t.Helper()
	before, end := *calls, time.Now().Add(limit)
	for {
		at, ok := c.NextCheck(30 * time.Second)
		if !ok || at.After(end) {
			time.Sleep(time.Until(end))
			return *calls - before, nil
		}
		time.Sleep(time.Until(at))
		if reason := c.Check(t.Context(), 30*time.Second); reason != nil {
			return *calls - before, reason
		}
	}
}

func TestCredential_is_checked_seldom_unless_it_cannot_be_checked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls int
		var failure error
		p := &auth.Principal{UserID: "usr_1"}
		var c Credential
		c.Set(Caller{Principal: p, Check: func(context.Context) (*auth.Principal, error) {
			calls++
			return p, failure
		}})
		if n, reason := checkUntil(t, &c, &calls, 1500*time.Millisecond); n != 1 || reason != nil {
			t.Errorf("%d checks just after the start, %v; want one, for what came before", n, reason)
		}
		if n, reason := checkUntil(t, &c, &calls, 5*time.Minute); n != 10 || reason != nil {
			t.Errorf("%d checks in five minutes, %v; want 10", n, reason)
		}
		failure = errors.New("the database is away")
		if n, reason := checkUntil(t, &c, &calls, 35*time.Second); n < 3 || reason != nil {
			t.Errorf("%d checks and %v in the first seconds of a failure, want one a second", n, reason)
		}
		failure = nil
		if _, reason := checkUntil(t, &c, &calls, time.Minute); reason != nil {
			t.Errorf("the connection closes (%v) after a short failure", reason)
		}
		failure = errors.New("the database is away")
		start := time.Now()
		if _, reason := checkUntil(t, &c, &calls, time.Hour); reason != reasonUncheckable || time.Since(start) > 30*time.Second+uncheckableTime+time.Second {
			t.Errorf("the connection closes for %v after %s of failures, want %v", reason, time.Since(start), reasonUncheckable)
		}
	})
}

// countingConnection counts how often it is checked early.
type countingConnection struct {
	fakeConnection
	rechecks int
}

func (c *countingConnection) Recheck(affected func(*auth.Principal) bool) {
	if affected(principalOf("usr_1", "key_1")) {
		c.rechecks++
	}
}

func TestManager_Monitor_checks_all_while_revocations_cannot_be_known(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var unknown atomic.Bool
		log := slog.New(slog.DiscardHandler)
		x, err := executor.New(executortest.New(nil, nil, nil), executor.Config{}, log)
		if err != nil {
			t.Fatal(err)
		}
		m, err := New(Config{}, x, Deps{
			Authenticate: func(context.Context, string) (Caller, error) { return Caller{}, nil },
			AcquireSlot:  func(context.Context) (func(), error) { return func() {}, nil },
			AwaitRevocations: func(context.Context) error {
				if unknown.Load() {
					return errors.New("the log cannot be read")
				}
				return nil
			},
		}, log)
		if err != nil {
			t.Fatal(err)
		}
		c := &countingConnection{}
		if err := m.Admit(t.Context(), c, principalOf("usr_1", "key_1")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go m.Monitor(ctx)
		time.Sleep(time.Minute)
		synctest.Wait()
		if c.rechecks != 0 {
			t.Errorf("%d checks while revocations are known, want none", c.rechecks)
		}
		unknown.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if c.rechecks < 4 {
			t.Errorf("%d checks in five seconds without revocations, want one a second", c.rechecks)
		}
		cancel()
		synctest.Wait()
	})
}

// An operation that begins after a change of rights must not run with those from before, even if a check
// that began before the change ends after it.
func TestCredential_applies_notices_before_an_operation(t *testing.T) {
	t.Parallel()
	staff, customer := &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Staff}}, &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Customer}}
	calls, now, failure := 0, staff, error(nil)
	var c Credential
	c.Set(Caller{Principal: staff, Check: func(context.Context) (*auth.Principal, error) {
		calls++
		return now, failure
	}})
	apply := func(when string, wantCalls int, want *auth.Principal) {
		t.Helper()
		calls = 0
		if reason := c.ApplyNotices(t.Context()); reason != nil || calls != wantCalls || c.Principal() != want {
			t.Errorf("%s: %d checks, %v, closes for %v; want %d, %v", when, calls, c.Principal(), reason, wantCalls, want)
		}
	}
	apply("the first operation, as a revocation may have come before the connection was known", 1, staff)
	apply("the next one", 0, staff)
	_, number, _ := c.beginCheck(time.Now().Add(time.Hour), time.Second)
	now = customer
	if !c.ExpediteCheck(func(*auth.Principal) bool { return true }) {
		t.Fatal("the notice concerns nothing")
	}
	apply("after a notice", 1, customer)
	if reason := c.endCheck(time.Now(), number, staff, nil); reason != nil || c.Principal() != customer {
		t.Errorf("an older check made the principal %v, closes for %v", c.Principal(), reason)
	}
	apply("after the older check", 0, customer)
	failure = fault.New(fault.Unauthenticated, "No.")
	c.ExpediteCheck(func(*auth.Principal) bool { return true })
	if reason := c.ApplyNotices(t.Context()); reason != reasonRevoked {
		t.Errorf("after its end the credential closes for %v", reason)
	}
	var anonymous Credential
	anonymous.Set(Caller{})
	if reason := anonymous.ApplyNotices(t.Context()); reason != nil {
		t.Errorf("an anonymous caller closes for %v", reason)
	}
}
