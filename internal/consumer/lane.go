package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
)

// lane works on the events of one subject, one after the other, until there are
// none; what is left when ctx ends stays undone.
func (s *shift) lane(ctx, work context.Context, subject string) {
	for {
		t := s.next(subject)
		if t == nil {
			return
		}
		if !s.do(ctx, work, t) {
			return
		}
		s.settle(t)
	}
}

// next takes the first task of the subject's queue; without one, the queue is gone.
func (s *shift) next(subject string) *task {
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

// settle notes that a task is done, and moves the mark.
func (s *shift) settle(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.letter != nil {
		delete(s.replays, t.letter.ID)
		return
	}
	t.entry.done = true
	for len(s.window) > 0 && s.window[0].done {
		s.window[0] = nil // the array lives on until append moves it
		s.window = s.window[1:]
	}
	s.room.Set()
}

// do works on a task to its end: the handler is done with it, or it is a letter.
// Ok is false if ctx ended before.
func (s *shift) do(ctx, work context.Context, t *task) (ok bool) {
	turn, ok := s.isTurn(ctx, t)
	switch {
	case !ok:
		return false
	case !turn && t.letter != nil: // a replay of it that ended; if it is asked for again, it comes again
		return true
	case !turn:
		return s.giveUp(ctx, t, Failure{})
	}
	failure, ok := s.try(ctx, work, t)
	switch {
	case !ok:
		return false
	case failure != nil:
		return s.giveUp(ctx, t, *failure)
	case t.letter != nil:
		return s.insist(ctx, "ending a replay failed", func(ctx context.Context) error { return s.desk.DeadLetters.CompleteReplay(ctx, t.letter) })
	}
	return true
}

// isTurn reports whether there is nothing of the task's subject that the handler
// must be done with before. Ok is false if ctx ended.
func (s *shift) isTurn(ctx context.Context, t *task) (turn, ok bool) {
	if t.letter == nil && !s.letters.Load() {
		return true, true
	}
	ok = s.insist(ctx, "looking for dead letters failed", func(ctx context.Context) (err error) {
		if t.letter != nil {
			turn, err = s.desk.DeadLetters.IsNext(ctx, t.letter)
			return err
		}
		waiting, err := s.desk.DeadLetters.HasPending(ctx, s.name, t.event.SubjectID)
		turn = !waiting
		return err
	})
	return turn, ok
}

// insist repeats what must be done until it is, each time within a moment; ok is
// false if ctx ended before or the lease is lost.
func (s *shift) insist(ctx context.Context, failed string, work func(context.Context) error) (ok bool) {
	for n := 1; ctx.Err() == nil; n++ {
		switch err := inTime(ctx, work); {
		case err == nil:
			return true
		case errors.Is(err, lease.ErrLost):
			s.lose(err)
		case ctx.Err() == nil:
			s.desk.Logger.WarnContext(ctx, failed, "error", err)
			backoff.Sleep(ctx, s.cfg.retryPolicy().Delay(n))
		}
	}
	return false
}

// dbTimeout bounds one statement about dead letters: a lost connection may never say so.
const dbTimeout = 5 * time.Second

func inTime(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, dbTimeout)
	defer cancel()
	return work(ctx)
}

// try calls the handler until it is done with the event or has failed too often.
func (s *shift) try(ctx, work context.Context, t *task) (f *Failure, ok bool) {
	outages := 0
	for attempt := 1; ; attempt++ {
		if !s.enter(ctx) {
			return nil, false
		}
		err := s.attempt(work, t.event)
		<-s.slots
		switch {
		case err == nil:
			return nil, true
		case errors.Is(err, lease.ErrLost):
			s.lose(err)
			return nil, false
		case ctx.Err() != nil:
			return nil, false
		case isOutage(err) || s.hung(err):
			outages++
			attempt--
			s.complain(ctx, t, err, outages)
			backoff.Sleep(ctx, s.cfg.retryPolicy().Delay(outages))
			continue
		case attempt == s.cfg.Attempts:
			failure := failureOf(err, attempt)
			return &failure, true
		}
		s.complain(ctx, t, err, attempt)
		backoff.Sleep(ctx, s.cfg.retryPolicy().Delay(attempt))
	}
}

// enter waits for the right to run a handler; ok is false if ctx ends before.
func (s *shift) enter(ctx context.Context) (ok bool) {
	select {
	case <-ctx.Done():
	case s.slots <- struct{}{}:
		if ctx.Err() == nil {
			return true
		}
		<-s.slots
	}
	return false
}

// isOutage reports whether an error says nothing about the event: the database
// is away, or another node's transaction has the event in its hands.
func isOutage(err error) bool {
	return fault.From(err).Kind() == fault.KindUnavailable || fault.Is(err, fault.IdempotencyInFlight)
}

// hung reports whether an attempt was out of time because the database gives no
// answer: it does not renew the lease either.
func (s *shift) hung(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) && s.held.Expired()
}

func (s *shift) complain(ctx context.Context, t *task, err error, attempt int) {
	s.desk.Logger.WarnContext(ctx, "working on an event failed; it is tried again",
		"event", t.event.ID, "type", t.event.Type, "subject", t.event.SubjectID, "attempt", attempt, "error", err)
}

// giveUp makes a task a dead letter, or a letter again.
func (s *shift) giveUp(ctx context.Context, t *task, f Failure) (ok bool) {
	if f.Attempts > 0 {
		s.desk.Logger.ErrorContext(ctx, "working on an event failed for good; it is a dead letter now",
			"event", t.event.ID, "type", t.event.Type, "subject", t.event.SubjectID, "attempts", f.Attempts, "error", f.Detail)
	}
	return s.insist(ctx, "making a dead letter failed", func(ctx context.Context) error {
		if t.letter == nil {
			return s.bury(ctx, t.event, f)
		}
		again := f
		again.Attempts += t.letter.Failure.Attempts
		return s.desk.DeadLetters.FailReplay(ctx, s.tenure, t.letter, again)
	})
}

func (s *shift) bury(ctx context.Context, e *event.Event, f Failure) error {
	s.burial.RLock()
	defer s.burial.RUnlock()
	err := s.desk.DeadLetters.Park(ctx, s.tenure, e, f)
	if errors.Is(err, ErrAlreadyHandled) {
		return nil
	}
	s.letters.Store(true) // also if the outcome is not known
	return err
}
