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

// eraseInterval is how often a node looks for erasures that are due.
const eraseInterval = time.Second

// eraseRetries is the pause after a failed piece of an erasure.
var eraseRetries = backoff.Policy{First: eraseInterval, Max: time.Minute}

// Eraser removes the personal data of deleted accounts, piece by piece. Any number of nodes may work on
// different accounts; an account is erased by one at a time.
type Eraser struct {
	db      *store.DB
	log     *slog.Logger
	pending atomic.Int64
	rows    atomic.Int64
}

// NewEraser returns an Eraser that does nothing until Run is called.
func NewEraser(env Env, db *store.DB) *Eraser { return &Eraser{db: db, log: env.Log} }

// Run implements Runner. A piece that fails is logged and tried again.
func (e *Eraser) Run(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		err := e.eraseDue(ctx)
		pause := eraseInterval
		if err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			failures++
			pause = eraseRetries.Delay(failures)
			e.log.ErrorContext(ctx, "the data of deleted accounts cannot be erased; retrying", "error", err)
		}
		backoff.Sleep(ctx, pause)
	}
	return nil
}

// eraseDue erases until nothing is due.
func (e *Eraser) eraseDue(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		done, err := e.db.EraseNext(ctx)
		if err != nil {
			return err
		}
		more = done.More
		e.rows.Add(int64(done.Rows))
	}
	now, err := e.db.Erasures(ctx, time.Time{})
	e.pending.Store(int64(now.Accounts))
	return err
}

func (e *Eraser) register(s *admin.Server) {
	s.Register("backplane_erasures_pending", func() float64 { return float64(e.pending.Load()) })
	s.Register("backplane_erased_rows_total", func() float64 { return float64(e.rows.Load()) })
}
