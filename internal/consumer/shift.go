package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// shift is the work of a consumer under one tenure.
type shift struct {
	*Consumer
	held   *lease.Held
	tenure lease.Lease     // of held
	slots  chan struct{}   // a token for each handler at work
	room   coalesce.Signal // a token when the window has room again
	lanes  sync.WaitGroup
	lose   context.CancelCauseFunc

	burial  sync.RWMutex // held for reading while a letter is made
	letters atomic.Bool  // whether there may be any; becomes false only while none is made

	mu      sync.Mutex
	seen    event.Position // all up to here is in the window or not wanted
	window  []*entry       // in order; the first is not done
	queues  map[string][]*task
	replays map[uid.DeadLetter]bool // letters that are in a queue
}

// entry is an event above the mark.
type entry struct {
	position event.Position
	done     bool
}

// task is an event to work on: a new one, or one of a letter.
type task struct {
	event  *event.Event
	entry  *entry      // of a new event
	letter *DeadLetter // of an old one
}

func newShift(c *Consumer, held *lease.Held) *shift {
	t := held.Lease()
	s := &shift{
		Consumer: c, held: held, tenure: t, seen: t.Position,
		slots: make(chan struct{}, c.cfg.Parallel), room: coalesce.NewSignal(),
		queues: map[string][]*task{}, replays: map[uid.DeadLetter]bool{},
	}
	s.letters.Store(true) // until it is known
	return s
}

// run works until ctx ends, when it gives the lease up, or until the lease is
// lost: ErrLeaseLost. Nothing of it is left when it returns.
func (s *shift) run(ctx context.Context) error {
	ctx, s.lose = context.WithCancelCause(ctx)
	defer s.lose(nil)
	work, abort := context.WithCancel(context.WithoutCancel(ctx)) // handlers outlive ctx for a while
	defer abort()
	var reader sync.WaitGroup
	reader.Go(func() {
		if err := s.read(ctx, work); err != nil {
			s.lose(err)
		}
	})
	tick := time.NewTicker(s.cfg.TTL / 3)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			s.keep(ctx, work)
		}
	}
	reader.Wait()
	s.drain(ctx, abort)
	return s.close(ctx)
}

// keep saves the place, which renews the lease, and takes up replays.
func (s *shift) keep(ctx, work context.Context) {
	switch err := s.held.Renew(ctx, s.mark()); {
	case errors.Is(err, lease.ErrLost):
		s.lose(err)
		return
	case err != nil && ctx.Err() == nil:
		s.desk.Logger.WarnContext(ctx, "saving the place of a consumer failed", "error", err)
		return
	}
	if err := s.takeReplays(ctx, work); err != nil && ctx.Err() == nil {
		s.desk.Logger.WarnContext(ctx, "looking for replays failed", "error", err)
	}
}

// mark returns the place below which all is done.
func (s *shift) mark() event.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.window) > 0 {
		return s.window[0].position - 1
	}
	return s.seen
}

// drain waits for the handlers at work, for a while; then it stops them.
func (s *shift) drain(ctx context.Context, abort func()) {
	if errors.Is(context.Cause(ctx), lease.ErrLost) {
		abort() // what they do would not count
	}
	timer := time.AfterFunc(s.cfg.StopTime, abort)
	defer timer.Stop()
	s.lanes.Wait()
}

// close saves the place for the last time and gives the lease up.
func (s *shift) close(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, lease.ErrLost) {
		return err
	}
	if err := s.held.ReleaseAt(ctx, s.mark()); err != nil && !errors.Is(err, lease.ErrLost) {
		s.desk.Logger.WarnContext(ctx, "the lease of a consumer was not given up; it will expire", "error", err)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// read takes events from the log as long as the window has room.
func (s *shift) read(ctx, work context.Context) error {
	sub, err := s.subscribe(ctx)
	if err != nil {
		return err
	}
	defer sub.Close()
	for s.awaitRoom(ctx) {
		events, _, err := sub.Poll(ctx, time.After(s.cfg.TTL/3)) // the place moves on also if nothing is wanted
		switch {
		case ctx.Err() != nil:
			return nil
		case fault.Is(err, fault.CursorExpired) || fault.Is(err, fault.CursorUnknown):
			return err // begin anew, from the place that is saved
		case err != nil:
			s.desk.Logger.WarnContext(ctx, "reading the event log failed", "error", err)
			backoff.Sleep(ctx, backoff.Jitter(s.cfg.Retake))
			continue
		}
		s.push(ctx, work, events, sub.Cursor().Position)
	}
	return nil
}

// subscribe follows the log from the tenure's place, or from the oldest event on
// if some behind the place are not kept any more.
func (s *shift) subscribe(ctx context.Context) (*eventlog.Subscription, error) {
	for {
		state, err := s.desk.Hub.Log().State(ctx)
		if err != nil {
			return nil, err
		}
		s.skip(ctx, state)
		sub, err := s.desk.Hub.Subscribe(ctx, &event.Cursor{Timeline: state.Timeline, Position: s.seen}, event.Filter{Types: s.cfg.Types})
		if !fault.Is(err, fault.CursorExpired) {
			return sub, err
		}
	}
}

// skip moves the place to where the log has events, and says what is lost.
func (s *shift) skip(ctx context.Context, state eventlog.State) {
	to := min(max(s.seen, state.Oldest-1), state.Head)
	if to == s.seen {
		return
	}
	if s.tenure.Epoch > 1 { // else it has never read any
		s.desk.Logger.ErrorContext(ctx, "events that a consumer had not read are not in the log any more", "after", int64(s.seen), "upto", int64(to))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = to
}

// awaitRoom waits until the window has room; ok is false if ctx ends before.
func (s *shift) awaitRoom(ctx context.Context) (ok bool) {
	for {
		s.mu.Lock()
		full := len(s.window) >= s.cfg.Window
		s.mu.Unlock()
		if !full || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-s.room:
		}
	}
}

// push takes events into the window; all up to seen is in it then, or not wanted.
func (s *shift) push(ctx, work context.Context, events []*event.Event, seen event.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		t := &task{event: e, entry: &entry{position: e.Cursor.Position}}
		s.window = append(s.window, t.entry)
		s.enqueue(ctx, work, t)
	}
	s.seen = seen
}

// enqueue puts a task behind the others of its subject. The caller holds mu.
func (s *shift) enqueue(ctx, work context.Context, t *task) {
	subject := t.event.SubjectID
	queue, busy := s.queues[subject]
	s.queues[subject] = append(queue, t)
	if !busy {
		s.lanes.Go(func() { s.lane(ctx, work, subject) })
	}
}

// takeReplays puts letters that are to be replayed into the queues.
func (s *shift) takeReplays(ctx, work context.Context) error {
	if !s.letters.Load() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.TTL/3) // then it is time to renew again
	defer cancel()
	found, err := s.desk.DeadLetters.ListRequested(limited, s.name, s.cfg.Window)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, l := range found {
		if !s.replays[l.ID] {
			s.replays[l.ID] = true
			s.enqueue(ctx, work, &task{event: l.Event, letter: l})
		}
	}
	s.mu.Unlock()
	if len(found) > 0 {
		return nil
	}
	return s.recount(limited)
}

// recount finds out whether there still are letters, or leaves it for later if one
// is being made: who renews the lease must not wait for that.
func (s *shift) recount(ctx context.Context) error {
	if !s.burial.TryLock() {
		return nil
	}
	defer s.burial.Unlock()
	waiting, err := s.desk.DeadLetters.HasPending(ctx, s.name, "")
	if err == nil {
		s.letters.Store(waiting)
	}
	return err
}

// retryPolicy is the pause between attempts of one event.
func (c ConsumerConfig) retryPolicy() backoff.Policy {
	return backoff.Policy{First: c.Backoff, Max: c.MaxPause}
}

// attempt calls the handler once.
func (s *shift) attempt(work context.Context, e *event.Event) (err error) {
	ctx, cancel := context.WithTimeout(work, s.cfg.TryTime)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the handler of consumer %s panicked: %v", s.name, r)
		}
	}()
	err = s.handle(WithDelivery(ctx, Delivery{s.tenure, e.ID, e.Cursor.Position}), e)
	if errors.Is(err, ErrAlreadyHandled) {
		return nil
	}
	return err
}
