// Package consumer runs durable consumers of the event log. A consumer calls its handler
// for each event, in order per subject, with retries and a dead letter queue.
//
// One node at a time runs a consumer, under a lease. Its states:
//
//	waiting for lease --acquired--> leading --stopped or lease lost--> waiting for lease
//
//	leading:  log --read--> in-flight window --> per-subject queues --> handlers --done--> low watermark
//	                                                    |
//	                                                    +--attempts exhausted--> parked in the dead letter queue
//	                                                    ^                                      |
//	                                                    +----------------replay----------------+
//
// The low watermark is the position up to which every event is handled or parked. Each
// renewal of the lease saves it as the consumer's offset. The in-flight window bounds
// the events above it.
//
// Delivery is at least once: a new owner reads again from the offset. The effect in the
// database is exactly once: the handler's transaction claims the event. It also checks the
// lease's epoch, the fencing token, so a node that froze changes nothing after
// another node has acquired the lease.
//
// Package lease owns leases and offsets, package store the claims and the dead letters.
package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/lease"
)

// Handler handles one event for a consumer: it calls one use case, whose
// transaction claims the delivery d, so its effect in the database happens exactly once
// however often the handler runs. A handler that has nothing to do returns nil.
// It must not run more than one transaction of the store, and must take its
// input from the event: the context carries no principal.
//
// The consumer retries an error up to Config.Attempts times, then parks the event as a dead
// letter. It retries without limit an error that is Unavailable, and a timeout while
// the database does not answer.
type Handler func(ctx context.Context, d claim.Delivery, e *event.Event) error

// Config tunes a Consumer. The zero value is ready to use.
type Config struct {
	Types           []event.Type   // types to handle; all if empty
	Start           event.Position // initial offset: a new consumer reads the events after it
	Parallel        int            // handlers that run concurrently; default 8
	Window          int            // in-flight window: unfinished events above the low watermark; default 1000
	Attempts        int            // before an event becomes a dead letter; default 10
	Backoff         time.Duration  // before the second attempt, doubled before each next; default 100 ms
	MaxBackoff      time.Duration  // limit of the doubling; default 30 s
	AttemptTimeout  time.Duration  // timeout of one attempt; default 30 s
	TTL             time.Duration  // of the lease, after which another node may acquire it; default 5 s
	AcquireInterval time.Duration  // between attempts of other nodes to acquire the lease; default 1 s
	DrainTimeout    time.Duration  // time for running handlers to return when the consumer stops; default 5 s
}

func (c Config) withDefaults() (Config, error) {
	if min(c.Parallel, c.Window, c.Attempts) < 0 || min(c.Backoff, c.MaxBackoff, c.AttemptTimeout, c.TTL, c.AcquireInterval, c.DrainTimeout) < 0 || c.Start < 0 {
		return c, fmt.Errorf("consumer config: negative value in %+v", c)
	}
	c.Parallel = cmp.Or(c.Parallel, 8)
	c.Window = cmp.Or(c.Window, 1000)
	c.Attempts = cmp.Or(c.Attempts, 10)
	c.Backoff = cmp.Or(c.Backoff, 100*time.Millisecond)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, 30*time.Second)
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, 30*time.Second)
	c.TTL = cmp.Or(c.TTL, 5*time.Second)
	c.AcquireInterval = cmp.Or(c.AcquireInterval, time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 5*time.Second)
	return c, nil
}

// Deps are the dependencies of a consumer.
type Deps struct {
	Hub         *eventlog.Hub
	Leases      lease.Store
	DeadLetters DeadLetterQueue
	Owner       string // this process as a lease owner; see lease.NewOwner
	Logger      *slog.Logger
}

// Consumer handles the events of the log for one purpose, on the node that owns its
// lease. It handles events of one subject in order, and subjects in parallel.
//
// Its offset is the low watermark. Claims record the events that are handled above
// it, so a new owner reads from the offset and skips claimed events. Claims also
// fence an owner that froze: see package store.
//
// The consumer parks an event that exhausts its attempts, and the later events of its
// subject, until a replay has handled them all in order. The low watermark passes
// parked events.
type Consumer struct {
	name   string
	handle Handler
	deps   Deps
	cfg    Config
}

// New returns a consumer that does nothing until Run is called. The name is the key of
// its offset and its claims and must never change.
func New(name string, handle Handler, deps Deps, cfg Config) (*Consumer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	deps.Logger = deps.Logger.With("consumer", name)
	return &Consumer{name, handle, deps, cfg}, nil
}

// Run handles events, or waits for the lease, until ctx is cancelled. Then it drains
// running handlers and releases the lease, so that another node acquires it at once.
func (c *Consumer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := c.acquireAndRun(ctx); err != nil && ctx.Err() == nil {
			c.deps.Logger.ErrorContext(ctx, "consumer failed; it restarts from its saved offset", "error", err)
		}
		backoff.Sleep(ctx, backoff.Jitter(c.cfg.AcquireInterval))
	}
	return nil
}

// acquireAndRun acquires the lease and runs a session until the lease is lost or ctx ends.
func (c *Consumer) acquireAndRun(ctx context.Context) error {
	held, ok, err := lease.Acquire(ctx, c.deps.Leases, c.name, c.deps.Owner, c.cfg.Start, c.cfg.TTL)
	if err != nil || !ok {
		return err
	}
	t := held.Lease()
	c.deps.Logger.InfoContext(ctx, "consumer started", "epoch", t.Epoch, "position", int64(t.Position))
	err = newSession(c, held).run(ctx)
	if errors.Is(err, lease.ErrLost) {
		c.deps.Logger.WarnContext(ctx, "consumer stopped: its lease is lost; another node may own it", "epoch", t.Epoch)
		return nil
	}
	return err
}
