package eventlog_test

import (
	"context"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/uid"
)

func subscribe(ctx context.Context, t testing.TB, h *eventlog.Hub, after *event.Cursor, f event.Filter) *eventlog.Subscription {
	t.Helper()
	s, err := h.Subscribe(ctx, after, f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// positions reads n events.
func positions(ctx context.Context, t testing.TB, s *eventlog.Subscription, n int) (got []event.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for len(got) < n {
		events, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("Next after %d of %d events: %v", len(got), n, err)
		}
		for _, e := range events {
			got = append(got, e.Cursor.Position)
		}
	}
	return got
}

func ids(events []*event.Event) []uid.Event {
	all := make([]uid.Event, len(events))
	for i, e := range events {
		all[i] = e.ID
	}
	return slices.Clip(all)
}

// eventsOf is Next one by one. It ends after the first error.
func eventsOf(ctx context.Context, s *eventlog.Subscription) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		for {
			events, err := s.Next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
