package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/setting"
)

// CleanerLease is the name under which the cleaner of the log is a reader: its
// place is up to where it has removed events.
const CleanerLease = "retention"

// RetentionConfig says what the log keeps. The zero value keeps everything.
type RetentionConfig struct {
	Age                 time.Duration
	Count, MaxReaderLag int
	Batch               int
	Pause, Interval     time.Duration
}

// Settings declares the tunables.
func (c *RetentionConfig) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Age(&c.Age, "RETENTION_AGE", "how long events are kept, e.g. `720h`; `0s` keeps them for ever"),
		setting.Number(&c.Count, "RETENTION_COUNT", 0, 0, setting.MaxCount, "number of the newest events that are kept; `0` keeps all"),
		setting.Number(&c.MaxReaderLag, "RETENTION_HELD", 1_000_000, 1, setting.MaxCount, "lag in events up to which a consumer or sink holds retention back"),
		setting.Internal(&c.Batch, 1000, "events that are removed in one transaction"),
		setting.Internal(&c.Pause, 20*time.Millisecond, "pause between two batches"),
		setting.Internal(&c.Interval, time.Minute, "interval of rounds"),
	}
}

// Bounded reports whether anything is ever to be removed.
func (c RetentionConfig) Bounded() bool { return c.Age > 0 || c.Count > 0 }

func (c RetentionConfig) withDefaults() (RetentionConfig, error) {
	err := setting.ApplyDefaults("retention config", c.Settings())
	return c, err
}

// RetentionStore removes the oldest events. It is declared here, where it is used.
type RetentionStore interface {
	Store
	// FirstSince returns the first position behind one place and up to another whose
	// event happened at the given time or later; 0 if there is none.
	FirstSince(ctx context.Context, after, upto event.Position, at time.Time) (event.Position, error)
	// Remove removes the events behind one place and up to another.
	Remove(ctx context.Context, after, upto event.Position) error
}

// Cleaner removes what the log is not to keep, from its oldest end, on one node
// at a time. It stops at the slowest named reader, unless that is too far behind;
// what such a reader loses is logged. A removed event is never the start of a
// gap: the log always holds all that is behind its oldest event.
type Cleaner struct {
	past    RetentionStore
	offsets lease.Store
	holder  string
	clock   *dbclock.Clock
	log     *slog.Logger
	cfg     RetentionConfig
}

// NewCleaner returns a Cleaner that does nothing until Run is called. The holder
// is this node, and never the same again.
func NewCleaner(past RetentionStore, offsets lease.Store, holder string, clock *dbclock.Clock, log *slog.Logger, cfg RetentionConfig) (*Cleaner, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Cleaner{past, offsets, holder, clock, log, cfg}, nil
}

// Run cleans at once and then each interval until ctx is cancelled. What fails is
// logged and tried again in the next round.
func (c *Cleaner) Run(ctx context.Context) error {
	for c.cfg.Bounded() && ctx.Err() == nil {
		if err := c.round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, lease.ErrLost) {
			c.log.ErrorContext(ctx, "cleaning the event log failed", "error", err)
		}
		backoff.Sleep(ctx, backoff.Jitter(c.cfg.Interval))
	}
	return nil
}

// cleanerTTL is how long the lease of a round lasts without a batch; none takes
// longer than half of it.
const cleanerTTL = 30 * time.Second

// round removes all that is due, if no other node is doing so.
func (c *Cleaner) round(ctx context.Context) error {
	t, ok, err := lease.Acquire(ctx, c.offsets, CleanerLease, c.holder, 0, cleanerTTL)
	if err != nil || !ok {
		return err
	}
	defer func() { _ = t.Release(ctx) }() // it expires by itself
	lost := map[string]event.Position{}
	first, last := event.Position(0), event.Position(0)
	for ctx.Err() == nil {
		var after, upto event.Position
		after, upto, err = c.batch(ctx, lost)
		if err != nil || upto <= after {
			break
		}
		if first == 0 {
			first = after + 1
		}
		last = upto
		if err = t.Renew(ctx, upto); err != nil {
			break
		}
		backoff.Sleep(ctx, c.cfg.Pause)
	}
	c.tell(ctx, first, last, lost)
	return err
}

// tell says what a round removed, and who had not read it.
func (c *Cleaner) tell(ctx context.Context, first, last event.Position, lost map[string]event.Position) {
	if last > 0 {
		c.log.InfoContext(ctx, "the oldest events were removed from the log", "from", int64(first), "upto", int64(last))
	}
	for name, place := range lost {
		c.log.ErrorContext(ctx, "events were removed that a reader had not read: it is too far behind",
			"reader", name, "after", int64(place), "upto", int64(last))
	}
}

// batch removes the oldest events that are due, at most a batch of them: those
// behind after, up to upto. It notes where readers were that lose some.
func (c *Cleaner) batch(ctx context.Context, lost map[string]event.Position) (after, upto event.Position, err error) {
	ctx, cancel := context.WithTimeout(ctx, cleanerTTL/2)
	defer cancel()
	state, err := c.past.State(ctx)
	if err != nil {
		return 0, 0, err
	}
	readers, err := c.offsets.List(ctx)
	if err != nil {
		return 0, 0, err
	}
	after = state.Oldest - 1
	upto, err = c.due(ctx, after, min(after+event.Position(c.cfg.Batch), c.limit(state, readers)), state)
	if err != nil || upto <= after {
		return after, after, err
	}
	if err := c.past.Remove(ctx, after, upto); err != nil {
		return after, after, err
	}
	for _, r := range readers {
		if _, known := lost[r.Name]; !known && r.Position < upto && r.Name != CleanerLease {
			lost[r.Name] = r.Position
		}
	}
	return after, upto, nil
}

// limit is up to where readers let events go.
func (c *Cleaner) limit(state State, readers []lease.Offset) event.Position {
	slowest := state.Head
	for _, r := range readers {
		if r.Name != CleanerLease {
			slowest = min(slowest, r.Position)
		}
	}
	return max(slowest, state.Head-event.Position(c.cfg.MaxReaderLag))
}

// newestTime is the time that ages are counted from: now, but not later than the newest event. So
// events go when younger ones follow, and a clock that runs ahead removes nothing.
func (c *Cleaner) newestTime(ctx context.Context, state State) (time.Time, error) {
	now := c.clock.Now()
	found, err := c.past.Read(ctx, event.Filter{}, Span{After: state.Head - 1, Limit: 1})
	if err == nil && len(found) > 0 && found[0].OccurredAt.Before(now) {
		now = found[0].OccurredAt
	}
	return now, err
}

// due is up to where events behind after are not to be kept, at most to the end.
func (c *Cleaner) due(ctx context.Context, after, end event.Position, state State) (event.Position, error) {
	upto := after
	if c.cfg.Count > 0 {
		upto = max(after, min(end, state.Head-event.Position(c.cfg.Count)))
	}
	if c.cfg.Age == 0 || upto >= end {
		return upto, nil
	}
	if c.clock.CheckAge() != nil {
		return upto, nil //nolint:nilerr // the clock reports it
	}
	newest, err := c.newestTime(ctx, state)
	if err != nil {
		return after, err
	}
	young, err := c.past.FirstSince(ctx, upto, end, newest.Add(-c.cfg.Age))
	switch {
	case err != nil:
		return after, err
	case young == 0:
		return end, nil
	default:
		return young - 1, nil
	}
}
