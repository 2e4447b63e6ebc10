package event

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// CleanerName is the name under which the cleaner of the log is a reader: its
// place is up to where it has removed events.
const CleanerName = "retention"

// RetentionConfig says what the log keeps. The zero value keeps everything.
type RetentionConfig struct {
	Age   time.Duration // events that happened longer ago go; 0 for none
	Count int           // of the newest events; older ones go; 0 for all
	Held  int           // how many events behind a named reader may be and still hold back what it has not read; default 1,000,000

	Batch    int           // events that are removed at a time; default 1000
	Pause    time.Duration // between two batches; default 20 ms
	Interval time.Duration // between two rounds; default 1 min
}

// Bounded reports whether anything is ever to be removed.
func (c RetentionConfig) Bounded() bool { return c.Age > 0 || c.Count > 0 }

func (c RetentionConfig) withDefaults() (RetentionConfig, error) {
	if min(c.Count, c.Held, c.Batch) < 0 || min(c.Age, c.Pause, c.Interval) < 0 {
		return c, fmt.Errorf("retention config: negative value in %+v", c)
	}
	c.Held = cmp.Or(c.Held, 1_000_000)
	c.Batch = cmp.Or(c.Batch, 1000)
	c.Pause = cmp.Or(c.Pause, 20*time.Millisecond)
	c.Interval = cmp.Or(c.Interval, time.Minute)
	return c, nil
}

// Past removes the oldest events. It is declared here, where it is used.
type Past interface {
	Store
	// FirstSince returns the first position behind one place and up to another whose
	// event happened at the given time or later; 0 if there is none.
	FirstSince(ctx context.Context, after, upto Position, at time.Time) (Position, error)
	// Remove removes the events behind one place and up to another.
	Remove(ctx context.Context, after, upto Position) error
}

// Cleaner removes what the log is not to keep, from its oldest end, on one node
// at a time. It stops at the slowest named reader, unless that is too far behind;
// what such a reader loses is logged. A removed event is never the start of a
// gap: the log always holds all that is behind its oldest event.
type Cleaner struct {
	past    Past
	offsets Offsets
	holder  string
	now     func() time.Time
	log     *slog.Logger
	cfg     RetentionConfig
}

// NewCleaner returns a Cleaner that does nothing until Run is called. The holder
// is this node, and never the same again.
func NewCleaner(past Past, offsets Offsets, holder string, now func() time.Time, log *slog.Logger, cfg RetentionConfig) (*Cleaner, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Cleaner{past, offsets, holder, now, log, cfg}, nil
}

// Run cleans at once and then each interval until ctx is cancelled. What fails is
// logged and tried again in the next round.
func (c *Cleaner) Run(ctx context.Context) error {
	for c.cfg.Bounded() && ctx.Err() == nil {
		if err := c.round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrLeaseLost) {
			c.log.ErrorContext(ctx, "cleaning the event log failed", "error", err)
		}
		rest(ctx, jittered(c.cfg.Interval))
	}
	return nil
}

// cleanerTTL is how long the lease of a round lasts without a batch.
const cleanerTTL = 30 * time.Second

// round removes all that is due, if no other node is doing so.
func (c *Cleaner) round(ctx context.Context) error {
	t, ok, err := Occupy(ctx, c.offsets, CleanerName, c.holder, 0, cleanerTTL)
	if err != nil || !ok {
		return err
	}
	defer func() { _ = t.Release(ctx) }() // it expires by itself
	lost := map[string]Position{}
	first, last := Position(0), Position(0)
	for ctx.Err() == nil {
		var after, upto Position
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
		rest(ctx, c.cfg.Pause)
	}
	c.tell(ctx, first, last, lost)
	return err
}

// tell says what a round removed, and who had not read it.
func (c *Cleaner) tell(ctx context.Context, first, last Position, lost map[string]Position) {
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
func (c *Cleaner) batch(ctx context.Context, lost map[string]Position) (after, upto Position, err error) {
	state, err := c.past.State(ctx)
	if err != nil {
		return 0, 0, err
	}
	readers, err := c.offsets.List(ctx)
	if err != nil {
		return 0, 0, err
	}
	after = state.Oldest - 1
	upto, err = c.due(ctx, after, min(after+Position(c.cfg.Batch), c.limit(state, readers)), state)
	if err != nil || upto <= after {
		return after, after, err
	}
	if err := c.past.Remove(ctx, after, upto); err != nil {
		return after, after, err
	}
	for _, r := range readers {
		if _, known := lost[r.Name]; !known && r.Position < upto && r.Name != CleanerName {
			lost[r.Name] = r.Position
		}
	}
	return after, upto, nil
}

// limit is up to where readers let events go.
func (c *Cleaner) limit(state State, readers []Offset) Position {
	slowest := state.Head
	for _, r := range readers {
		if r.Name != CleanerName {
			slowest = min(slowest, r.Position)
		}
	}
	return max(slowest, state.Head-Position(c.cfg.Held))
}

// due is up to where events behind after are not to be kept, at most to the end.
func (c *Cleaner) due(ctx context.Context, after, end Position, state State) (Position, error) {
	upto := after
	if c.cfg.Count > 0 {
		upto = max(after, min(end, state.Head-Position(c.cfg.Count)))
	}
	if c.cfg.Age == 0 || upto >= end {
		return upto, nil
	}
	young, err := c.past.FirstSince(ctx, upto, end, c.now().Add(-c.cfg.Age))
	switch {
	case err != nil:
		return after, err
	case young == 0:
		return end, nil
	default:
		return young - 1, nil
	}
}
