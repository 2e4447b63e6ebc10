package eventlog_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
)

func TestHub_OnPending_gets_what_has_no_position_yet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := eventlogtest.NewMemory()
		h := eventlogtest.NewHub(t, m, eventlog.HubConfig{})
		var seen []*event.Event
		h.OnPending(func(events []*event.Event) { seen = events })
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		waiting := []*event.Event{{ID: "evt_1", Type: event.UserUpdated, SubjectID: "usr_1"}}
		m.Change(func() { m.Behind, m.Waiting = 10*time.Second, waiting })
		time.Sleep(time.Second)
		synctest.Wait()
		if len(seen) != 1 || seen[0].SubjectID != "usr_1" {
			t.Errorf("OnPending got %v, want the event that waits", seen)
		}
		if h.SeenLag() > time.Second || h.Lag() < 10*time.Second {
			t.Errorf("SeenLag = %s and Lag = %s, want at most 1s and at least 10s", h.SeenLag(), h.Lag())
		}
		m.Change(func() { m.Waiting = make([]*event.Event, 5000) })
		time.Sleep(10 * time.Second)
		if h.SeenLag() < 9*time.Second {
			t.Errorf("SeenLag = %s while more events wait than are read, want that of the last whole read", h.SeenLag())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestHub_AwaitSeen_shares_one_read(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{Poll: time.Minute}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		time.Sleep(30 * time.Second) // without a poll
		before := m.ReadCount()
		results := make(chan error, 1000)
		for range cap(results) {
			go func() {
				current, err := h.AwaitSeen(ctx, time.Second)
				if !current && err == nil {
					err = errors.New("a read did not suffice")
				}
				results <- err
			}()
		}
		for range cap(results) {
			if err := <-results; err != nil {
				t.Fatalf("AwaitSeen = %v", err)
			}
		}
		if n := m.ReadCount() - before; n > 2 {
			t.Errorf("%d callers made %d reads, want them to share one", cap(results), n)
		}
	})
}

func TestHub_AwaitSeen_fails_while_the_log_cannot_be_read(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		m.Change(func() { m.Err = gone })
		time.Sleep(10 * time.Second)
		start := time.Now()
		if _, err := h.AwaitSeen(ctx, time.Second); !errors.Is(err, gone) || time.Since(start) > 0 {
			t.Errorf("AwaitSeen = %v after %s, want the error of the read at once", err, time.Since(start))
		}
		m.Change(func() { m.Err = nil })
		time.Sleep(2 * time.Second)
		if current, err := h.AwaitSeen(ctx, time.Second); !current || err != nil {
			t.Errorf("AwaitSeen = %t, %v once the log can be read", current, err)
		}
	})
}

func TestHub_AwaitSeen_says_that_a_read_did_not_suffice(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		h.OnPending(func([]*event.Event) {})
		m.Change(func() { m.Behind, m.Waiting = time.Minute, make([]*event.Event, 5000) })
		time.Sleep(10 * time.Second)
		if current, err := h.AwaitSeen(ctx, time.Second); current || err != nil {
			t.Errorf("AwaitSeen = %t, %v; want false, nil", current, err)
		}
		own, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		m.Change(func() { m.Waiting = nil })
		if _, err := h.AwaitSeen(own, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("AwaitSeen = %v, want the end of its context", err)
		}
	})
}
