package store

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
)

var _ eventlog.RetentionStore = Events{}

// FirstSince implements eventlog.RetentionStore.
func (s Events) FirstSince(ctx context.Context, after, upto event.Position, at time.Time) (p event.Position, err error) {
	_, err = s.db.readConn().queryRow(ctx, `SELECT COALESCE(MIN(position), 0) FROM events WHERE position > ? AND position <= ? AND occurred_at >= ?`,
		[]any{int64(after), int64(upto), toMicros(at)}, &p)
	if err != nil {
		return 0, fmt.Errorf("look for the first young event: %w", s.db.translateError(ctx, err))
	}
	return p, nil
}

// Remove implements eventlog.RetentionStore. It does not come back to what it removed, see
// State.
func (s Events) Remove(ctx context.Context, after, upto event.Position) error {
	_, err := s.db.writer().exec(ctx, `DELETE FROM events WHERE position > ? AND position <= ?`, int64(after), int64(upto))
	if err != nil {
		return fmt.Errorf("remove events up to %d: %w", upto, s.db.translateError(ctx, err))
	}
	return nil
}
