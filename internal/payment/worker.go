package payment

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// WorkerConfig tunes a Worker. The zero value is ready to use.
type WorkerConfig struct {
	Parallel int                         // calls of the provider at once; default 16
	Timeout  time.Duration               // of one call; default 10 s
	Writers  int                         // outcomes that are stored at once; default 2: callers that place orders write, too
	Interval time.Duration               // between looks for what is due; default 1 s
	Timing   Timing                      // default DefaultTiming
	Stuck    time.Duration               // a payment that has been due for so long stands still; default 5 min
	Elapsed  func() func() time.Duration // starts a stopwatch; default none
}

func (c WorkerConfig) withDefaults() WorkerConfig {
	if c.Parallel == 0 {
		c.Parallel = 16
	}
	if c.Writers == 0 {
		c.Writers = 2
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Timing == (Timing{}) {
		c.Timing = DefaultTiming()
	}
	if c.Stuck == 0 {
		c.Stuck = 5 * time.Minute
	}
	if c.Elapsed == nil {
		c.Elapsed = func() func() time.Duration { return func() time.Duration { return 0 } }
	}
	return c
}

// lease is how long a worker holds a payment: for two calls, to ask and to send again, and to store the result.
func (c WorkerConfig) lease() time.Duration { return 3 * c.Timeout }

// Availability is a Provider that knows whether it can be called at all. While it cannot, payments wait unclaimed, so that their orders can be
// cancelled.
type Availability interface {
	// Available reports whether there is an instance to call. It does no I/O.
	Available() bool
}

// Worker calls the provider for the payments that are due. Any number of nodes run one; a payment is claimed by one
// at a time.
type Worker struct {
	service  *Service
	store    Store
	provider Provider
	log      *slog.Logger
	cfg      WorkerConfig
	writers  chan struct{} // one for each outcome that is being stored

	calls   [2]atomic.Int64 // without and with an answer
	expired atomic.Int64
	applied atomic.Int64
	backlog atomic.Pointer[Backlog]
	slow    atomic.Bool
}

// NewWorker returns a Worker that does nothing until Run is called.
func NewWorker(s *Service, provider Provider, log *slog.Logger, cfg WorkerConfig) *Worker {
	w := &Worker{service: s, store: s.store, provider: provider, log: log, cfg: cfg.withDefaults()}
	w.writers = make(chan struct{}, w.cfg.Writers)
	w.backlog.Store(&Backlog{})
	return w
}

// Stats are counts since the start, and the backlog as it was last seen.
type Stats struct {
	Answered, Unanswered int64 // calls of the provider
	Expired              int64 // payments whose deadline passed
	Callbacks            int64 // messages of the provider that were applied
	Backlog              Backlog
}

// Stats returns the worker's counts.
func (w *Worker) Stats() Stats {
	return Stats{w.calls[1].Load(), w.calls[0].Load(), w.expired.Load(), w.applied.Load(), *w.backlog.Load()}
}

// Available reports whether the provider can be called.
func (w *Worker) Available() bool {
	a, ok := w.provider.(Availability)
	return !ok || a.Available()
}

// Run works until ctx is cancelled. A round that fails is logged and tried again.
func (w *Worker) Run(ctx context.Context) error {
	failures := 0
	r := &rounds{slots: make(chan struct{}, w.cfg.Parallel), full: true}
	defer r.calls.Wait()
	for ctx.Err() == nil {
		err := w.round(ctx, r)
		if err != nil && ctx.Err() == nil {
			failures++
			w.log.ErrorContext(ctx, "payments cannot be processed; retrying", "error", err)
			backoff.Sleep(ctx, backoff.Policy{First: w.cfg.Interval, Max: time.Minute}.Delay(failures))
			continue
		}
		failures = 0
		if !r.more {
			r.full = w.await(ctx)
		}
	}
	return nil
}

// rounds is the state of a running worker.
type rounds struct {
	slots chan struct{} // one for each call that is under way
	calls sync.WaitGroup
	full  bool        // the next round looks for everything
	more  bool        // there may be more to do right now
	again atomic.Bool // more payments may be due than there were slots
}

// await waits until a payment may be due; full says that the interval is over.
func (w *Worker) await(ctx context.Context) (full bool) {
	timer := time.NewTimer(backoff.Jitter(w.cfg.Interval))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w.service.wake:
	case <-timer.C:
		return true
	}
	return false
}

// round looks once for messages and calls that are due, and a full one for deadlines too.
func (w *Worker) round(ctx context.Context, r *rounds) error {
	applied, err := w.ApplyCallbacks(ctx)
	if err != nil {
		return err
	}
	expired := 0
	if r.full {
		if expired, err = w.Expire(ctx); err == nil {
			err = w.observe(ctx)
		}
		if err != nil {
			return err
		}
	}
	r.more = applied == batch || expired == batch
	return w.startCalls(ctx, r)
}

// startCalls claims as many payments as there are slots, and makes their calls.
func (w *Worker) startCalls(ctx context.Context, r *rounds) error {
	room := cap(r.slots) - len(r.slots)
	if !w.Available() {
		return nil
	}
	r.again.Store(true)
	if room == 0 {
		return nil
	}
	claimed, err := w.Claim(ctx, room)
	if err != nil {
		return err
	}
	r.again.Store(len(claimed) == room)
	for _, c := range claimed {
		r.slots <- struct{}{} // has room: only this goroutine fills it
		r.calls.Go(func() {
			w.callAndStore(ctx, c)
			<-r.slots
			if r.again.Load() {
				w.service.wake.Set()
			}
		})
	}
	return nil
}

// batch bounds the rows of one transaction.
const batch = 100

// ApplyCallbacks applies the messages of the provider that are stored and not applied, and returns how many.
func (w *Worker) ApplyCallbacks(ctx context.Context) (int, error) {
	at := w.service.now()
	n, err := w.store.ApplyCallbacks(ctx, at, batch, func(p *Payment, c Callback) { p.ReceiveCallback(c, at) })
	w.applied.Add(int64(n))
	return n, err
}

// Expire ends what is past its deadline, and returns how many payments.
func (w *Worker) Expire(ctx context.Context) (int, error) {
	at := w.service.now()
	late, err := w.store.UpdateDue(ctx, DueDeadline, at, batch, func(p *Payment) { p.Expire(at) })
	for _, p := range late {
		w.log.WarnContext(ctx, "a payment has passed its deadline", "payment", p.ID, "order", p.OrderID, "status", p.Status, "provider", p.Known, "failure", p.Failure)
	}
	w.expired.Add(int64(len(late)))
	return len(late), err
}

// observe reads the backlog, and logs when payments begin to stand still.
func (w *Worker) observe(ctx context.Context) error {
	b, err := w.service.Backlog(ctx)
	if err != nil {
		return err
	}
	w.backlog.Store(&b)
	stuck := b.Waiting >= w.cfg.Stuck
	if w.slow.Swap(stuck) != stuck {
		if stuck {
			w.log.WarnContext(ctx, "payments stand still: see payments(filter: {status: PENDING}) and backplane doctor", "pending", b.Pending, "refunding", b.Refunding, "waiting", b.Waiting, "provider_available", w.Available())
		} else {
			w.log.InfoContext(ctx, "payments are processed again", "pending", b.Pending)
		}
	}
	return nil
}

// Call is a claimed payment: a call that is to be made.
type Call struct {
	Payment *Payment // as it was when it was claimed
	Step    Step
}

// Claim claims up to limit payments that are due.
func (w *Worker) Claim(ctx context.Context, limit int) ([]Call, error) {
	at, steps := w.service.now(), map[uid.Payment]Step{}
	claimed, err := w.store.UpdateDue(ctx, DueCall, at, limit, func(p *Payment) { steps[p.ID] = p.BeginCall(at, w.cfg.lease()) })
	calls := make([]Call, len(claimed))
	for i, p := range claimed {
		calls[i] = Call{p, steps[p.ID]}
	}
	return calls, err
}

// callAndStore makes the call and stores what it has brought. If that cannot be stored, the claim ends by itself and the
// next worker asks the provider.
func (w *Worker) callAndStore(ctx context.Context, c Call) {
	report := w.Make(ctx, c)
	w.writers <- struct{}{}
	defer func() { <-w.writers }()
	stored, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Timeout)
	defer cancel()
	if err := w.Store(stored, c, report); err != nil {
		w.log.ErrorContext(ctx, "the outcome of a payment cannot be stored; the provider will be asked for it", "payment", c.Payment.ID, "error", err)
	}
}

// Store stores what a call has brought.
func (w *Worker) Store(ctx context.Context, c Call, r Report) error {
	at := w.service.now()
	_, err := w.store.Update(ctx, c.Payment.ID, func(p *Payment) error {
		p.EndCall(r, at, w.cfg.Timing)
		return nil
	})
	return err
}

// Make makes the call of a claimed payment: it asks before it sends again.
func (w *Worker) Make(ctx context.Context, c Call) Report {
	at, elapsed := w.service.now(), w.cfg.Elapsed()
	r := w.ask(ctx, c)
	if r.Outcome == OutcomeNotFound && c.Payment.Status != Failed {
		r = w.send(ctx, c)
	}
	r.Claim, r.At, r.Duration = c.Payment.Claim, at, elapsed()
	switch {
	case r.Outcome == OutcomeNotFound && at.Sub(sentAt(c.Payment)) >= w.cfg.Timing.Quiet:
		r.Input = InNeverGot
	case r.Outcome == OutcomeNotSent || r.Outcome == OutcomeUnknown:
		w.calls[0].Add(1)
		return r
	}
	w.calls[1].Add(1)
	return r
}

func sentAt(p *Payment) time.Time {
	if p.SentAt == nil {
		return p.CreatedAt
	}
	return *p.SentAt
}

// ask asks the provider what it knows; of what was never sent it knows nothing.
func (w *Worker) ask(ctx context.Context, c Call) Report {
	p := c.Payment
	switch c.Step { //nolint:exhaustive // of the others nothing was sent
	case StepAsk:
		return w.do(ctx, c.Step, func(ctx context.Context) (Answer, error) { return w.provider.FindPayment(ctx, p.ID) })
	case StepAskRefund:
		return w.do(ctx, c.Step, func(ctx context.Context) (Answer, error) { return w.provider.FindRefund(ctx, p.ID, p.RefundID()) })
	}
	return Report{Outcome: OutcomeNotFound}
}

// send sends the charge or the refund. A worker that froze until its claim was over sends nothing: the payment may have
// been given up since.
func (w *Worker) send(ctx context.Context, c Call) Report {
	p := c.Payment
	if p.NextAt != nil && !w.service.now().Before(*p.NextAt) {
		return Report{Step: c.Step, Input: InUnsent, Outcome: OutcomeNotSent, Message: "The server was too slow to make the call in its time."}
	}
	if p.Status == Refunding {
		return w.do(ctx, StepRefund, func(ctx context.Context) (Answer, error) {
			return w.provider.Refund(ctx, RefundRequest{Payment: p.ID, Refund: p.RefundID(), Amount: p.Amount, Reason: "requested"})
		})
	}
	return w.do(ctx, StepCharge, func(ctx context.Context) (Answer, error) {
		return w.provider.Charge(ctx, ChargeRequest{Payment: p.ID, Amount: p.Amount, OrderNumber: p.OrderNumber})
	})
}

// do makes one call and says what it has brought.
func (w *Worker) do(ctx context.Context, step Step, call func(context.Context) (Answer, error)) Report {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	a, err := call(ctx)
	r := Report{Step: step, Answer: a, Instance: a.Instance, Message: a.Message}
	refund := step == StepRefund || step == StepAskRefund
	if err == nil {
		r.Input, r.Outcome = inputOf(a, refund)
		if r.Outcome == OutcomeUnknown {
			r.Message = "The provider gave an answer that is none."
		}
		return r
	}
	r.Answer = Answer{}
	failed, isCall := errors.AsType[*CallError](err)
	switch {
	case !isCall && fault.Is(err, fault.NotFound):
		r.Outcome, r.Input = OutcomeNotFound, InNotFound
		if refund {
			r.Input = InRefundNotFound
		}
	case isCall && !failed.Sent:
		r.Outcome, r.Message = OutcomeNotSent, failed.Message
		if step == StepCharge || step == StepRefund {
			r.Input = InUnsent
		}
	case isCall:
		r.Outcome, r.Message = OutcomeUnknown, failed.Message
	default:
		r.Outcome, r.Message = OutcomeUnknown, "The call failed."
		w.log.ErrorContext(ctx, "a call of the payment provider failed", "error", err)
	}
	if isCall {
		r.Instance = failed.Instance
	}
	return r
}
