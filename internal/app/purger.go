package app

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/admin"
	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/store"
)

// When expired rows are purged: soon after the start, also on nodes that restart often, and then at an interval.
const (
	firstPurge    = time.Minute
	purgeInterval = 10 * time.Minute
)

// Bounds of a round that drops dead letters. Each is logged, so the rest waits for the next round.
const (
	dropBatch = 100 // dead letters in one transaction
	dropRound = 10_000
	dropPause = 20 * time.Millisecond // between two transactions
)

// Purger removes expired idempotency keys, claims of consumers that are past their
// events, dead letters that were replayed long ago, services that ended long ago, and those that have waited too long for their replay.
type Purger struct {
	db      *store.DB
	keep    time.Duration // how long a dead letter waits
	log     *slog.Logger
	dropped atomic.Int64
}

// NewPurger returns a Purger that does nothing until Run is called.
func NewPurger(env Env, db *store.DB) *Purger {
	return &Purger{db: db, keep: env.Config.DeadLetters.Retention, log: env.Log}
}

// Run implements Runner. A purge that fails is logged and tried again.
func (p *Purger) Run(ctx context.Context) error {
	tick := time.NewTicker(firstPurge)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tick.Reset(purgeInterval)
			p.purge(ctx)
		}
	}
}

// purge is one round.
func (p *Purger) purge(ctx context.Context) {
	if p.db.Clock().CheckAge() != nil { // the clock itself is reported
		return
	}
	if _, err := p.db.PurgeExpired(ctx); err != nil && ctx.Err() == nil {
		p.log.ErrorContext(ctx, "purge of expired rows failed", "error", err)
	}
	if err := p.dropDeadLetters(ctx); err != nil && ctx.Err() == nil {
		p.log.ErrorContext(ctx, "dropping expired dead letters failed", "error", err)
	}
}

// dropDeadLetters drops the dead letters that are due, and logs each: nothing else remembers it.
func (p *Purger) dropDeadLetters(ctx context.Context) error {
	for range dropRound / dropBatch {
		dropped, err := p.db.DeadLetters().DropExpired(ctx, p.keep, dropBatch)
		if err != nil {
			return err
		}
		for _, d := range dropped {
			p.log.WarnContext(ctx, "a dead letter was dropped without a replay: it waited longer than BACKPLANE_DEAD_LETTER_RETENTION",
				"id", d.ID, "consumer", d.Consumer, "event", d.EventID, "type", d.Type, "subject", d.SubjectID, "position", int64(d.Position),
				"failed_at", d.FailedAt, "code", d.Code)
		}
		p.dropped.Add(int64(len(dropped)))
		if len(dropped) < dropBatch {
			return nil
		}
		backoff.Sleep(ctx, dropPause)
	}
	return nil
}

func (p *Purger) register(s *admin.Server) {
	s.Register("backplane_dead_letters_dropped_total", func() float64 { return float64(p.dropped.Load()) })
}
