package event_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// memory is a log without a database.
type memory struct {
	event.Store

	mu       sync.Mutex
	timeline string
	oldest   event.Position // of what is kept; those before it are gone
	events   []*event.Event
	err      error // of every read, if set
	reads    int   // of State and Read

	behind time.Duration // of its State
}

func newMemory() *memory { return &memory{timeline: "a", oldest: 1} }

func (m *memory) State(context.Context) (event.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return event.State{Timeline: m.timeline, Oldest: m.oldest, Head: event.Position(len(m.events)), Behind: m.behind}, m.err
}

func (m *memory) Read(_ context.Context, f event.Filter, s event.Span) (found []*event.Event, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	for p := max(s.After, m.oldest-1); p < event.Position(len(m.events)) && (s.Before == 0 || p+1 < s.Before) && len(found) < s.Limit; p++ {
		if f.Match(m.events[p]) {
			found = append(found, m.events[p])
		}
	}
	return found, m.err
}

// add appends n events, of the subjects a and b in turn.
func (m *memory) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		p := event.Position(len(m.events) + 1)
		subject := []string{"b", "a"}[p%2]
		m.events = append(m.events, &event.Event{
			Type: event.OrderPlaced, SubjectID: subject, Cursor: event.Cursor{Timeline: m.timeline, Position: p}, Data: []byte(`{"n":1}`),
		})
	}
}

// change alters the log as an operator would.
func (m *memory) change(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

// readCount returns how often the log was read.
func (m *memory) readCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newHub(t testing.TB, s event.Store, cfg event.HubConfig) *event.Hub {
	t.Helper()
	h, err := event.NewHub(event.NewLog(s), quiet(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func subscribe(ctx context.Context, t testing.TB, h *event.Hub, after *event.Cursor, f event.Filter) *event.Subscription {
	t.Helper()
	s, err := h.Subscribe(ctx, after, f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// positions reads n events.
func positions(ctx context.Context, t testing.TB, s *event.Subscription, n int) (got []event.Position) {
	t.Helper()
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

// dense is the positions from one place to another, in steps.
func dense(from, to, step event.Position) (all []event.Position) {
	for p := from; p <= to; p += step {
		all = append(all, p)
	}
	return all
}

func ids(events []*event.Event) []uid.Event {
	all := make([]uid.Event, len(events))
	for i, e := range events {
		all[i] = e.ID
	}
	return slices.Clip(all)
}

// logTo returns a logger that writes text without times. The builder is read
// when nobody logs.
func logTo(b *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
