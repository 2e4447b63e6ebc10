package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
)

// runSubjectQueue processes the tasks of one subject in order until its queue is empty. When
// ctx ends it leaves the rest.
func (s *session) runSubjectQueue(ctx, work context.Context, subject string) {
	for {
		t := s.dequeueTask(subject)
		if t == nil {
			return
		}
		if !s.processTask(ctx, work, t) {
			return
		}
		s.finishTask(t)
	}
}

// dequeueTask takes the first task of the subject's queue, and deletes an empty queue.
func (s *session) dequeueTask(subject string) *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	queue := s.queues[subject]
	if len(queue) == 0 {
		delete(s.queues, subject)
		return nil
	}
	s.queues[subject] = queue[1:]
	return queue[0]
}

// finishTask marks a task as done, and moves the low watermark.
func (s *session) finishTask(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.deadLetter != nil {
		delete(s.queuedReplays, t.deadLetter.ID)
		return
	}
	t.entry.done = true
	for len(s.window) > 0 && s.window[0].done {
		s.window[0] = nil // the array lives on until append moves it
		s.window = s.window[1:]
	}
	s.windowRoom.Set()
}

// processTask handles a task or parks it. ok is false if ctx ended first.
func (s *session) processTask(ctx, work context.Context, t *task) (ok bool) {
	next, ok := s.isTaskNext(ctx, t)
	switch {
	case !ok:
		return false
	case !next && t.deadLetter != nil: // its replay has ended; a new request enqueues it again
		return true
	case !next:
		return s.parkTask(ctx, t, Failure{})
	}
	failure, ok := s.handleWithRetries(ctx, work, t)
	switch {
	case !ok:
		return false
	case failure != nil:
		return s.parkTask(ctx, t, *failure)
	case t.deadLetter != nil:
		return s.retryUntilDone(ctx, "completing a replay failed; it is retried", func(ctx context.Context) error { return s.deps.DeadLetters.CompleteReplay(ctx, t.deadLetter) })
	}
	return true
}

// isTaskNext reports whether no dead letter of the task's subject comes before it. ok is
// false if ctx ended.
func (s *session) isTaskNext(ctx context.Context, t *task) (next, ok bool) {
	if t.deadLetter == nil && !s.mayHavePending.Load() {
		return true, true
	}
	ok = s.retryUntilDone(ctx, "looking for dead letters failed; it is retried", func(ctx context.Context) (err error) {
		if t.deadLetter != nil {
			next, err = s.deps.DeadLetters.IsNext(ctx, t.deadLetter)
			return err
		}
		waiting, err := s.deps.DeadLetters.HasPending(ctx, s.name, t.event.SubjectID)
		next = !waiting
		return err
	})
	return next, ok
}

// retryUntilDone retries work, each time within dbTimeout, until it succeeds; ok is false if
// ctx ended first or the lease is lost.
func (s *session) retryUntilDone(ctx context.Context, failed string, work func(context.Context) error) (ok bool) {
	for n := 1; ctx.Err() == nil; n++ {
		switch err := runWithTimeout(ctx, work); {
		case err == nil:
			return true
		case errors.Is(err, lease.ErrLost):
			s.endSession(err)
		case ctx.Err() == nil:
			s.deps.Logger.WarnContext(ctx, failed, "error", err)
			backoff.Sleep(ctx, s.cfg.retryPolicy().Delay(n))
		}
	}
	return false
}

// dbTimeout bounds one statement about dead letters: a dead connection may report no error.
const dbTimeout = 5 * time.Second

func runWithTimeout(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, dbTimeout)
	defer cancel()
	return work(ctx)
}

// handleWithRetries calls the handler until it succeeds or has exhausted its attempts.
func (s *session) handleWithRetries(ctx, work context.Context, t *task) (f *Failure, ok bool) {
	outages := 0
	for attempt := 1; ; attempt++ {
		if s.slots.Acquire(ctx, 1) != nil {
			return nil, false
		}
		err := s.callHandler(work, t.event)
		s.slots.Release(1)
		switch {
		case err == nil:
			return nil, true
		case errors.Is(err, lease.ErrLost):
			s.endSession(err)
			return nil, false
		case ctx.Err() != nil:
			return nil, false
		case isOutage(err) || s.isDatabaseHung(err):
			outages++
			attempt--
			s.logRetry(ctx, t, err, outages)
			backoff.Sleep(ctx, s.cfg.retryPolicy().Delay(outages))
			continue
		case attempt == s.cfg.Attempts:
			failure := newFailure(err, attempt)
			return &failure, true
		}
		s.logRetry(ctx, t, err, attempt)
		backoff.Sleep(ctx, s.cfg.retryPolicy().Delay(attempt))
	}
}

// isOutage reports whether an error is not caused by the event: the database
// is unavailable, or another node's transaction holds the claim.
func isOutage(err error) bool {
	return fault.From(err).Kind() == fault.KindUnavailable || fault.Is(err, fault.IdempotencyInFlight)
}

// isDatabaseHung reports whether an attempt timed out because the database does not
// answer: then the lease was not renewed either.
func (s *session) isDatabaseHung(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) && s.held.Expired()
}

func (s *session) logRetry(ctx context.Context, t *task, err error, attempt int) {
	s.deps.Logger.WarnContext(ctx, "handling an event failed; it is retried",
		"event", t.event.ID, "type", t.event.Type, "subject", t.event.SubjectID, "attempt", attempt, "error", err)
}

// parkTask parks the event of a new task, or fails the replay of a dead letter.
func (s *session) parkTask(ctx context.Context, t *task, f Failure) (ok bool) {
	if f.Attempts > 0 {
		s.deps.Logger.ErrorContext(ctx, "handling an event failed; it is parked as a dead letter until an operator replays it",
			"event", t.event.ID, "type", t.event.Type, "subject", t.event.SubjectID, "attempts", f.Attempts, "error", f.Detail)
	}
	return s.retryUntilDone(ctx, "parking a dead letter failed; it is retried", func(ctx context.Context) error {
		if t.deadLetter == nil {
			return s.parkEvent(ctx, t.event, f)
		}
		again := f
		again.Attempts += t.deadLetter.Failure.Attempts
		return s.deps.DeadLetters.FailReplay(ctx, s.lease, t.deadLetter, again)
	})
}

func (s *session) parkEvent(ctx context.Context, e *event.Event, f Failure) error {
	s.parkMu.RLock()
	defer s.parkMu.RUnlock()
	err := s.deps.DeadLetters.Park(ctx, s.lease, e, f)
	if errors.Is(err, claim.ErrAlreadyHandled) {
		return nil
	}
	s.mayHavePending.Store(true) // also if the outcome is unknown
	return err
}
