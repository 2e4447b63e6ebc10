package writelimit_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/writelimit"
)

func newLimiter(t testing.TB, cfg writelimit.Config) *writelimit.Limiter {
	t.Helper()
	l, err := writelimit.New(cfg, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// caller returns a context of a user at an address; anonymous if the user is empty.
func caller(ctx context.Context, user uid.User, address string, roles ...auth.Role) context.Context {
	ctx = auth.WithClient(ctx, auth.Client{Address: address})
	if user == "" {
		return ctx
	}
	return auth.With(ctx, &auth.Principal{UserID: user, Roles: roles, Credential: auth.SessionCredential("ses_1")})
}

// allowed returns how many writes pass before one is refused, at most 100,000.
func allowed(t *testing.T, l *writelimit.Limiter, ctx context.Context) (n int) { //nolint:revive // the limiter is the subject
	t.Helper()
	for n < 100_000 {
		err := l.Take(ctx, 1)
		if err == nil {
			n++
			continue
		}
		f := fault.From(err)
		if f.Code != fault.RateLimited || f.RetryAfter <= 0 || f.RetryAfter > time.Second {
			t.Fatalf("Take = %v with RetryAfter %v, want RATE_LIMITED for at most a second", err, f.RetryAfter)
		}
		return n
	}
	return n
}

func TestLimiter_allows_each_caller_its_rate_and_burst(t *testing.T) {
	t.Parallel()
	cfg := writelimit.Config{User: 50, Address: 250}
	for name, tt := range map[string]struct {
		first, second context.Context
		burst         int // writes of the first caller
		left          int // then of the second
	}{
		"a customer has four seconds of its rate": {caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer), caller(t.Context(), "usr_1", "198.51.100.1", auth.Customer), 200, 0},
		"another customer has its own":            {caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer), caller(t.Context(), "usr_2", "192.0.2.1", auth.Customer), 200, 200},
		"anonymous callers share an address":      {caller(t.Context(), "", "192.0.2.1"), caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer), 1000, 0},
		"an IPv6 /64 is one address":              {caller(t.Context(), "", "2001:db8::1"), caller(t.Context(), "", "2001:db8::2"), 1000, 0},
		"another /64 is another address":          {caller(t.Context(), "", "2001:db8::1"), caller(t.Context(), "", "2001:db8:0:1::1"), 1000, 1000},
		"staff have more":                         {caller(t.Context(), "usr_1", "192.0.2.1", auth.Staff), caller(t.Context(), "", "192.0.2.1"), 2000, 1000},
		"services have more":                      {caller(t.Context(), "usr_1", "192.0.2.1", auth.Service), caller(t.Context(), "usr_1", "192.0.2.2", auth.Service), 2000, 0},
		"the server has no limit":                 {auth.With(t.Context(), &auth.Principal{}), auth.With(t.Context(), &auth.Principal{}), 100_000, 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, cfg)
				if n := allowed(t, l, tt.first); n != tt.burst {
					t.Errorf("%d writes passed at once, want %d", n, tt.burst)
				}
				if n := allowed(t, l, tt.second); n != tt.left {
					t.Errorf("then %d writes of the second caller passed, want %d", n, tt.left)
				}
			})
		})
	}
}

func TestLimiter_refills_at_its_rate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLimiter(t, writelimit.Config{User: 50}), caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 200}, {time.Second, 50}, {10 * time.Millisecond, 0}, {10 * time.Millisecond, 1}, {time.Hour, 200}} {
			time.Sleep(step.after)
			if n := allowed(t, l, ctx); n != step.want {
				t.Errorf("after %v more %d writes passed, want %d", step.after, n, step.want)
			}
		}
	})
}

func TestLimiter_takes_many_at_once_from_a_full_bucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLimiter(t, writelimit.Config{User: 1}), caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer)
		if err := l.Take(ctx, 30); err != nil {
			t.Errorf("an operation of 30 writes is refused although the caller wrote nothing before: %v", err)
		}
		if f := fault.From(l.Take(ctx, 1)); f.RetryAfter != 27*time.Second {
			t.Errorf("the next write may come after %v, want 27s", f.RetryAfter)
		}
	})
}

func TestLimiter_refuses_without_taking_from_any_bucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, writelimit.Config{User: 1, Address: 10})
		one, other := caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer), caller(t.Context(), "", "192.0.2.1")
		for range 100 {
			_ = l.Take(one, 1) // passes four times
		}
		if n := allowed(t, l, other); n != 36 {
			t.Errorf("%d writes are left to the address, want 36: refused ones count nothing", n)
		}
	})
}

func TestLimiter_is_exact_under_concurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLimiter(t, writelimit.Config{User: 50}), caller(t.Context(), "usr_1", "192.0.2.1", auth.Customer)
		var passed atomic.Int64
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if l.Take(ctx, 1) == nil {
					passed.Add(1)
				}
			})
		}
		wg.Wait()
		if passed.Load() != 200 {
			t.Errorf("%d of 1000 concurrent writes passed, want 200", passed.Load())
		}
	})
}

func TestLimiter_keeps_a_bounded_number_of_buckets(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, writelimit.Config{})
	for i := range 120_000 {
		if err := l.Take(caller(t.Context(), "", fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)), 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.Len(); n > 50_000 {
		t.Errorf("%d buckets are kept", n)
	}
}

func TestLimiter_may_be_off(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*writelimit.Limiter{"disabled": newLimiter(t, writelimit.Config{User: 1, Disabled: true}), "nil": nil} {
		for range 100 {
			if err := l.Take(caller(t.Context(), "usr_1", "192.0.2.1"), 1); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if _, err := writelimit.New(writelimit.Config{User: -1}, time.Now); err == nil {
		t.Error("a negative rate is accepted")
	}
}
