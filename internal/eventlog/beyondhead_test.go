package eventlog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

func TestBeyondHead_counts_each_and_logs_once_a_minute(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := &beyondHead{logger: slog.New(slog.NewTextHandler(&log, nil))}
	s := State{Timeline: "now", Head: 5, Oldest: 1}
	for _, tt := range []struct {
		cursor event.Cursor
		refuse bool
		count  uint64
	}{
		{event.Cursor{Timeline: "now", Position: 5}, false, 0},
		{event.Cursor{Timeline: "before", Position: 9}, true, 0},
		{event.Cursor{Timeline: "now", Position: 6}, true, 1},
		{event.Cursor{Timeline: "now", Position: 7}, true, 2},
	} {
		if err := b.check(s, tt.cursor); fault.Is(err, fault.CursorUnknown) != tt.refuse || b.count.Load() != tt.count {
			t.Errorf("after %s the count is %d, and the error %v; want %d", tt.cursor, b.count.Load(), err, tt.count)
		}
	}
	if got := strings.Count(log.String(), "migrate --after-restore"); got != 1 {
		t.Errorf("%d log records, want 1:\n%s", got, log.String())
	}
}
