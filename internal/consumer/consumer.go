// Package consumer runs durable consumers of the event log: a handler per event, in
// order per subject, with retries and a dead letter queue.
package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/lease"
)

// Handler works on one event for a consumer: it calls one use case, whose
// transaction claims the event, so that its effect in the database happens once
// however often the handler runs. It may also decide that there is nothing to do
// and return nil. It must not run more than one transaction of the store, and
// must go by the event: the context says nobody is calling.
//
// An error is tried again, and in the end makes a dead letter; one that is
// Unavailable is nobody's fault and is tried again for as long as it takes; so is
// one that ran out of time while the database answered nobody.
type Handler func(ctx context.Context, e *event.Event) error

// ConsumerConfig tunes a Consumer. The zero value is ready to use.
type ConsumerConfig struct {
	Types    []event.Type   // which events it wants; all if none is given
	Start    event.Position // where it begins the first time: behind this place
	Parallel int            // handlers that run at the same time; default 8
	Window   int            // events above its place that are taken and may not be done; default 1000
	Attempts int            // before an event becomes a dead letter; default 10
	Backoff  time.Duration  // before the second attempt, doubled before each next; default 100 ms
	MaxPause time.Duration  // between two attempts; default 30 s
	TryTime  time.Duration  // how long an attempt may take; default 30 s
	TTL      time.Duration  // of the lease, after which another node takes over; default 5 s
	Retake   time.Duration  // how often a node that does not own the consumer asks; default 1 s
	StopTime time.Duration  // for handlers at work, once the consumer is to stop; default 5 s
}

func (c ConsumerConfig) withDefaults() (ConsumerConfig, error) {
	if min(c.Parallel, c.Window, c.Attempts) < 0 || min(c.Backoff, c.MaxPause, c.TryTime, c.TTL, c.Retake, c.StopTime) < 0 || c.Start < 0 {
		return c, fmt.Errorf("consumer config: negative value in %+v", c)
	}
	c.Parallel = cmp.Or(c.Parallel, 8)
	c.Window = cmp.Or(c.Window, 1000)
	c.Attempts = cmp.Or(c.Attempts, 10)
	c.Backoff = cmp.Or(c.Backoff, 100*time.Millisecond)
	c.MaxPause = cmp.Or(c.MaxPause, 30*time.Second)
	c.TryTime = cmp.Or(c.TryTime, 30*time.Second)
	c.TTL = cmp.Or(c.TTL, 5*time.Second)
	c.Retake = cmp.Or(c.Retake, time.Second)
	c.StopTime = cmp.Or(c.StopTime, 5*time.Second)
	return c, nil
}

// Deps is what a consumer works with.
type Deps struct {
	Hub         *eventlog.Hub
	Leases      lease.Offsets
	DeadLetters DeadLetterQueue
	Owner       string // this node, as other nodes are to know it; see Holder
	Logger      *slog.Logger
}

// Consumer works on the events of the log for one purpose, on one node at a time,
// whoever holds its lease. Events of one subject are worked on one after the
// other, those of different subjects at the same time.
//
// Its place is the mark below which it is done with all. What it has done above
// the mark is known by the claims of the transactions, so a new owner begins at
// the mark and passes over what is claimed. A claim is also what keeps an owner
// that froze and goes on from working on an event: see the store.
//
// An event that fails again and again becomes a dead letter; so do the events of
// its subject that come behind it, until a replay has worked on them all in order.
// The mark passes them.
type Consumer struct {
	name   string
	handle Handler
	desk   Deps
	cfg    ConsumerConfig
}

// NewConsumer returns a consumer that does nothing until Run is called. The name
// is for ever: it is what its place and its claims are kept under.
func NewConsumer(name string, handle Handler, desk Deps, cfg ConsumerConfig) (*Consumer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	desk.Logger = desk.Logger.With("consumer", name)
	return &Consumer{name, handle, desk, cfg}, nil
}

// Run works on events, or waits for the lease, until ctx is cancelled. Then it
// lets the handlers at work end, and gives the lease up, so that another node goes
// on at once.
func (c *Consumer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := c.own(ctx); err != nil && ctx.Err() == nil {
			c.desk.Logger.ErrorContext(ctx, "consuming failed", "error", err)
		}
		backoff.Sleep(ctx, backoff.Jitter(c.cfg.Retake))
	}
	return nil
}

// own takes the lease and works until it is lost or ctx ends.
func (c *Consumer) own(ctx context.Context) error {
	held, ok, err := lease.Acquire(ctx, c.desk.Leases, c.name, c.desk.Owner, c.cfg.Start, c.cfg.TTL)
	if err != nil || !ok {
		return err
	}
	t := held.Lease()
	c.desk.Logger.InfoContext(ctx, "this node works on events", "epoch", t.Epoch, "position", int64(t.Position))
	err = newShift(c, held).run(ctx)
	if errors.Is(err, lease.ErrLost) {
		c.desk.Logger.WarnContext(ctx, "another node may work on events now", "epoch", t.Epoch)
		return nil
	}
	return err
}
