// Package eventlogtest has what tests of the event log and of its readers share: a log
// without a database, and nodes on a real one.
package eventlogtest

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/order"
)

// Memory is a log without a database.
type Memory struct {
	eventlog.Store

	mu       sync.Mutex
	Timeline string
	Oldest   event.Position // of what is kept; those before it are gone
	Events   []*event.Event
	Err      error // of every read, if set
	reads    int   // of State and Read

	Behind  time.Duration  // of its State
	Waiting []*event.Event // for a position
}

// NewMemory returns an empty log.
func NewMemory() *Memory { return &Memory{Timeline: "a", Oldest: 1} }

// State implements eventlog.Store.
func (m *Memory) State(context.Context) (eventlog.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return eventlog.State{Timeline: m.Timeline, Oldest: m.Oldest, Head: event.Position(len(m.Events)), Behind: m.Behind}, m.Err
}

// Pending implements eventlog.Store.
func (m *Memory) Pending(_ context.Context, limit int) ([]*event.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.Waiting[:min(limit, len(m.Waiting))]), m.Err
}

// Read implements eventlog.Store.
func (m *Memory) Read(_ context.Context, f event.Filter, s eventlog.Span) (found []*event.Event, err error) {
	wanted := f.Conditions()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	for p := max(s.After, m.Oldest-1); p < event.Position(len(m.Events)) && (s.Before == 0 || p+1 < s.Before) && len(found) < s.Limit; p++ {
		if wanted.Match(m.Events[p]) {
			found = append(found, m.Events[p])
		}
	}
	return found, m.Err
}

// Append appends n events, of the subjects a and b in turn.
func (m *Memory) Append(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		p := event.Position(len(m.Events) + 1)
		subject := []string{"b", "a"}[p%2]
		m.Events = append(m.Events, &event.Event{
			Type: order.EventOrderPlaced, SubjectID: subject, Cursor: event.Cursor{Timeline: m.Timeline, Position: p}, Data: []byte(`{"n":1}`),
		})
	}
}

// Change alters the log as an operator would.
func (m *Memory) Change(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

// ReadCount returns how often the log was read.
func (m *Memory) ReadCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// DiscardLogger returns a logger that writes nothing.
func DiscardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Positions returns the positions from one place to another, in steps.
func Positions(from, to, step event.Position) (all []event.Position) {
	for p := from; p <= to; p += step {
		all = append(all, p)
	}
	return all
}

// NewTextLogger returns a logger that writes text without times. The builder is read
// when there is no logger.
func NewTextLogger(b *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// NewHub returns a hub of the store that does not run yet.
func NewHub(t testing.TB, s eventlog.Store, cfg eventlog.HubConfig) *eventlog.Hub {
	t.Helper()
	h, err := eventlog.NewHub(eventlog.NewLog(s), DiscardLogger(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// LogBuffer collects what is logged.
type LogBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *LogBuffer) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *LogBuffer) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
