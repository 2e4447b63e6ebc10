package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/session"
)

// runner works until its context ends.
type runner interface {
	Run(ctx context.Context) error
}

// readers returns what reads the log by name inside the server: the consumers,
// and what removes its oldest events.
func (n *node) readers(a *app, hub *event.Hub) ([]runner, error) {
	desk := event.Desk{Hub: hub, Offsets: n.db.Offsets(), Letters: n.db.Letters(), Holder: n.holder, Logger: a.log}
	access, err := event.NewConsumer("access", n.sessions.EndAccess, desk, event.ConsumerConfig{Types: session.AccessTypes()})
	if err != nil {
		return nil, err
	}
	keep := event.RetentionConfig{Age: a.cfg.Retention.Age, Count: a.cfg.Retention.Count, Held: a.cfg.Retention.Held}
	cleaner, err := event.NewCleaner(n.db.Events(), desk.Offsets, desk.Holder, now, a.log, keep)
	if err != nil {
		return nil, err
	}
	return []runner{access, cleaner}, nil
}

// purgeInterval is how often what has expired is removed.
const purgeInterval = 10 * time.Minute

// purge removes expired idempotency keys, claims of consumers that are past their
// events and dead letters that were replayed long ago, until ctx is cancelled.
func (n *node) purge(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(purgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := n.db.PurgeExpired(ctx); err != nil && ctx.Err() == nil {
				log.ErrorContext(ctx, "purge failed", "error", err)
			}
		}
	}
}
