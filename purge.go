package main

import (
	"context"
	"log/slog"
	"time"
)

// purgeInterval is how often what has expired is removed.
const purgeInterval = 10 * time.Minute

// purge removes expired idempotency keys until ctx is cancelled.
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
