package securitylog

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/security"
)

const (
	appendBatch   = 250 // rows of one statement
	sweepInterval = 10 * time.Minute
	sweepBatch    = 1000 // rows of one transaction
	sweepBatches  = 100  // of one round; the next one goes on
	finalTimeout  = 5 * time.Second
)

// Recorder records the security events of this node. It is safe for concurrent use.
type Recorder struct {
	cfg     Config
	store   Store
	now     func() time.Time
	log     *slog.Logger
	queue   *queue
	counts  map[security.EventType]*atomic.Uint64 // of every type
	dropped atomic.Uint64
	failing bool // the last store failed, and that is logged; belongs to Run
}

// NewRecorder returns a Recorder that stores nothing until Run is called. now must not follow steps of the machine's clock.
func NewRecorder(store Store, now func() time.Time, log *slog.Logger, cfg Config) (*Recorder, error) {
	if store == nil || now == nil || log == nil {
		return nil, errors.New("security log: store, now and log are required")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Recorder{cfg: cfg, store: store, now: now, log: log, queue: newQueue(cfg), counts: map[security.EventType]*atomic.Uint64{}}
	for _, t := range security.EventTypes() {
		r.counts[t] = &atomic.Uint64{}
	}
	return r, nil
}

// Record records a failure or refusal. It neither blocks nor fails.
func (r *Recorder) Record(e security.Event) {
	r.count(e)
	r.logQueued(r.queue.add(e, r.now()))
}

// RecordError records the event that an error stands for which a caller is answered with, if any.
func (r *Recorder) RecordError(ctx context.Context, err error) {
	if e, ok := security.EventOf(ctx, err, r.now()); ok {
		r.Record(e)
	}
}

// Committed counts and logs events that a transaction has stored.
func (r *Recorder) Committed(events []security.Event) {
	for _, e := range events {
		r.count(e)
		r.logEvent(e)
	}
}

func (r *Recorder) count(e security.Event) {
	if n := r.counts[e.Type]; n != nil {
		n.Add(1)
	}
}

func (r *Recorder) logQueued(queued []security.Event) {
	for _, e := range queued {
		r.logEvent(e)
	}
}

func (r *Recorder) logEvent(e security.Event) {
	level := slog.LevelInfo
	if e.Type.IsRefusal() || e.Type == security.RefreshReused {
		level = slog.LevelWarn
	}
	ctx := requestlog.WithRequestID(context.Background(), e.RequestID)
	r.log.LogAttrs(ctx, level, "security event", slog.String("type", string(e.Type)), slog.String("user", string(e.UserID)),
		slog.String("session", string(e.SessionID)), slog.String("key", string(e.APIKeyID)), slog.String("actor", e.Actor),
		slog.String("address", e.Address), slog.String("user_agent", e.UserAgent), slog.String("detail", e.Detail), slog.Int("count", e.Count))
}

// Count returns how many events of the type this node has seen.
func (r *Recorder) Count(t security.EventType) uint64 { return r.counts[t].Load() }

// Dropped returns how many events could not be stored.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Pending returns how many rows wait to be stored.
func (r *Recorder) Pending() int { return r.queue.length() }

// Run stores what is queued every Interval, and removes what is older than Retention, until ctx is
// cancelled; then it stores the rest and returns nil. Rows that could not be stored are stored with the next
// ones.
func (r *Recorder) Run(ctx context.Context) error {
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		r.runSweeps(ctx)
	}()
	defer func() { <-swept }()
	stores := time.NewTicker(r.cfg.Interval)
	defer stores.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalTimeout)
			defer cancel()
			r.logQueued(r.queue.endAll())
			r.storeQueued(last)
			return nil
		case <-stores.C:
			r.logQueued(r.queue.end(r.now()))
			r.storeQueued(ctx)
		}
	}
}

// runSweeps sweeps at once and every sweepInterval until ctx is cancelled. It keeps no event from being stored.
func (r *Recorder) runSweeps(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		r.sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Recorder) storeQueued(ctx context.Context) {
	rows := r.queue.take()
	for len(rows) > 0 {
		n := min(len(rows), appendBatch)
		err := r.store.Append(ctx, rows[:n])
		switch {
		case err == nil:
			r.failing = false
		case fault.From(err).Kind() == fault.KindInternal:
			r.dropped.Add(sumCounts(rows[:n]))
			r.log.ErrorContext(ctx, "security events could not be stored and are lost", "rows", n, "error", err)
		default:
			r.dropped.Add(uint64(r.queue.putBack(rows))) //nolint:gosec // not negative
			if !r.failing {
				r.log.WarnContext(ctx, "security events cannot be stored; they wait in memory, and are lost if the process is killed", "rows", len(rows), "error", err)
			}
			r.failing = true
			return
		}
		rows = rows[n:]
	}
}

// sweep removes expired events. A failure is tried again in the next round.
func (r *Recorder) sweep(ctx context.Context) {
	for range sweepBatches {
		n, err := r.store.Sweep(ctx, r.cfg.Retention, sweepBatch)
		if err != nil && ctx.Err() == nil {
			r.log.ErrorContext(ctx, "removing expired security events failed", "error", err)
		}
		if err != nil || n < sweepBatch {
			return
		}
	}
}

func sumCounts(rows []security.Event) (n uint64) {
	for _, e := range rows {
		n += uint64(e.Count) //nolint:gosec // not negative
	}
	return n
}
