package eventlog_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/fault"
)

// bubble runs a test of a hub on a log without a database, in fake time. It
// fails if a goroutine is left.
func bubble(t *testing.T, cfg eventlog.HubConfig, test func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := eventlogtest.NewMemory()
		m.Append(10)
		h := eventlogtest.NewHub(t, m, cfg)
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		synctest.Wait()
		test(ctx, t, m, h)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestHub_Subscribe(t *testing.T) {
	t.Parallel()
	at := func(p event.Position) *event.Cursor { return &event.Cursor{Timeline: "a", Position: p} }
	onlyA := event.Filter{SubjectID: "a"} // has the odd positions
	tests := []struct {
		name  string
		after *event.Cursor
		f     event.Filter
		want  []event.Position // once 20 more events came
	}{
		{"begins at the head without a cursor", nil, event.Filter{}, eventlogtest.Positions(11, 30, 1)},
		{"replays all from the beginning", at(0), event.Filter{}, eventlogtest.Positions(1, 30, 1)},
		{"replays from a place in the past", at(7), event.Filter{}, eventlogtest.Positions(8, 30, 1)},
		{"replays nothing from the head", at(10), event.Filter{}, eventlogtest.Positions(11, 30, 1)},
		{"shows what matches", at(2), onlyA, eventlogtest.Positions(3, 30, 2)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, eventlog.HubConfig{Ring: 4, Batch: 3}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
				s := subscribe(ctx, t, h, tt.after, tt.f)
				m.Append(20)
				h.Wake()
				if got := positions(ctx, t, s, len(tt.want)); !slices.Equal(got, tt.want) {
					t.Errorf("positions = %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestHub_Subscribe_refuses_what_it_cannot_follow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		after event.Cursor
		want  fault.Code
	}{
		{"another timeline", event.Cursor{Timeline: "b", Position: 5}, fault.CursorUnknown},
		{"a place beyond the head", event.Cursor{Timeline: "a", Position: 11}, fault.CursorUnknown},
		{"a place whose next event is gone", event.Cursor{Timeline: "a", Position: 2}, fault.CursorExpired},
		{"the last place before what is kept", event.Cursor{Timeline: "a", Position: 3}, ""},
		{"the head", event.Cursor{Timeline: "a", Position: 10}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := eventlogtest.NewMemory()
			m.Append(10)
			m.Oldest = 4
			_, err := eventlogtest.NewHub(t, m, eventlog.HubConfig{}).Subscribe(t.Context(), &tt.after, event.Filter{})
			if tt.want == "" && err != nil || tt.want != "" && !fault.Is(err, tt.want) {
				t.Errorf("Subscribe = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestHub_finds_events_without_being_told(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		s := subscribe(ctx, t, h, nil, event.Filter{})
		start := time.Now()
		m.Append(1)
		if got := positions(ctx, t, s, 1); got[0] != 11 {
			t.Errorf("positions = %v, want 11", got)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v, want a second at most", took)
		}
	})
}

func TestHub_reads_little_when_nothing_happens(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(_ context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		before := m.ReadCount()
		h.AdvanceTo(10) // known
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := m.ReadCount() - before; n > 61 {
			t.Errorf("%d reads in a minute, want one a second", n)
		}
	})
}

func TestHub_slow_reader_is_served_from_the_log_and_delays_no_other(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{Ring: 8}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		slow := subscribe(ctx, t, h, nil, event.Filter{})
		fast := subscribe(ctx, t, h, nil, event.Filter{})
		for i := range event.Position(100) {
			m.Append(10)
			h.Wake()
			first := 11 + i*10
			if got := positions(ctx, t, fast, 10); !slices.Equal(got, eventlogtest.Positions(first, first+9, 1)) {
				t.Fatalf("the fast reader got %v, want ten from %d on", got, first)
			}
			if n := h.RingLen(); n > 8 {
				t.Fatalf("the hub keeps %d events, want 8 at most", n)
			}
		}
		if got := positions(ctx, t, slow, 1000); !slices.Equal(got, eventlogtest.Positions(11, 1010, 1)) {
			t.Errorf("the slow reader missed something or saw it twice: %v", got)
		}
		m.Append(1)
		h.Wake()
		if got := positions(ctx, t, slow, 1); !slices.Equal(got, eventlogtest.Positions(1011, 1011, 1)) {
			t.Errorf("back at the head the slow reader got %v, want 1011", got)
		}
	})
}

func TestHub_keeps_no_more_bytes_than_it_may(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{RingBytes: 7 * 5}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		s := subscribe(ctx, t, h, nil, event.Filter{})
		m.Append(50) // of 7 bytes each
		h.Wake()
		synctest.Wait()
		if n := h.RingLen(); n != 5 {
			t.Errorf("the hub keeps %d events, want 5", n)
		}
		if got := positions(ctx, t, s, 50); !slices.Equal(got, eventlogtest.Positions(11, 60, 1)) {
			t.Errorf("positions = %v, want 11 to 60", got)
		}
	})
}

func TestSubscription_Cursor_moves_on_while_nothing_matches(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{Ring: 4}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		s := subscribe(ctx, t, h, nil, event.Filter{SubjectID: "none"})
		go func() { _, _ = s.Next(ctx) }()
		m.Append(100)
		h.Wake()
		synctest.Wait()
		if got := s.Cursor().Position; got != 110 {
			t.Errorf("Cursor = %d, want 110", got)
		}
	})
}

func TestHub_restore_ends_subscriptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		restore func(m *eventlogtest.Memory)
		want    fault.Code
	}{
		{"with another timeline", func(m *eventlogtest.Memory) { m.Timeline = "b" }, fault.CursorUnknown},
		{"that was not announced, by its shorter log", func(m *eventlogtest.Memory) { m.Events = m.Events[:5] }, fault.CursorUnknown},
		{"not at all if it has what they follow", func(m *eventlogtest.Memory) {}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
				s := subscribe(ctx, t, h, nil, event.Filter{})
				m.Change(func() { tt.restore(m) })
				time.Sleep(2 * time.Second)
				m.Append(10)
				events, err := s.Next(ctx)
				if tt.want == "" && (err != nil || len(events) == 0) || tt.want != "" && !fault.Is(err, tt.want) {
					t.Errorf("Next = %d events, %v, want %q", len(events), err, tt.want)
				}
				fresh := subscribe(ctx, t, h, nil, event.Filter{})
				m.Append(1)
				if got := positions(ctx, t, fresh, 1); got[0] != fresh.Cursor().Position {
					t.Errorf("a new subscription got %v", got)
				}
			})
		})
	}
}

func TestHub_matches_groups_again_after_a_restore(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		f := event.Filter{SubjectID: "a"}
		old := subscribe(ctx, t, h, nil, f)
		for range 2 { // the last batch is of 12 alone, and matches no subscription
			m.Append(1)
			h.Wake()
			synctest.Wait()
		}
		m.Change(func() { m.Timeline, m.Events = "b", m.Events[:10] })
		time.Sleep(2 * time.Second)
		fresh := subscribe(ctx, t, h, nil, f)
		m.Append(2) // in one batch, which ends at 12 too
		h.Wake()
		if got := positions(ctx, t, fresh, 1); got[0] != 11 {
			t.Errorf("positions = %v, want 11", got)
		}
		old.Close()
	})
}

func TestHub_keeps_audiences_apart(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		all := subscribe(ctx, t, h, nil, event.Filter{Audience: &event.Audience{All: event.Types()}})
		none := subscribe(ctx, t, h, nil, event.Filter{Audience: &event.Audience{}})
		m.Append(1)
		h.Wake()
		if got := positions(ctx, t, all, 1); got[0] != 11 {
			t.Errorf("positions = %v, want 11", got)
		}
		if at := none.Cursor().Position; at != 11 {
			t.Errorf("who may see nothing is at %d, want 11", at)
		}
	})
}

func TestSubscription_that_is_slower_than_retention_is_told(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{Ring: 4}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		s := subscribe(ctx, t, h, nil, event.Filter{SubjectID: "a"})
		m.Append(100)
		h.Wake()
		synctest.Wait()
		m.Change(func() { m.Oldest = 50 })
		if events, err := s.Next(ctx); !fault.Is(err, fault.CursorExpired) {
			t.Errorf("Next = %d events, %v, want CURSOR_EXPIRED", len(events), err)
		}
	})
}

func TestHub_goes_on_after_failed_reads(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		s := subscribe(ctx, t, h, nil, event.Filter{})
		m.Change(func() { m.Err = errors.New("gone") })
		m.Append(5)
		time.Sleep(10 * time.Second)
		if lag := h.Lag(); lag < 9*time.Second {
			t.Errorf("Lag = %v after ten seconds without a read", lag)
		}
		m.Change(func() { m.Err = nil })
		if got := positions(ctx, t, s, 5); !slices.Equal(got, eventlogtest.Positions(11, 15, 1)) {
			t.Errorf("positions = %v, want 11 to 15", got)
		}
		synctest.Wait() // events are delivered before the read ends
		if lag := h.Lag(); lag > time.Second {
			t.Errorf("Lag = %v after a read, want a second at most", lag)
		}
	})
}

func TestHub_reads_again_at_once_after_one_failure(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		s := subscribe(ctx, t, h, nil, event.Filter{})
		m.Change(func() { m.Err = errors.New("the connection was cut") })
		m.Append(5)
		h.Wake()
		synctest.Wait()
		m.Change(func() { m.Err = nil })
		failed := time.Now()
		if got := positions(ctx, t, s, 5); !slices.Equal(got, eventlogtest.Positions(11, 15, 1)) || time.Since(failed) > 100*time.Millisecond {
			t.Errorf("positions = %v after %v, want 11 to 15 in a moment", got, time.Since(failed))
		}
	})
}

func TestSubscription_ends_with_its_context(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, _ *eventlogtest.Memory, h *eventlog.Hub) {
		own, cancel := context.WithCancel(ctx)
		s := subscribe(own, t, h, nil, event.Filter{})
		ended := make(chan error)
		go func() {
			for _, err := range eventsOf(own, s) {
				ended <- err
			}
		}()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the last error is %v, want context.Canceled", err)
		}
		closed := subscribe(ctx, t, h, nil, event.Filter{})
		closed.Close()
		closed.Close()
		synctest.Wait()
		if n := h.Subscribers(); n != 0 {
			t.Errorf("the hub has %d subscribers, want none", n)
		}
	})
}

func TestHub_Lag_counts_what_has_no_position_yet(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(_ context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		for _, behind := range []time.Duration{0, 4 * time.Second} {
			m.Change(func() { m.Behind = behind })
			time.Sleep(time.Second)
			synctest.Wait()
			if got := h.Lag(); got < behind || got > behind+time.Second {
				t.Errorf("Lag = %v while events wait for %v", got, behind)
			}
			h.Wake() // a wake-up says nothing of events without a position
			synctest.Wait()
			if got := h.Lag(); got < behind {
				t.Errorf("Lag = %v after a hint, while events wait for %v", got, behind)
			}
		}
	})
}
