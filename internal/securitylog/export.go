package securitylog

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/security"
)

const (
	exportBatch    = 500
	followInterval = time.Second

	// exportOverlap is how far an export looks back: a transaction may commit so long after it has
	// stored its events, and lasts no longer.
	exportOverlap = time.Minute
)

// Export reads security events in the order in which they were stored, each once. It belongs to one goroutine.
type Export struct {
	store Store
	from  time.Time
	seen  map[string]time.Time // the ids of the last exportOverlap, and when they were stored
}

// NewExport returns an Export of the events that were stored at the time or later.
func NewExport(store Store, from time.Time) *Export {
	return &Export{store, from, map[string]time.Time{}}
}

// Write passes the events that are stored to write, and returns its first error.
func (x *Export) Write(ctx context.Context, write func(*security.Event) error) error {
	after := Position{RecordedAt: x.from} // no id is less than the empty one
	newest := x.from
	for {
		events, err := x.store.ReadAfter(ctx, after, exportBatch)
		if err != nil {
			return err
		}
		for _, e := range events {
			after, newest = Position{e.RecordedAt, e.ID}, e.RecordedAt
			if _, again := x.seen[e.ID]; again {
				continue
			}
			if err := write(e); err != nil {
				return err
			}
			x.seen[e.ID] = e.RecordedAt
		}
		x.forget(newest.Add(-exportOverlap))
		if len(events) < exportBatch {
			return nil
		}
	}
}

// forget goes on from the time, and forgets what was stored before it.
func (x *Export) forget(before time.Time) {
	if before.After(x.from) {
		x.from = before
	}
	for id, at := range x.seen {
		if at.Before(x.from) {
			delete(x.seen, id)
		}
	}
}

// Follow is Write for events that are yet to be stored too, until ctx is cancelled; then it returns nil.
func (x *Export) Follow(ctx context.Context, write func(*security.Event) error) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		if err := x.Write(ctx, write); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
