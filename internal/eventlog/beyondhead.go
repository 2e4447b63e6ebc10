package eventlog

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// beyondHeadInterval is the least time between two log records of cursors beyond the head.
const beyondHeadInterval = time.Minute

// beyondHead counts cursors of the present timeline beyond the head of the log. The log gave them out, so events were
// lost: the database was restored and goes on with the timeline of before. A nil one counts nothing.
type beyondHead struct {
	logger *slog.Logger
	count  atomic.Uint64
	logged atomic.Int64 // when it was logged last, as monotime.Nanos
}

// check is State.checkCursor, and counts a cursor beyond the head.
func (b *beyondHead) check(s State, c event.Cursor) error {
	err := s.checkCursor(c)
	if b != nil && c.Timeline == s.Timeline && c.Position > s.Head {
		b.record(s, c)
	}
	return err
}

func (b *beyondHead) record(s State, c event.Cursor) {
	count := b.count.Add(1)
	now, last := monotime.Now(), b.logged.Load()
	if now-last < int64(beyondHeadInterval) || !b.logged.CompareAndSwap(last, now) {
		return
	}
	b.logger.Warn("a client resumes after an event that the log does not have: if the database was restored from a backup, stop all nodes and run backplane migrate --after-restore",
		"cursor", c.String(), "head", int64(s.Head), "count", count)
}

// CursorsBeyondHead returns how many cursors beyond the head of the log clients have sent.
func (h *Hub) CursorsBeyondHead() uint64 { return h.beyond.count.Load() }

// CountingIn returns the log, which counts cursors beyond its head with those that the hub gets.
func (l *Log) CountingIn(h *Hub) *Log { return &Log{l.store, h.beyond} }
