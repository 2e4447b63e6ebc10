package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// session runs a consumer under one lease: it reads the log into the in-flight window, and one
// goroutine per subject queue runs the handler.
type session struct {
	*Consumer
	held         *lease.Held
	lease        lease.Lease         // of held
	slots        *semaphore.Weighted // a permit for each running handler
	windowRoom   coalesce.Signal     // set when the window has room again
	queueWorkers sync.WaitGroup
	endSession   context.CancelCauseFunc

	parkMu         sync.RWMutex // held for reading while an event is parked
	mayHavePending atomic.Bool  // whether there may be pending dead letters; reset only under parkMu

	mu            sync.Mutex
	readUpTo      event.Position // the window has every matching event up to here
	window        []*windowEntry // in-flight window, in order; the first entry is not done
	queues        map[string][]*task
	queuedReplays map[uid.DeadLetter]bool // dead letters that are in a queue
}

// windowEntry is an event above the low watermark.
type windowEntry struct {
	position event.Position
	done     bool
}

// task is an event to handle: one from the log, or the replay of a dead letter.
type task struct {
	event      *event.Event
	entry      *windowEntry // nil for a replay
	deadLetter *DeadLetter  // nil for an event from the log
}

func newSession(c *Consumer, held *lease.Held) *session {
	t := held.Lease()
	s := &session{
		Consumer: c, held: held, lease: t, readUpTo: t.Position,
		slots: semaphore.NewWeighted(int64(c.cfg.Parallel)), windowRoom: coalesce.NewSignal(),
		queues: map[string][]*task{}, queuedReplays: map[uid.DeadLetter]bool{},
	}
	s.mayHavePending.Store(true) // until refreshPending has asked
	return s
}

// run handles events until ctx ends, then releases the lease. It returns lease.ErrLost if
// the lease is lost. All its goroutines have ended when it returns.
func (s *session) run(ctx context.Context) error {
	ctx, s.endSession = context.WithCancelCause(ctx)
	defer s.endSession(nil)
	work, abort := context.WithCancel(context.WithoutCancel(ctx)) // handlers may outlive ctx by DrainTimeout
	defer abort()
	var reader sync.WaitGroup
	reader.Go(func() {
		if err := s.readLog(ctx, work); err != nil {
			s.endSession(err)
		}
	})
	tick := time.NewTicker(s.cfg.TTL / 3)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			s.renewAndReplay(ctx, work)
		}
	}
	reader.Wait()
	s.drainHandlers(ctx, abort)
	return s.releaseLease(ctx)
}

// renewAndReplay renews the lease, saves the low watermark as the offset, and enqueues
// requested replays.
func (s *session) renewAndReplay(ctx, work context.Context) {
	switch err := s.held.Renew(ctx, s.lowWatermark()); {
	case errors.Is(err, lease.ErrLost):
		s.endSession(err)
		return
	case err != nil && ctx.Err() == nil:
		s.deps.Logger.WarnContext(ctx, "saving the offset of a consumer failed; it is retried until the lease expires", "error", err)
		return
	}
	if err := s.enqueueReplays(ctx, work); err != nil && ctx.Err() == nil {
		s.deps.Logger.WarnContext(ctx, "looking for requested replays failed; it is retried", "error", err)
	}
}

// lowWatermark returns the position up to which every event is handled or parked.
func (s *session) lowWatermark() event.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.window) > 0 {
		return s.window[0].position - 1
	}
	return s.readUpTo
}

// drainHandlers waits DrainTimeout for running handlers, then cancels them.
func (s *session) drainHandlers(ctx context.Context, abort func()) {
	if errors.Is(context.Cause(ctx), lease.ErrLost) {
		abort() // fencing would refuse their transactions
	}
	timer := time.AfterFunc(s.cfg.DrainTimeout, abort)
	defer timer.Stop()
	s.queueWorkers.Wait()
}

// releaseLease saves the offset a last time and releases the lease.
func (s *session) releaseLease(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, lease.ErrLost) {
		return err
	}
	if err := s.held.ReleaseAt(ctx, s.lowWatermark()); err != nil && !errors.Is(err, lease.ErrLost) {
		s.deps.Logger.WarnContext(ctx, "releasing the lease of a consumer failed; it expires by itself", "error", err)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// readLog reads events from the log while the window has room.
func (s *session) readLog(ctx, work context.Context) error {
	sub, err := s.subscribeToLog(ctx)
	if err != nil {
		return err
	}
	defer sub.Close()
	for s.awaitWindowRoom(ctx) {
		events, _, err := sub.Poll(ctx, time.After(s.cfg.TTL/3)) // the offset also moves if no event matches
		switch {
		case ctx.Err() != nil:
			return nil
		case fault.Is(err, fault.CursorExpired) || fault.Is(err, fault.CursorUnknown):
			return err // restart from the saved offset
		case err != nil:
			s.deps.Logger.WarnContext(ctx, "event log cannot be read; retrying", "error", err)
			backoff.Sleep(ctx, backoff.Jitter(s.cfg.AcquireInterval))
			continue
		}
		s.addToWindow(ctx, work, events, sub.Cursor().Position)
	}
	return nil
}

// subscribeToLog follows the log from the saved offset, or from the oldest event if
// retention has removed events after the offset.
func (s *session) subscribeToLog(ctx context.Context) (*eventlog.Subscription, error) {
	for {
		state, err := s.deps.Hub.Log().State(ctx)
		if err != nil {
			return nil, err
		}
		s.skipRemovedEvents(ctx, state)
		sub, err := s.deps.Hub.Subscribe(ctx, &event.Cursor{Timeline: state.Timeline, Position: s.readUpTo}, event.Filter{Types: s.cfg.Types})
		if !fault.Is(err, fault.CursorExpired) {
			return sub, err
		}
	}
}

// skipRemovedEvents moves readUpTo to where the log has events, and logs which are lost.
func (s *session) skipRemovedEvents(ctx context.Context, state eventlog.State) {
	to := min(max(s.readUpTo, state.Oldest-1), state.Head)
	if to == s.readUpTo {
		return
	}
	if s.lease.Epoch > 1 { // else the consumer is new
		s.deps.Logger.ErrorContext(ctx, "retention removed events before the consumer read them; it skips them", "after", int64(s.readUpTo), "upto", int64(to))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readUpTo = to
}

// awaitWindowRoom waits until the window has room; ok is false if ctx ends first.
func (s *session) awaitWindowRoom(ctx context.Context) (ok bool) {
	for {
		s.mu.Lock()
		full := len(s.window) >= s.cfg.Window
		s.mu.Unlock()
		if !full || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-s.windowRoom:
		}
	}
}

// addToWindow adds events to the window; seen is the position up to which the log was read.
func (s *session) addToWindow(ctx, work context.Context, events []*event.Event, seen event.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		t := &task{event: e, entry: &windowEntry{position: e.Cursor.Position}}
		s.window = append(s.window, t.entry)
		s.enqueueTask(ctx, work, t)
	}
	s.readUpTo = seen
}

// enqueueTask appends a task to its subject's queue. The caller holds mu.
func (s *session) enqueueTask(ctx, work context.Context, t *task) {
	subject := t.event.SubjectID
	queue, busy := s.queues[subject]
	s.queues[subject] = append(queue, t)
	if !busy {
		s.queueWorkers.Go(func() { s.runSubjectQueue(ctx, work, subject) })
	}
}

// enqueueReplays adds dead letters with a requested replay to the subject queues.
func (s *session) enqueueReplays(ctx, work context.Context) error {
	if !s.mayHavePending.Load() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.TTL/3) // the next renewal is due then
	defer cancel()
	found, err := s.deps.DeadLetters.ListRequested(limited, s.name, s.cfg.Window)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, l := range found {
		if !s.queuedReplays[l.ID] {
			s.queuedReplays[l.ID] = true
			s.enqueueTask(ctx, work, &task{event: l.Event, deadLetter: l})
		}
	}
	s.mu.Unlock()
	if len(found) > 0 {
		return nil
	}
	return s.refreshPending(limited)
}

// refreshPending asks whether dead letters are pending, or skips that while an event is being
// parked: the renewal of the lease must not wait for it.
func (s *session) refreshPending(ctx context.Context) error {
	if !s.parkMu.TryLock() {
		return nil
	}
	defer s.parkMu.Unlock()
	waiting, err := s.deps.DeadLetters.HasPending(ctx, s.name, "")
	if err == nil {
		s.mayHavePending.Store(waiting)
	}
	return err
}

// retryPolicy is the pause between attempts of one event.
func (c Config) retryPolicy() backoff.Policy {
	return backoff.Policy{First: c.Backoff, Max: c.MaxBackoff}
}

// callHandler calls the handler once.
func (s *session) callHandler(work context.Context, e *event.Event) (err error) {
	ctx, cancel := context.WithTimeout(work, s.cfg.AttemptTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the handler of consumer %s panicked: %v", s.name, r)
		}
	}()
	err = s.handle(ctx, claim.Delivery{Lease: s.lease, Event: e.ID, Position: e.Cursor.Position}, e)
	if errors.Is(err, claim.ErrAlreadyHandled) {
		return nil
	}
	return err
}
