// Package export sends the event log to message brokers, its sinks, as CloudEvents:
// Redis Streams, RabbitMQ and NATS JetStream.
package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/lease"
)

// Sink is where an Exporter takes events: a broker outside. Its methods are for
// one goroutine at a time.
type Sink interface {
	// Send gives the events to the broker, in order, and waits until it confirms
	// that it has stored them. It connects first if it must. It returns how many
	// are confirmed, counted from the first; if not all, the error says why. What
	// became of the others is not known: they will be sent again. An event is never
	// stored for the first time after a later one of its subject.
	Send(ctx context.Context, events []*event.Event) (confirmed int, err error)
	// Close drops the connection, if there is one.
	Close() error
}

// sinkPrefix sets the places of sinks apart from those of other readers.
const sinkPrefix = "sink:"

// LeaseName returns the name under which Offsets keeps the place of a sink.
func LeaseName(sink string) string { return sinkPrefix + sink }

// SinkName is the reverse of SinkReader; ok is false for readers that are no sinks.
func SinkName(reader string) (sink string, ok bool) {
	if len(reader) <= len(sinkPrefix) || reader[:len(sinkPrefix)] != sinkPrefix {
		return "", false
	}
	return reader[len(sinkPrefix):], true
}

// ExporterConfig tunes an Exporter. The zero value is ready to use.
type ExporterConfig struct {
	Owner    string        // this node, as other nodes are to know it; default one without a name, see Holder
	FromHead bool          // a sink that is not known yet begins with new events, else with the oldest one
	TTL      time.Duration // after which another node takes over; default 5 s
	Idle     time.Duration // how often a node asks for the ownership; default 1 s
	Batch    int           // events that are on their way at the same time; default 500
	Save     time.Duration // how long a new place may wait to be stored with later ones; default 100 ms
	HandOver time.Duration // how long a sink may fail until another node may try; default 15 s
}

func (c ExporterConfig) withDefaults() (ExporterConfig, error) {
	if c.TTL < 0 || c.Idle < 0 || c.Batch < 0 || c.Save < 0 || c.HandOver < 0 {
		return c, fmt.Errorf("exporter config: negative value in %+v", c)
	}
	if c.Owner == "" {
		c.Owner = lease.NewOwner("")
	}
	c.TTL = cmp.Or(c.TTL, 5*time.Second)
	c.Idle = cmp.Or(c.Idle, time.Second)
	c.Batch = cmp.Or(c.Batch, 500)
	c.Save = cmp.Or(c.Save, 100*time.Millisecond)
	c.HandOver = cmp.Or(c.HandOver, 15*time.Second)
	return c, nil
}

// sendBackoff is the pause between attempts to send to a sink that fails.
var sendBackoff = backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second}

// stopTimeout is how long a node that stops waits for the batch in flight.
const stopTimeout = 2 * time.Second

// Exporter takes the log to a sink: on one node at a time, which owns the sink's
// place in Offsets for as long as it renews its lease.
//
// It reads behind the place, sends, waits for the broker's confirmation, and only
// then moves the place on. So nothing is lost, whatever dies: what was confirmed
// and not yet stored as done is sent again. A broker that takes nothing holds up
// its own sink and nothing else; the place stays until it is back. What is sent
// is read anew each time, so what was redacted meanwhile goes out redacted.
//
// An owner that froze cannot move the place once another has taken over, and
// stops sending as soon as it notices; what it was sending then is repeated.
type Exporter struct {
	name    string
	log     *eventlog.Log
	offsets lease.Offsets
	sink    Sink
	logger  *slog.Logger
	cfg     ExporterConfig
	holder  string
	wake    coalesce.Signal

	failed time.Time // when the sink began to fail; zero while all is well
	tries  int       // how often in a row
}

// NewExporter returns an Exporter of the log to the named sink that does nothing
// until Run is called. The hub tells it of new events: call it before Hub.Run.
func NewExporter(name string, log *eventlog.Log, hub *eventlog.Hub, offsets lease.Offsets, sink Sink, logger *slog.Logger, cfg ExporterConfig) (*Exporter, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	x := &Exporter{
		name: name, log: log, offsets: offsets, sink: sink, logger: logger.With("sink", name), cfg: cfg,
		holder: cfg.Owner, wake: coalesce.NewSignal(),
	}
	hub.OnDeliver(func([]*event.Event, bool) { x.wake.Set() })
	return x, nil
}

// Run exports, or waits for the ownership, until ctx is cancelled. It then ends
// what is on its way, stores the place and gives the ownership up, so that
// another node goes on at once.
func (x *Exporter) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if t, ok := x.take(ctx); ok {
			x.lead(ctx, t)
		}
		backoff.Sleep(ctx, backoff.Jitter(x.cfg.Idle))
	}
	return nil
}

// take takes the ownership if it is free and the place is one to go on from.
func (x *Exporter) take(ctx context.Context) (t *exporting, ok bool) {
	state, err := x.log.State(ctx)
	if err != nil {
		x.note(ctx, 0, fmt.Errorf("read the log: %w", err))
		return nil, false
	}
	start := state.Oldest - 1
	if x.cfg.FromHead {
		start = state.Head
	}
	held, ok, err := lease.Acquire(ctx, x.offsets, LeaseName(x.name), x.holder, start, x.cfg.TTL)
	switch {
	case err != nil:
		x.note(ctx, 0, err)
		return nil, false
	case !ok:
		x.failed = time.Time{} // it is the owner who says how it is
		return nil, false
	}
	t = newExporting(held, x.cfg)
	tenure := t.Lease()
	if err := x.checkPlace(ctx, tenure.Position, state); err != nil {
		x.note(ctx, tenure.Position, err)
		t.release(ctx)
		return nil, false
	}
	if x.failed.IsZero() {
		x.logger.InfoContext(ctx, "this node exports to the sink", "after", int64(tenure.Position), "head", int64(state.Head), "epoch", tenure.Epoch)
	}
	return t, true
}

// checkPlace refuses a place that the log does not reach. The state is older than
// the place, which the owner before may have moved on since: then another counts.
func (x *Exporter) checkPlace(ctx context.Context, place event.Position, state eventlog.State) (err error) {
	if place > state.Head {
		if state, err = x.log.State(ctx); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
	}
	if place > state.Head {
		return fmt.Errorf("its place is %d, but the log ends at %d; if the database was restored, forget the sink to begin anew", place, state.Head)
	}
	return nil
}

// lead exports until ctx ends, the ownership is lost or others shall try.
func (x *Exporter) lead(ctx context.Context, t *exporting) {
	held, end := t.hold(ctx, stopTimeout)
	err := x.export(ctx, held, t)
	if err := x.sink.Close(); err != nil {
		x.logger.DebugContext(ctx, "closing the connection to the sink", "error", err)
	}
	end()
	if errors.Is(err, lease.ErrLost) || errors.Is(context.Cause(held), lease.ErrLost) {
		x.logger.WarnContext(ctx, "another node exports to the sink now", "epoch", t.Lease().Epoch)
		return
	}
	if t.Expired() { // and nobody could be asked in time
		x.logger.WarnContext(ctx, "another node may export to the sink now", "epoch", t.Lease().Epoch)
	}
	t.release(ctx)
	if err != nil && ctx.Err() == nil {
		backoff.Sleep(ctx, 2*x.cfg.Idle) // so that another node is the first to ask
	}
}

// export sends events until ctx or held ends, the lease is found to be lost or
// the sink has been failing for so long that another node shall try.
func (x *Exporter) export(ctx, held context.Context, t *exporting) error {
	began := time.Now()
	for ctx.Err() == nil && held.Err() == nil {
		n, err := x.step(ctx, held, t)
		if ctx.Err() != nil || held.Err() != nil || errors.Is(err, lease.ErrLost) {
			return err
		}
		x.note(ctx, t.place(), err)
		switch {
		case err != nil && time.Since(began) >= x.cfg.HandOver:
			return err
		case err != nil && n == 0:
			x.tries++
			backoff.Sleep(ctx, sendBackoff.Delay(x.tries))
		case err == nil && n == 0:
			x.await(ctx, held)
		}
		if n > 0 || err == nil {
			x.tries, began = 0, time.Now()
		}
	}
	return nil
}

// step sends the next events and returns how many of them are done.
func (x *Exporter) step(ctx, held context.Context, t *exporting) (int, error) {
	events, err := x.log.ReadAfter(held, t.place(), eventlog.ShrinkBatch(x.cfg.Batch, x.tries))
	if err != nil || len(events) == 0 {
		return 0, err
	}
	if err := t.check(held); err != nil {
		return 0, err
	}
	if first := events[0].Cursor.Position; first != t.place()+1 {
		x.logger.ErrorContext(ctx, "events were removed before the sink had them", "after", int64(t.place()), "before", int64(first))
	}
	n, err := x.sink.Send(held, events)
	if n > 0 {
		t.move(events[n-1].Cursor.Position)
	}
	return n, err
}

// note logs that the sink stands still, or goes on: the change, not each failure.
func (x *Exporter) note(ctx context.Context, place event.Position, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && x.failed.IsZero():
		x.failed = time.Now()
		x.logger.WarnContext(ctx, "exporting to the sink stands still; it is tried again and again, and nothing is lost", "after", int64(place), "error", err)
	case err == nil && !x.failed.IsZero():
		x.logger.InfoContext(ctx, "exporting to the sink goes on", "after", int64(place), "stood", time.Since(x.failed).Round(time.Millisecond))
		x.failed = time.Time{}
	}
}

func (x *Exporter) await(ctx, held context.Context) {
	select {
	case <-ctx.Done():
	case <-held.Done():
	case <-x.wake:
	}
}
