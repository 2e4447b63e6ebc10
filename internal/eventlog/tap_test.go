package eventlog_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
)

// heard is what a function given to OnDeliver was told.
type heard struct {
	positions []event.Position
	gaps      int
}

func (h *heard) deliver(events []*event.Event, gap bool) {
	if gap {
		h.gaps++
	}
	for _, e := range events {
		h.positions = append(h.positions, e.Cursor.Position)
	}
}

// listen runs a test of what OnDeliver tells, in fake time.
func listen(t *testing.T, test func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub, told *heard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m, told := eventlogtest.NewMemory(), &heard{}
		m.Append(10)
		h := eventlogtest.NewHub(t, m, eventlog.HubConfig{Batch: 3})
		h.OnDeliver(told.deliver)
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		synctest.Wait()
		test(ctx, t, m, h, told)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestHub_OnDeliver_hears_of_all_events_before_subscribers_do(t *testing.T) {
	t.Parallel()
	listen(t, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub, told *heard) {
		if told.gaps != 1 || len(told.positions) != 0 {
			t.Fatalf("at the first look it was told %+v, want one gap and nothing else", *told)
		}
		s := subscribe(ctx, t, h, nil, event.Filter{})
		seen := make(chan []event.Position)
		go func() {
			if _, err := s.Next(ctx); err == nil {
				seen <- slices.Clone(told.positions) // the first batch is 11 to 13
			}
		}()
		m.Append(3)
		h.Wake()
		if got := <-seen; !slices.Equal(got, eventlogtest.Positions(11, 13, 1)) {
			t.Errorf("when a subscriber hears of 11 to 13 it was told %v", got)
		}
		m.Append(20)
		h.Wake()
		synctest.Wait()
		if !slices.Equal(told.positions, eventlogtest.Positions(11, 33, 1)) || told.gaps != 1 {
			t.Errorf("it was told %+v, want 11 to 33 without another gap", *told)
		}
	})
}

func TestHub_OnDeliver_is_told_of_gaps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lose func(m *eventlogtest.Memory)
	}{
		{"when the log belongs to another timeline", func(m *eventlogtest.Memory) { m.Timeline = "b" }},
		{"when the log is shorter than it was", func(m *eventlogtest.Memory) { m.Events = m.Events[:4] }},
		{"when what came since is not kept any more", func(m *eventlogtest.Memory) { m.Oldest = 15 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			listen(t, func(_ context.Context, t *testing.T, m *eventlogtest.Memory, _ *eventlog.Hub, told *heard) {
				m.Change(func() { tt.lose(m) })
				if m.Oldest > 1 {
					m.Append(10)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if told.gaps != 2 {
					t.Errorf("it was told %+v, want a second gap", *told)
				}
			})
		})
	}
}
