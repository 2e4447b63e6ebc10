// Package export sends the event log to message brokers, its sinks, as CloudEvents:
// Redis Streams, RabbitMQ and NATS JetStream.
//
// Delivery is at least once and in order per subject; readers drop repeats by the event's ID.
// One node at a time exports to a sink, under a lease. It moves the sink's offset only
// after the broker has confirmed. A broker that does not confirm exerts backpressure on
// its own sink alone: the offset stays, the events wait in the log, and the exporter
// retries with backoff. Package lease owns the offset, package eventlog the log.
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

// Sink is the broker to which an Exporter sends events. One goroutine at a time calls its
// methods.
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

// Resumer is a Sink that makes its target only for its first export.
type Resumer interface {
	// ResumeExport tells the sink that all events up to a position were exported before. From then on, as
	// after its own first export, a target that is missing, or lacks its end, is ErrTargetGone.
	ResumeExport(last event.Position)
}

// sinkPrefix distinguishes the leases of sinks from those of consumers.
const sinkPrefix = "sink:"

// LeaseName returns the name of a sink's lease and offset.
func LeaseName(sink string) string { return sinkPrefix + sink }

// SinkName is the reverse of LeaseName; ok is false for readers that are not sinks.
func SinkName(reader string) (sink string, ok bool) {
	if len(reader) <= len(sinkPrefix) || reader[:len(sinkPrefix)] != sinkPrefix {
		return "", false
	}
	return reader[len(sinkPrefix):], true
}

// Config tunes an Exporter. The zero value is ready to use.
type Config struct {
	Owner           string        // this process as a lease owner; default one without a node name, see lease.NewOwner
	FromHead        bool          // a new sink begins at the head, else with the oldest event
	TTL             time.Duration // of the lease, after which another node may acquire it; default 5 s
	AcquireInterval time.Duration // between attempts of other nodes to acquire the lease; default 1 s
	Batch           int           // events of one Send; default 500
	SaveInterval    time.Duration // shortest time between two saves of the offset; default 100 ms
	HandOverAfter   time.Duration // time of failures after which the owner lets another node try; default 15 s
}

func (c Config) withDefaults() (Config, error) {
	if c.TTL < 0 || c.AcquireInterval < 0 || c.Batch < 0 || c.SaveInterval < 0 || c.HandOverAfter < 0 {
		return c, fmt.Errorf("exporter config: negative value in %+v", c)
	}
	if c.Owner == "" {
		c.Owner = lease.NewOwner("")
	}
	c.TTL = cmp.Or(c.TTL, 5*time.Second)
	c.AcquireInterval = cmp.Or(c.AcquireInterval, time.Second)
	c.Batch = cmp.Or(c.Batch, 500)
	c.SaveInterval = cmp.Or(c.SaveInterval, 100*time.Millisecond)
	c.HandOverAfter = cmp.Or(c.HandOverAfter, 15*time.Second)
	return c, nil
}

// sendBackoff is the pause between attempts to send to a sink that fails.
var sendBackoff = backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second}

// stopTimeout is how long a node that stops waits for the batch in flight.
const stopTimeout = 2 * time.Second

// Exporter sends the log to a sink, on the node that owns the sink's lease.
//
// It reads the events after the offset, sends them, waits for the broker's confirmation, and
// only then moves the offset. A crash loses nothing: the next owner sends again what was
// confirmed but not saved. A broker that accepts nothing stalls its own sink only. Each
// attempt reads the events again, so that events redacted meanwhile are sent redacted.
//
// The epoch fences an owner that froze: it cannot move the offset after another node has
// acquired the lease, and stops sending when it notices. The next owner repeats its batch.
type Exporter struct {
	name   string
	log    *eventlog.Log
	leases lease.Store
	sink   Sink
	logger *slog.Logger
	cfg    Config
	owner  string
	wake   coalesce.Signal

	stalledSince time.Time // when the sink began to fail; zero while it works
	targetGone   bool      // and that it is ErrTargetGone was logged
	failures     int       // in a row
}

// NewExporter returns an Exporter of the log to the named sink that does nothing
// until Run is called. The hub wakes it for new events: call it before Hub.Run.
func NewExporter(name string, log *eventlog.Log, hub *eventlog.Hub, offsets lease.Store, sink Sink, logger *slog.Logger, cfg Config) (*Exporter, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	x := &Exporter{
		name: name, log: log, leases: offsets, sink: sink, logger: logger.With("sink", name), cfg: cfg,
		owner: cfg.Owner, wake: coalesce.NewSignal(),
	}
	hub.OnDeliver(func([]*event.Event, bool) { x.wake.Set() })
	return x, nil
}

// Run exports, or waits for the lease, until ctx is cancelled. It then drains the batch in
// flight, saves the offset and releases the lease, so that another node acquires it at once.
func (x *Exporter) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if t, ok := x.acquireLease(ctx); ok {
			x.runAsOwner(ctx, t)
		}
		backoff.Sleep(ctx, backoff.Jitter(x.cfg.AcquireInterval))
	}
	return nil
}

// acquireLease acquires the sink's lease if it is free and its offset is within the log.
func (x *Exporter) acquireLease(ctx context.Context) (t *exportLease, ok bool) {
	state, err := x.log.State(ctx)
	if err != nil {
		x.logStallChange(ctx, 0, fmt.Errorf("read the log: %w", err))
		return nil, false
	}
	start := state.Oldest - 1
	if x.cfg.FromHead {
		start = state.Head
	}
	held, ok, err := lease.Acquire(ctx, x.leases, LeaseName(x.name), x.owner, start, x.cfg.TTL)
	switch {
	case err != nil:
		x.logStallChange(ctx, 0, err)
		return nil, false
	case !ok:
		x.stalledSince = time.Time{} // the owner logs the state of the sink
		return nil, false
	}
	t = newExportLease(held, x.cfg)
	l := t.Lease()
	if err := x.checkOffset(ctx, l.Position, state); err != nil {
		x.logStallChange(ctx, l.Position, err)
		t.releaseLease(ctx)
		return nil, false
	}
	if r, ok := x.sink.(Resumer); ok && x.exportedBefore(l, state) {
		r.ResumeExport(l.Position)
	}
	if x.stalledSince.IsZero() {
		x.logger.InfoContext(ctx, "sink export started", "after", int64(l.Position), "head", int64(state.Head), "epoch", l.Epoch)
	}
	return t, true
}

// exportedBefore reports whether an earlier owner has exported something for sure: the offset has
// moved from where a new sink begins. Where one begins at the head that is not known.
func (x *Exporter) exportedBefore(l lease.Lease, state eventlog.State) bool {
	return l.Epoch > 1 && !x.cfg.FromHead && l.Position > state.Oldest-1
}

// checkOffset refuses an offset beyond the head. The state is older than the offset, which
// the previous owner may have moved since: checkOffset then reads it again.
func (x *Exporter) checkOffset(ctx context.Context, offset event.Position, state eventlog.State) (err error) {
	if offset > state.Head {
		if state, err = x.log.State(ctx); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
	}
	if offset > state.Head {
		return fmt.Errorf("its offset is %d, but the log ends at %d; if the database was restored, forget the sink to begin anew", offset, state.Head)
	}
	return nil
}

// runAsOwner exports until ctx ends, the lease is lost or another node shall try.
func (x *Exporter) runAsOwner(ctx context.Context, t *exportLease) {
	held, end := t.startRenewal(ctx, stopTimeout)
	err := x.exportEvents(ctx, held, t)
	if err := x.sink.Close(); err != nil {
		x.logger.DebugContext(ctx, "closing the connection to the sink failed", "error", err)
	}
	end()
	if errors.Is(err, lease.ErrLost) || errors.Is(context.Cause(held), lease.ErrLost) {
		x.logger.WarnContext(ctx, "sink export stopped: another node owns the lease", "epoch", t.Lease().Epoch)
		return
	}
	if t.Expired() { // and it could not be renewed in time
		x.logger.WarnContext(ctx, "sink export stopped: the lease expired; another node may own it", "epoch", t.Lease().Epoch)
	}
	t.releaseLease(ctx)
	if err != nil && ctx.Err() == nil {
		backoff.Sleep(ctx, 2*x.cfg.AcquireInterval) // so that another node acquires the lease first
	}
}

// exportEvents sends events until ctx or held ends, the lease is lost or the sink has
// failed for HandOverAfter.
func (x *Exporter) exportEvents(ctx, held context.Context, t *exportLease) error {
	began := time.Now()
	for ctx.Err() == nil && held.Err() == nil {
		n, err := x.sendBatch(ctx, held, t)
		if ctx.Err() != nil || held.Err() != nil || errors.Is(err, lease.ErrLost) {
			return err
		}
		x.logStallChange(ctx, t.offset(), err)
		switch {
		case err != nil && time.Since(began) >= x.cfg.HandOverAfter:
			return err
		case err != nil && n == 0:
			x.failures++
			backoff.Sleep(ctx, sendBackoff.Delay(x.failures))
		case err == nil && n == 0:
			x.awaitEvents(ctx, held)
		}
		if n > 0 || err == nil {
			x.failures, began = 0, time.Now()
		}
	}
	return nil
}

// sendBatch sends the next events and returns how many of them the broker confirmed.
func (x *Exporter) sendBatch(ctx, held context.Context, t *exportLease) (int, error) {
	events, err := x.log.ReadAfter(held, t.offset(), eventlog.ShrinkBatch(x.cfg.Batch, x.failures))
	if err != nil || len(events) == 0 {
		return 0, err
	}
	if err := t.ensureHeld(held); err != nil {
		return 0, err
	}
	if first := events[0].Cursor.Position; first != t.offset()+1 {
		x.logger.ErrorContext(ctx, "retention removed events before the sink received them; the export skips them", "after", int64(t.offset()), "before", int64(first))
	}
	n, err := x.sink.Send(held, events)
	if n > 0 {
		t.advanceOffset(events[n-1].Cursor.Position)
	}
	return n, err
}

// logStallChange logs that the export stalls or resumes, once per change, not per failure.
func (x *Exporter) logStallChange(ctx context.Context, offset event.Position, err error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, ErrTargetGone) && !x.targetGone:
		x.stalledSince, x.targetGone = cmp.Or(x.stalledSince, time.Now()), true
		x.logger.ErrorContext(ctx, "sink export stopped: its target is gone, and the events in it with it; the export goes on once it is there again", "after", int64(offset), "error", err)
	case err != nil && x.stalledSince.IsZero():
		x.stalledSince = time.Now()
		x.logger.WarnContext(ctx, "sink export stalled; it is retried and nothing is lost; check the broker", "after", int64(offset), "error", err)
	case err == nil && !x.stalledSince.IsZero():
		x.logger.InfoContext(ctx, "sink export resumed", "after", int64(offset), "stalled", time.Since(x.stalledSince).Round(time.Millisecond))
		x.stalledSince, x.targetGone = time.Time{}, false
	}
}

func (x *Exporter) awaitEvents(ctx, held context.Context) {
	select {
	case <-ctx.Done():
	case <-held.Done():
	case <-x.wake:
	}
}
