package lease_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
)

const ttl = 10 * time.Second

// fakeStore is a Store with one lease, whose statements take a while or fail. The real stores
// are tested in package store.
type fakeStore struct {
	lease.Store
	latency  time.Duration
	err      error
	owner    string // of the lease, if it is another one's
	position event.Position
	released int
}

// run waits for the latency of a statement.
func (s *fakeStore) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.latency):
		return s.err
	}
}

func (s *fakeStore) Acquire(ctx context.Context, name, owner string, start event.Position, _ time.Duration) (lease.Lease, bool, error) {
	if err := s.run(ctx); err != nil || s.owner != "" {
		return lease.Lease{}, false, err
	}
	return lease.Lease{Name: name, Owner: owner, Epoch: 1, Position: start}, true, nil
}

func (s *fakeStore) Renew(ctx context.Context, l lease.Lease, done event.Position, _ time.Duration) (lease.Lease, error) {
	if err := s.run(ctx); err != nil {
		return lease.Lease{}, err
	}
	s.position = done
	return l, nil
}

func (s *fakeStore) Release(ctx context.Context, _ lease.Lease) error {
	if err := s.run(ctx); err != nil {
		return err
	}
	s.released++
	return nil
}

func acquire(t *testing.T, s *fakeStore) *lease.Held {
	t.Helper()
	held, ok, err := lease.Acquire(t.Context(), s, "mail", "a", 7, ttl)
	if err != nil || !ok {
		t.Fatalf("Acquire = %v, %v, want the lease", ok, err)
	}
	return held
}

func TestNewOwner_differs_for_each_process(t *testing.T) {
	t.Parallel()
	a, b := lease.NewOwner("node"), lease.NewOwner("node")
	if a == b || !strings.HasPrefix(a, "node/") {
		t.Errorf("NewOwner = %q, then %q, want two names of the node", a, b)
	}
}

func TestAcquire_returns_no_lease_of_another_owner(t *testing.T) {
	t.Parallel()
	held, ok, err := lease.Acquire(t.Context(), &fakeStore{owner: "b"}, "mail", "a", 7, ttl)
	if held != nil || ok || err != nil {
		t.Errorf("Acquire = %v, %v, %v, want none", held, ok, err)
	}
}

func TestHeld_expires_a_ttl_after_the_last_statement_began(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{latency: 4 * time.Second}
		held := acquire(t, s) // 4 s of the ttl are over
		time.Sleep(6*time.Second - time.Nanosecond)
		if held.Expired() {
			t.Error("expired before its ttl")
		}
		time.Sleep(time.Nanosecond)
		if !held.Expired() {
			t.Error("not expired after its ttl, counted from the begin of the statement")
		}
		if err := held.Renew(t.Context(), 8); err != nil || held.Expired() {
			t.Errorf("Renew = %v, expired %v, want a renewed lease", err, held.Expired())
		}
		s.err = lease.ErrLost
		if err := held.Renew(t.Context(), 9); !errors.Is(err, lease.ErrLost) || s.position != 8 {
			t.Errorf("Renew = %v at %d, want ErrLost at 8", err, s.position)
		}
		time.Sleep(ttl)
		if !held.Expired() {
			t.Error("a failed renewal renewed the lease")
		}
	})
}

func TestHeld_gives_up_a_statement_that_hangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		held := acquire(t, s)
		s.latency = time.Hour
		for name, tt := range map[string]struct {
			call func() error
			want time.Duration
		}{
			"Acquire": {func() error { _, _, err := lease.Acquire(t.Context(), s, "x", "a", 0, ttl); return err }, ttl / 2},
			"Renew":   {func() error { return held.Renew(t.Context(), 8) }, ttl / 2},
			"Release": {func() error { return held.Release(t.Context()) }, time.Second},
		} {
			begun := time.Now()
			if err := tt.call(); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != tt.want {
				t.Errorf("%s = %v after %v, want a timeout after %v", name, err, time.Since(begun), tt.want)
			}
		}
	})
}

func TestHeld_ReleaseAt_saves_the_offset_of_a_process_that_stops(t *testing.T) {
	t.Parallel()
	s := &fakeStore{}
	held := acquire(t, s)
	if held.Lease().Position != 7 {
		t.Errorf("the lease begins at %d, want 7", held.Lease().Position)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := held.ReleaseAt(ctx, 12); err != nil || s.position != 12 || s.released != 1 {
		t.Errorf("ReleaseAt = %v, offset %d, released %d times, want 12 and once", err, s.position, s.released)
	}
	s.err = lease.ErrLost
	if err := held.ReleaseAt(ctx, 13); !errors.Is(err, lease.ErrLost) || s.released != 1 {
		t.Errorf("ReleaseAt of a lost lease = %v, released %d times, want ErrLost and no release", err, s.released)
	}
}
