package provider

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// SandboxInstance is what the sandbox calls itself in its answers.
const SandboxInstance = "sandbox"

// The magic amounts of the sandbox: the last four digits of the minor units, 4020 for EUR 40.20, USD
// 140.20, JPY 4020 or KWD 4.020. All other amounts succeed at once.
const (
	SandboxDeclines    = 4020 // declined, with the failure card_declined
	SandboxTimesOut    = 4080 // charged, but no answer: the outcome is known when it is asked for
	SandboxFails       = 5030 // three calls fail before they are sent, then it succeeds
	SandboxLate        = 2020 // PENDING, and succeeds after SandboxDelay by a callback
	SandboxLateTwice   = 2040 // the same, with the callback sent three times: a repeat, and one with another id
	sandboxMagicDigits = 10_000
)

// SandboxDelay is how long a late outcome takes.
const SandboxDelay = 5 * time.Second

// sandboxSize bounds how many payments and refunds the sandbox knows. Beyond it, it forgets the oldest.
const sandboxSize = 100_000

// sandboxFailures is how many calls fail for SandboxFails.
const sandboxFailures = 3

// Sandbox is a payment provider inside this process, for demonstrations: no money moves. Every node has
// its own, which forgets all with the process. What it answers depends only on the amount and the clock
// that it was given. It is safe for concurrent use.
type Sandbox struct {
	now func() time.Time
	log *slog.Logger

	mu      sync.Mutex
	entries map[string]*sandboxEntry // by the id of the payment or refund
	order   []string                 // their ids, the oldest first
	due     []*sandboxEntry          // whose callbacks are not sent yet, the earliest first
	wake    chan struct{}
	said    bool // the log says that the sandbox answers
}

// sandboxEntry is a payment or refund of the sandbox.
type sandboxEntry struct {
	payment  uid.Payment
	refund   payment.RefundID // empty for a payment
	amount   money.Money
	failures int       // calls that failed so far
	done     time.Time // when the outcome is known
}

var _ payment.Provider = (*Sandbox)(nil)

// NewSandbox returns a Sandbox without payments.
func NewSandbox(now func() time.Time, log *slog.Logger) *Sandbox {
	return &Sandbox{now: now, log: log, entries: map[string]*sandboxEntry{}, wake: make(chan struct{}, 1)}
}

// Charge implements payment.Provider.
func (s *Sandbox) Charge(ctx context.Context, r payment.ChargeRequest) (payment.Answer, error) {
	return s.accept(ctx, string(r.Payment), sandboxEntry{payment: r.Payment, amount: r.Amount})
}

// FindPayment implements payment.Provider.
func (s *Sandbox) FindPayment(_ context.Context, id uid.Payment) (payment.Answer, error) {
	return s.find(string(id))
}

// Refund implements payment.Provider.
func (s *Sandbox) Refund(ctx context.Context, r payment.RefundRequest) (payment.Answer, error) {
	return s.accept(ctx, string(r.Refund), sandboxEntry{payment: r.Payment, refund: r.Refund, amount: r.Amount})
}

// FindRefund implements payment.Provider.
func (s *Sandbox) FindRefund(_ context.Context, _ uid.Payment, refund payment.RefundID) (payment.Answer, error) {
	return s.find(string(refund))
}

// accept answers a charge or refund. The first call for an id decides.
func (s *Sandbox) accept(ctx context.Context, id string, in sandboxEntry) (payment.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.said {
		s.said = true
		s.log.WarnContext(ctx, "payments are answered by the sandbox: no money moves; register a payment service and mark it to replace it")
	}
	e := s.entries[id]
	if e == nil {
		e = s.add(id, in)
	}
	if e.amount != in.amount {
		return payment.Answer{}, &payment.CallError{Instance: SandboxInstance, Message: "sandbox: the id was used with another amount"}
	}
	magic := e.magic()
	if magic == SandboxFails && e.failures < sandboxFailures {
		e.failures++
		return payment.Answer{}, &payment.CallError{Instance: SandboxInstance, Message: "sandbox: the call fails before it is sent, as the amount says"}
	}
	if magic == SandboxTimesOut && e.failures == 0 {
		e.failures++
		return payment.Answer{}, &payment.CallError{Instance: SandboxInstance, Sent: true, Message: "sandbox: no answer in time, as the amount says"}
	}
	return e.answer(s.now()), nil
}

// add stores an entry, and queues the callback of one whose outcome comes late.
func (s *Sandbox) add(id string, in sandboxEntry) *sandboxEntry {
	e := &in
	e.done = s.now()
	if len(s.order) >= sandboxSize {
		delete(s.entries, s.order[0])
		s.order = s.order[1:]
	}
	s.entries[id], s.order = e, append(s.order, id)
	if magic := e.magic(); magic == SandboxLate || magic == SandboxLateTwice {
		e.done = e.done.Add(SandboxDelay)
		s.due = append(s.due, e)
		select {
		case s.wake <- struct{}{}:
		default: // Run is awake already
		}
	}
	return e
}

func (s *Sandbox) find(id string) (payment.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil || e.magic() == SandboxFails && e.failures < sandboxFailures {
		return payment.Answer{}, payment.ErrUnknownToProvider
	}
	return e.answer(s.now()), nil
}

// magic returns the magic amount of a payment. Refunds come late as their payments did, but none of them
// fails.
func (e *sandboxEntry) magic() int64 {
	magic := e.amount.Minor % sandboxMagicDigits
	if e.refund != "" && magic != SandboxLate && magic != SandboxLateTwice {
		return 0
	}
	return magic
}

func (e *sandboxEntry) answer(now time.Time) payment.Answer {
	a := payment.Answer{Status: payment.AnswerSucceeded, Reference: "sandbox_" + string(e.payment), Message: "The sandbox answers: no money has moved.", Instance: SandboxInstance}
	switch {
	case e.magic() == SandboxDeclines:
		a.Status, a.Failure = payment.AnswerFailed, "card_declined"
	case now.Before(e.done):
		a.Status = payment.AnswerPending
	}
	return a
}

// Run sends the callbacks of late outcomes to the inbox until ctx is cancelled. A callback that the inbox
// does not take is lost, as the outcome is also there to be asked for.
func (s *Sandbox) Run(ctx context.Context, inbox func(context.Context, payment.Callback) error) error {
	for {
		var timer <-chan time.Time
		for _, c := range s.takeDue(&timer) {
			if err := inbox(ctx, c); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "sandbox: a callback is lost", "payment", c.Payment, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer:
		}
	}
}

// takeDue returns the callbacks that are due, and sets the timer to when the next will be.
func (s *Sandbox) takeDue(timer *<-chan time.Time) (all []payment.Callback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	n := 0
	for ; n < len(s.due) && !s.due[n].done.After(now); n++ {
		all = append(all, s.due[n].callbacks(now)...)
	}
	if s.due = slices.Delete(s.due, 0, n); len(s.due) > 0 {
		*timer = time.After(s.due[0].done.Sub(now))
	}
	return all
}

// callbacks returns the messages of a late outcome.
func (e *sandboxEntry) callbacks(now time.Time) []payment.Callback {
	c := payment.Callback{ID: "sandbox_" + string(e.payment) + string(e.refund), Payment: e.payment, Refund: e.refund, Answer: e.answer(now), At: now}
	if e.magic() != SandboxLateTwice {
		return []payment.Callback{c}
	}
	other := c
	other.ID += "_other"
	return []payment.Callback{c, c, other}
}
