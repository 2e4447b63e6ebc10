package eventlog_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestCleaner(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		cfg    eventlog.RetentionConfig
		later  time.Duration    // the time of the round, after the events happened
		gap    time.Duration    // by which the last event happened after the others
		reader event.Position   // where a named reader is; 0 for none
		kept   []event.Position // of 20 events
		says   string
	}{
		{"keeps everything unless it is told not to", eventlog.RetentionConfig{}, 1000 * time.Hour, 1000 * time.Hour, 0, eventlogtest.Positions(1, 20, 1), ""},
		{"keeps the newest events", eventlog.RetentionConfig{Count: 5}, 0, 0, 0, eventlogtest.Positions(16, 20, 1), "from=1 upto=15"},
		{"keeps all if there are fewer", eventlog.RetentionConfig{Count: 50}, 0, 0, 0, eventlogtest.Positions(1, 20, 1), ""},
		{"keeps what is young", eventlog.RetentionConfig{Age: time.Hour}, 59 * time.Minute, 0, 0, eventlogtest.Positions(1, 20, 1), ""},
		{"removes what is old", eventlog.RetentionConfig{Age: time.Hour}, 2 * time.Hour, 2 * time.Hour, 0, eventlogtest.Positions(20, 20, 1), "from=1 upto=19"},
		{"keeps what the newest event calls young", eventlog.RetentionConfig{Age: time.Hour}, 40 * 24 * time.Hour, 59 * time.Minute, 0, eventlogtest.Positions(1, 20, 1), ""},
		{"keeps what is young, whatever the newest event says", eventlog.RetentionConfig{Age: time.Hour}, 0, 40 * 24 * time.Hour, 0, eventlogtest.Positions(1, 20, 1), ""},
		{"removes what is old or too much", eventlog.RetentionConfig{Age: time.Hour, Count: 7}, time.Minute, 0, 0, eventlogtest.Positions(14, 20, 1), "from=1 upto=13"},
		{"stops at the slowest reader", eventlog.RetentionConfig{Count: 5}, 0, 0, 9, eventlogtest.Positions(10, 20, 1), "from=1 upto=9"},
		{"does not wait for a reader that is too far behind, and says so", eventlog.RetentionConfig{Count: 5, MaxReaderLag: 8}, 0, 0, 9, eventlogtest.Positions(13, 20, 1), "reader=slow after=9 upto=12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testenv.EachURL(t, func(t *testing.T, url string) {
				w := eventlogtest.OpenShop(t, url, 1)
				w.Update(t, w.Products[0], 18)
				w.Ahead = tt.gap
				w.Update(t, w.Products[0], 1)
				if head := w.Head(t); head != 20 {
					t.Fatalf("the log has %d events, want 20", head)
				}
				if tt.reader > 0 {
					if _, ok, err := w.DB.Leases().Acquire(t.Context(), "slow", "another", tt.reader, time.Minute); !ok || err != nil {
						t.Fatal(ok, err)
					}
				}
				out := &eventlogtest.LogBuffer{}
				cfg := tt.cfg
				cfg.Batch, cfg.Pause, cfg.Interval = 3, time.Nanosecond, time.Millisecond
				c, err := eventlog.NewCleaner(w.DB.Events(), w.DB.Leases(), "cleaner", dbclock.Fake(func() time.Time { return time.Now().Add(tt.later) }), slog.New(slog.NewTextHandler(out, nil)), cfg)
				if err != nil {
					t.Fatal(err)
				}
				rounds := 3
				for range rounds {
					if err := c.Round(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				found, err := w.DB.Events().Read(t.Context(), event.Filter{}, eventlog.Span{Limit: 100})
				if err != nil {
					t.Fatal(err)
				}
				var kept []event.Position
				for _, e := range found {
					kept = append(kept, e.Cursor.Position)
				}
				if !slices.Equal(kept, tt.kept) {
					t.Errorf("the log keeps %v, want %v", kept, tt.kept)
				}
				if !strings.Contains(out.String(), tt.says) || tt.says == "" && out.String() != "" {
					t.Errorf("the cleaner said %q, want %q", out.String(), tt.says)
				}
				checkEdges(t, w, tt.kept)
			})
		})
	}
}

// checkEdges checks that the log says of itself where it begins, also if nothing
// is left of it, and goes on behind its head.
func checkEdges(t *testing.T, w *eventlogtest.Shop, kept []event.Position) {
	t.Helper()
	oldest := event.Position(21)
	if len(kept) > 0 {
		oldest = kept[0]
	}
	s, err := w.DB.Events().State(t.Context())
	if err != nil || s.Oldest != oldest || s.Head != 20 {
		t.Errorf("State = %+v, %v, want the oldest %d and the head 20", s, err, oldest)
	}
	log := eventlog.NewLog(w.DB.Events())
	for p, code := range map[event.Position]fault.Code{oldest - 1: "", oldest - 2: fault.CursorExpired, 20: ""} {
		if p < 0 {
			continue
		}
		after := event.Cursor{Timeline: s.Timeline, Position: p}.String()
		_, err := log.List(asAdmin(t), event.Filter{}, page.Args{After: &after})
		if code == "" && err != nil || code != "" && !fault.Is(err, code) {
			t.Errorf("List after %d = %v, want %q", p, err, code)
		}
		want := (event.Cursor{Timeline: s.Timeline, Position: oldest - 1}).String()
		if code != "" && (!strings.Contains(err.Error(), want) || strings.Contains(fault.From(err).Message, s.Timeline)) {
			t.Errorf("List after %d gives %v, want %s named to the log, and not to the client", p, err, want)
		}
	}
	w.Update(t, w.Products[0], 1)
	if head := w.Head(t); head != 21 {
		t.Errorf("the next event is at %d, want 21", head)
	}
}
