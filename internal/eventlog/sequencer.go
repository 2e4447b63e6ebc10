package eventlog

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// PositionStore assigns positions in the database. Each method is one autocommitted statement,
// and time is the database's.
type PositionStore interface {
	// Acquire acquires the lease for ttl if it is free, has expired or is the owner's own; ok
	// is false while another owner holds it.
	Acquire(ctx context.Context, owner string, ttl time.Duration) (l lease.Lease, ok bool, err error)
	// AssignPositions assigns the next positions to committed events that have none, at most
	// limit of them, in the order in which they were inserted, and renews the lease. It
	// returns how many and the renewed lease, or lease.ErrLost if owner, epoch, expiry or head
	// in the database differ from the lease (fencing).
	AssignPositions(ctx context.Context, l lease.Lease, ttl time.Duration, limit int) (int, lease.Lease, error)
	// Release releases the lease, if it is still held.
	Release(ctx context.Context, l lease.Lease) error
	// EventAt returns the ID of the event at a position, empty if there is none.
	EventAt(ctx context.Context, p event.Position) (uid.Event, error)
	// AbandonTimeline begins another timeline, if the log still has this one: events of it that
	// were read are no longer there. No cursor or lease of before is good any more.
	AbandonTimeline(ctx context.Context, timeline string) error
	// VerifyPlace compares where the log is with where it was when a node last looked. It begins another
	// timeline if the database is a copy that was restored, or a server that was promoted while no node looked; verified says
	// that the caller has read events of before and found them unchanged, so that a promotion has lost none. It is
	// done, or must be called again: another node may know more.
	VerifyPlace(ctx context.Context, verified bool) (done bool, err error)
	// Epoch returns a number that grows when the database may be another server.
	Epoch() int64
}

// SequencerConfig tunes a Sequencer. The zero value is ready to use.
type SequencerConfig struct {
	TTL   time.Duration // after which another node takes over; default 3 s. A statement that takes half of it is given up
	Idle  time.Duration // how often a quiet sequencer renews its lease and looks for work; default 1 s
	Batch int           // events per statement; default 2000
}

// Sequencer assigns positions to events, on one node at a time: the owner of the lease.
//
// An event gets its identity inside its transaction, after its subject's row was
// locked, and its position after the commit. The assigning statement sees committed events
// alone, and takes them by identity. So events of one subject, and events of which one
// happened before the other, keep their order; a transaction that commits late gets its
// positions late, whatever its identity, and blocks no other.
//
// An owner that froze and resumes cannot assign positions once another has acquired the
// lease: the statement locks the lease and compares owner, epoch (the fencing token), expiry
// and head. Comparing the head also fences off a statement of its own that has timed out.
type Sequencer struct {
	store    PositionStore
	announce func(event.Position)
	verify   func(ctx context.Context, head, known event.Position) error // may be nil; called with the head of the log before positions behind it are assigned
	log      *slog.Logger
	cfg      SequencerConfig
	owner    string

	lease    lease.Lease // while this node owns it
	leading  atomic.Bool
	wake     coalesce.Signal
	failures int // in a row
}

// NewSequencer returns a Sequencer that does nothing until Run is called. It
// calls announce with the head after each batch; announce must be quick.
func NewSequencer(n PositionStore, announce func(event.Position), log *slog.Logger, cfg SequencerConfig) (*Sequencer, error) {
	if cfg.TTL < 0 || cfg.Idle < 0 || cfg.Batch < 0 {
		return nil, fmt.Errorf("sequencer config: negative value in %+v", cfg)
	}
	cfg.TTL = cmp.Or(cfg.TTL, 3*time.Second)
	cfg.Idle = cmp.Or(cfg.Idle, time.Second)
	cfg.Batch = cmp.Or(cfg.Batch, 2000)
	if cfg.Idle >= cfg.TTL {
		return nil, fmt.Errorf("sequencer config: Idle (%v) must be shorter than TTL (%v), or the lease expires between two renewals", cfg.Idle, cfg.TTL)
	}
	return &Sequencer{store: n, announce: announce, log: log, cfg: cfg, owner: rand.Text(), wake: coalesce.NewSignal()}, nil
}

// Wake notifies the sequencer that events wait for positions. It never blocks; many calls are one.
func (s *Sequencer) Wake() { s.wake.Set() }

// Leading reports whether this sequencer owned the lease at its last statement.
func (s *Sequencer) Leading() bool { return s.leading.Load() }

// Run assigns positions, or waits for the lease, until ctx is cancelled. It then releases the
// lease, so that another node takes over at once.
func (s *Sequencer) Run(ctx context.Context) error {
	defer s.releaseLease(ctx)
	for ctx.Err() == nil {
		more, err := s.assignBatch(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "sequencer cannot assign positions; retrying", "error", err)
			s.failures++
			s.awaitWork(ctx, retryPolicy(s.cfg.Idle).Delay(s.failures))
		} else if !more {
			s.awaitWork(ctx, s.cfg.Idle)
		}
	}
	return nil
}

// assignBatch acquires the lease, or assigns positions to one batch; more says that events may
// still wait.
func (s *Sequencer) assignBatch(ctx context.Context) (more bool, err error) {
	if !s.leading.Load() {
		return s.acquireLease(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TTL/2)
	defer cancel()
	limit := ShrinkBatch(s.cfg.Batch, s.failures)
	n, next, err := s.store.AssignPositions(ctx, s.lease, s.cfg.TTL, limit)
	if err != nil {
		s.leading.Store(false) // also if the outcome of the statement is unknown
		if errors.Is(err, lease.ErrLost) {
			s.log.WarnContext(ctx, "sequencer stopped: another node owns its lease", "epoch", s.lease.Epoch)
			err = nil
		}
		return false, err
	}
	s.lease, s.failures = next, 0
	if n > 0 {
		s.announce(next.Position)
	}
	return n == limit, nil
}

func (s *Sequencer) acquireLease(ctx context.Context) (taken bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TTL/2)
	defer cancel()
	l, ok, err := s.store.Acquire(ctx, s.owner, s.cfg.TTL)
	if err == nil && !ok {
		s.failures = 0
	}
	if err != nil || !ok {
		return false, err
	}
	if s.verify != nil {
		if err := s.verify(ctx, l.Position, s.lease.Position); err != nil {
			return false, err
		}
	}
	s.log.InfoContext(ctx, "sequencer started", "epoch", l.Epoch, "head", int64(l.Position))
	s.lease = l
	s.leading.Store(true)
	s.announce(l.Position)
	return true, nil
}

// awaitWork waits for a wake-up, at most for the limit. Only the owner of the lease is woken: the
// other nodes would all try to acquire it with every event.
func (s *Sequencer) awaitWork(ctx context.Context, limit time.Duration) {
	wake := s.wake
	if !s.leading.Load() {
		wake = nil
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// releaseTime bounds how long a stopping node waits to release the lease.
const releaseTime = time.Second

func (s *Sequencer) releaseLease(ctx context.Context) {
	if !s.leading.Swap(false) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if err := s.store.Release(ctx, s.lease); err != nil {
		s.log.WarnContext(ctx, "the sequencer's lease was not released; it will expire", "error", err)
	}
}
