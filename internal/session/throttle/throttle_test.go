package throttle_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/session/throttle"
)

// countingStore counts the transactions of a store.
type countingStore struct {
	throttle.Store

	takes int
}

func (s *countingStore) Take(ctx context.Context, counters []throttle.Counter, at time.Time) (string, time.Duration, error) {
	s.takes++
	return s.Store.Take(ctx, counters, at)
}

func TestLimiter_refuses_a_flood_from_memory(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store := &countingStore{Store: sessiontest.NewMemory()}
	cfg := throttle.Config{SignInsPerAccount: 3, SignInsPerAddress: 20, AttemptsPerAccount: 100, AttemptsPerAddress: 100, SignInWindow: 15 * time.Minute, SignUpsPerAddress: 1, NamesPerUser: 1, NamesPerAddress: 1}
	newLimiter := func() *throttle.Limiter {
		return throttle.NewLimiter(store, [secrets.Size]byte{1}, cfg, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	}
	node, other := newLimiter(), newLimiter()
	ctx := auth.WithClient(t.Context(), auth.Client{Address: "192.0.2.1"})
	guesses := func(account string, n int) (passed int) {
		for range n {
			attempt, err := node.Begin(ctx, account)
			if err == nil {
				passed++
				node.Finish(ctx, attempt, fault.New(fault.CredentialsWrong, "wrong"))
			} else if e := fault.From(err); !fault.Is(err, fault.RateLimited) || e.RetryAfter <= 0 || e.RetryAfter > cfg.SignInWindow {
				t.Fatalf("Begin = %v, wait %v", err, e.RetryAfter)
			}
		}
		return passed
	}
	if passed := guesses("ada", 1000); passed != 3 || store.takes != 4 {
		t.Errorf("of 1000 guesses %d passed, with %d transactions; want 3 and 4", passed, store.takes)
	}
	store.takes, now = 0, now.Add(6*time.Second)
	if passed := guesses("ada", 1000); passed != 0 || store.takes != 1 {
		t.Errorf("later %d passed, with %d transactions; want none and one", passed, store.takes)
	}
	store.takes = 0
	passed := 0
	for i := range 1000 { // whatever the account is, the address is full
		passed += guesses(fmt.Sprint("user", i), 1)
	}
	if passed != 17 || store.takes != 18 {
		t.Errorf("of guesses at 1000 accounts %d passed, with %d transactions; want 17 and 18", passed, store.takes)
	}
	now = now.Add(cfg.SignInWindow)
	if passed := guesses("ada", 4); passed != 3 {
		t.Errorf("after the window %d passed, want 3", passed)
	}

	// what this node gives back counts at once, what another gives back within five seconds
	last, err := node.Begin(ctx, "bob")
	guesses("bob", 3)
	node.Finish(ctx, last, nil)
	if passed := guesses("bob", 4); err != nil || passed != 3 {
		t.Errorf("after a right guess %d passed, %v; want 3", passed, err)
	}
	now = now.Add(cfg.SignInWindow)
	last, err = other.Begin(ctx, "eve")
	guesses("eve", 3)
	other.Finish(ctx, last, nil)
	now = now.Add(5 * time.Second)
	if passed := guesses("eve", 4); err != nil || passed != 3 {
		t.Errorf("after a right guess on another node %d passed, %v; want 3", passed, err)
	}
}
