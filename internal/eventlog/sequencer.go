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
)

// PositionStore gives positions in the database. Each method is one statement that
// commits by itself, and time is the database's.
type PositionStore interface {
	// Acquire takes the lease for ttl if it is free, has expired or is the holder's
	// own; ok is false if somebody else has it.
	Acquire(ctx context.Context, holder string, ttl time.Duration) (l lease.Lease, ok bool, err error)
	// AssignPositions gives the next positions to committed events that have none, at most
	// limit of them, in the order in which they were inserted, and renews the
	// lease. It returns how many and the lease as it is then, or ErrLeaseLost if
	// the lease is not, to the last detail, the one in the database.
	AssignPositions(ctx context.Context, l lease.Lease, ttl time.Duration, limit int) (int, lease.Lease, error)
	// Release gives up the lease, if it is still held.
	Release(ctx context.Context, l lease.Lease) error
}

// SequencerConfig tunes a Sequencer. The zero value is ready to use.
type SequencerConfig struct {
	TTL   time.Duration // after which another node takes over; default 3 s. A statement that takes half of it is given up
	Idle  time.Duration // how often a quiet sequencer renews its lease and looks for work; default 1 s
	Batch int           // events per statement; default 2000
}

// Sequencer numbers events, on one node at a time: whoever holds the lease.
//
// An event gets its identity inside its transaction, after its subject's row was
// locked, and its position after the commit. Numbering takes what a statement
// sees, which is what is committed, by identity. So events of one subject, and
// events of which one happened before the other, keep their order; what commits
// late is numbered late, whatever its identity, and holds up nobody.
//
// A holder that froze and goes on cannot number once another has taken over:
// the statement that numbers locks the lease and compares holder, epoch, expiry
// and head. Comparing the head also shuts out a statement of its own that it has
// given up waiting for.
type Sequencer struct {
	numbering PositionStore
	announce  func(event.Position)
	log       *slog.Logger
	cfg       SequencerConfig
	holder    string

	lease    lease.Lease // while it leads
	leading  atomic.Bool
	wake     coalesce.Signal
	failures int // since it last numbered, or saw that another does
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
	return &Sequencer{numbering: n, announce: announce, log: log, cfg: cfg, holder: rand.Text(), wake: coalesce.NewSignal()}, nil
}

// Wake tells the sequencer that events wait. It never blocks; many calls are one.
func (s *Sequencer) Wake() { s.wake.Set() }

// Leading reports whether this sequencer held the lease when it last looked.
func (s *Sequencer) Leading() bool { return s.leading.Load() }

// Run numbers events, or waits for the lease, until ctx is cancelled. It then
// gives the lease up, so that another node goes on at once.
func (s *Sequencer) Run(ctx context.Context) error {
	defer s.release(ctx)
	for ctx.Err() == nil {
		more, err := s.round(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "numbering failed", "error", err)
			s.failures++
			s.rest(ctx, retryPolicy(s.cfg.Idle).Delay(s.failures))
		} else if !more {
			s.rest(ctx, s.cfg.Idle)
		}
	}
	return nil
}

// round takes the lease or uses it; more says that events may still wait.
func (s *Sequencer) round(ctx context.Context) (more bool, err error) {
	if !s.leading.Load() {
		return s.take(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TTL/2)
	defer cancel()
	limit := ShrinkBatch(s.cfg.Batch, s.failures)
	n, next, err := s.numbering.AssignPositions(ctx, s.lease, s.cfg.TTL, limit)
	if err != nil {
		s.leading.Store(false) // also if it is not known what became of the statement
		if errors.Is(err, lease.ErrLost) {
			s.log.WarnContext(ctx, "another node numbers events now", "epoch", s.lease.Epoch)
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

func (s *Sequencer) take(ctx context.Context) (taken bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TTL/2)
	defer cancel()
	l, ok, err := s.numbering.Acquire(ctx, s.holder, s.cfg.TTL)
	if err == nil && !ok {
		s.failures = 0
	}
	if err != nil || !ok {
		return false, err
	}
	s.log.InfoContext(ctx, "this node numbers events", "epoch", l.Epoch, "head", int64(l.Position))
	s.lease = l
	s.leading.Store(true)
	s.announce(l.Position)
	return true, nil
}

// rest waits until it is time to look again, for a time at most. Only who leads is woken: others
// would all ask for the lease with every event.
func (s *Sequencer) rest(ctx context.Context, limit time.Duration) {
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

// releaseTime bounds how long a node that stops waits to give up the lease.
const releaseTime = time.Second

func (s *Sequencer) release(ctx context.Context) {
	if !s.leading.Swap(false) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if err := s.numbering.Release(ctx, s.lease); err != nil {
		s.log.WarnContext(ctx, "the sequencer's lease was not given up; it will expire", "error", err)
	}
}
