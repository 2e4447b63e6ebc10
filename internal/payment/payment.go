package payment

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Failures that the server itself states; those of providers are theirs.
const (
	FailureOrderCancelled = "order_cancelled" // nothing was charged
	FailureDeadline       = "deadline"        // no outcome in time
	FailureRefundDeadline = "refund_deadline" // no outcome of the refund in time; it is still tried
)

// Limits of what providers say.
const (
	maxReference = 200 // bytes
	maxFailure   = 100
	maxMessage   = 500
)

// KeptAttempts is how many attempts of a payment are kept: the newest.
const KeptAttempts = 50

// Payment is what is charged for an order: one for each.
type Payment struct {
	ID          uid.Payment
	OrderID     uid.Order
	OrderNumber string
	UserID      uid.User // the customer
	Amount      money.Money
	State
	Reference string // the provider's own id; empty if unknown
	Failure   string // why it failed, or why its refund did; empty if neither did
	Version   int    // raised by each change that an event tells of

	AttemptCount int        // calls of the provider so far
	Failures     int        // calls in a row that brought the payment no further
	SentAt       *time.Time // when a request to the provider may last have left
	NextAt       *time.Time // when a worker is to look at the payment; nil if there is nothing to do
	DeadlineAt   *time.Time // when the charge, or the refund, is given up; nil if that is over
	Claim        int64      // raised by each claim of a worker: the fencing token of what it reports

	CreatedAt time.Time
	UpdatedAt time.Time

	claimed  bool // a worker holds the payment, or died with it
	fresh    bool // nothing had been sent before the claim
	attempts []Attempt
	events   event.Recorder
}

// Outcome is the result of an attempt.
type Outcome string

// The outcomes.
const (
	OutcomeSucceeded Outcome = "SUCCEEDED" // charged, or paid back
	OutcomeAccepted  Outcome = "ACCEPTED"  // the outcome comes later
	OutcomeDeclined  Outcome = "DECLINED"  // final
	OutcomeNotFound  Outcome = "NOT_FOUND" // the provider never got it
	OutcomeNotSent   Outcome = "NOT_SENT"  // the provider was not reached
	OutcomeUnknown   Outcome = "UNKNOWN"   // no answer: the provider may have got it
)

// Outcomes returns every outcome.
func Outcomes() []Outcome {
	return []Outcome{OutcomeSucceeded, OutcomeAccepted, OutcomeDeclined, OutcomeNotFound, OutcomeNotSent, OutcomeUnknown}
}

// Attempt is one call of the provider, or one message from it.
type Attempt struct {
	Number   int    // from 1
	Step     Step   // what was asked; StepNone for a message from the provider
	Instance string // that was called or answered; empty if none was
	Outcome  Outcome
	Message  string // for staff; may be empty
	At       time.Time
	Duration time.Duration
}

// Placed is what a payment is made of: an order that was placed.
type Placed struct {
	OrderID     uid.Order
	OrderNumber string
	UserID      uid.User
	Total       money.Money
}

// New returns the payment of an order, due at once, and records payment.requested. An order that costs
// nothing is paid without a call.
func New(o Placed, at time.Time, deadline time.Duration) *Payment {
	end := at.Add(deadline)
	p := &Payment{
		ID: uid.NewPayment(at), OrderID: o.OrderID, OrderNumber: o.OrderNumber, UserID: o.UserID, Amount: o.Total, State: pendingUnsent, Version: 1,
		NextAt: &at, DeadlineAt: &end, CreatedAt: at, UpdatedAt: at,
	}
	p.record(EventPaymentRequested, at)
	if o.Total.Minor == 0 {
		p.apply(InSucceeded, at)
	}
	return p
}

// RefundID returns the idempotency key of the payment's refund.
func (p *Payment) RefundID() RefundID {
	return RefundID("rfd_" + strings.TrimPrefix(string(p.ID), string(uid.KindPayment)+"_"))
}

// NextStep returns what a worker does next.
func (p *Payment) NextStep() Step {
	if s, ok := steps[p.State]; ok {
		return s
	}
	return StepNone
}

// apply takes the edge of the input, if there is one, and reports whether it did.
func (p *Payment) apply(in Input, at time.Time) bool {
	e, ok := next(p.State, in)
	if !ok {
		return false
	}
	was := p.State
	p.State = e.To
	if was != e.To {
		p.schedule(at, 0)
	}
	if was.Status != e.To.Status || was.Known != Known && e.To.Known == Known {
		p.Failures = 0
	}
	if e.To.Status != Pending && e.To.Status != Refunding {
		p.DeadlineAt = nil
	}
	if e.Event != "" {
		p.Version, p.UpdatedAt = p.Version+1, at
		p.record(e.Event, at)
	}
	return true
}

// schedule makes the payment due after the delay, or never if there is nothing to do.
func (p *Payment) schedule(at time.Time, delay time.Duration) {
	p.NextAt = nil
	if p.NextStep() != StepNone {
		due := at.Add(delay)
		p.NextAt = &due
	}
}

// Timing says when a worker looks at a payment again.
type Timing struct {
	Retries backoff.Policy // before the deadline
	Slow    backoff.Policy // after it, while an outcome is unknown
	Quiet   time.Duration  // after the last request, what a provider does not know it never got
}

// DefaultTiming is what servers use. A provider that was away gets its backlog within half a minute of its return.
func DefaultTiming() Timing {
	return Timing{
		Retries: backoff.Policy{First: time.Second, Max: 20 * time.Second},
		Slow:    backoff.Policy{First: 10 * time.Second, Max: 30 * time.Minute},
		Quiet:   10 * time.Minute,
	}
}

func (t Timing) retriesOf(p *Payment) backoff.Policy {
	if p.DeadlineAt == nil {
		return t.Slow
	}
	return t.Retries
}

// BeginCall claims the payment for a call that is about to be made, and returns the step. The claim is void
// after the lease: another worker then takes over. It is committed before the call is made, so that a
// call that a crash hides is known as one that may have reached the provider.
func (p *Payment) BeginCall(at time.Time, lease time.Duration) Step {
	if p.claimed {
		p.addAttempt(Attempt{Outcome: OutcomeUnknown, Step: p.NextStep(), Message: "The server that made this call stopped before it had an answer.", At: at})
	}
	step := p.NextStep()
	p.fresh = p.Known == NothingSent
	if step == StepCharge || step == StepRefund {
		p.apply(InSend, at)
	}
	if p.Status != Failed && step != StepNone {
		last := at.Add(lease) // a slow worker sends until then, and asking may send again, too
		p.SentAt = &last
	}
	p.Claim, p.claimed = p.Claim+1, true
	p.schedule(at, lease)
	return step
}

// Report is what a call of the provider has brought.
type Report struct {
	Claim    int64 // of the worker that made it
	Step     Step
	Input    Input // empty if the call brought nothing new
	Answer   Answer
	Outcome  Outcome
	Message  string
	Instance string
	At       time.Time // when the call began
	Duration time.Duration
}

// EndCall applies what a call has brought. Whatever a provider has said is true, also if the claim has
// passed to another worker by then; that nothing was sent is only true within the claim.
func (p *Payment) EndCall(r Report, at time.Time, t Timing) {
	p.addAttempt(Attempt{Step: r.Step, Instance: r.Instance, Outcome: r.Outcome, Message: r.Message, At: r.At, Duration: r.Duration})
	within := r.Claim == p.Claim
	if within {
		p.claimed = false
	}
	if r.Input == InUnsent && (!within || !p.fresh) {
		r.Input = ""
	}
	moved := p.applyAnswer(r.Input, r.Answer, at)
	if within && (!moved || r.Input == InUnsent || r.Input == InAccepted || r.Input == InRefundAccepted) {
		failures := p.Failures + 1
		p.Failures = failures
		p.schedule(at, t.retriesOf(p).Delay(failures))
	}
}

// ReceiveCallback applies a message from the provider.
func (p *Payment) ReceiveCallback(c Callback, at time.Time) {
	in, outcome := inputOf(c.Answer, c.Refund != "")
	if c.Refund != "" && c.Refund != p.RefundID() {
		return
	}
	if p.applyAnswer(in, c.Answer, at) {
		p.addAttempt(Attempt{Step: StepNone, Instance: c.Answer.Instance, Outcome: outcome, Message: c.Answer.Message, At: at})
	}
}

// applyAnswer applies the input with what the provider says besides.
func (p *Payment) applyAnswer(in Input, a Answer, at time.Time) bool {
	_, ok := next(p.State, in)
	if !ok {
		return false
	}
	if a.Reference != "" && p.Reference == "" {
		p.Reference = cut(a.Reference, maxReference)
	}
	switch in { //nolint:exhaustive // the others carry nothing besides
	case InDeclined, InRefundDeclined:
		p.Failure = cut(a.Failure, maxFailure)
		if p.Failure == "" {
			p.Failure = "declined"
		}
	case InSucceeded, InRefundSucceeded:
		p.Failure = ""
	}
	return p.apply(in, at)
}

// inputOf returns the input and the outcome that an answer is.
func inputOf(a Answer, refund bool) (Input, Outcome) {
	charge, back, outcome := Input(""), Input(""), OutcomeUnknown
	switch a.Status {
	case AnswerPending:
		charge, back, outcome = InAccepted, InRefundAccepted, OutcomeAccepted
	case AnswerSucceeded:
		charge, back, outcome = InSucceeded, InRefundSucceeded, OutcomeSucceeded
	case AnswerFailed:
		charge, back, outcome = InDeclined, InRefundDeclined, OutcomeDeclined
	}
	if refund {
		return back, outcome
	}
	return charge, outcome
}

// CancelOrder settles the payment of an order that is being cancelled, in the same transaction: a payment that no provider was
// asked for fails. ok is false if a provider may be charging it, or has: the order then must not be cancelled.
func (p *Payment) CancelOrder(at time.Time) (ok bool) {
	if p.State == pendingUnsent {
		p.OrderCancelled(at)
	}
	return p.Status == Failed
}

// OrderCancelled ends a payment whose order was cancelled. If the provider was asked for it already, it is
// asked what has become of it.
func (p *Payment) OrderCancelled(at time.Time) {
	if _, ok := next(p.State, InOrderCancelled); ok {
		p.Failure = FailureOrderCancelled
		p.apply(InOrderCancelled, at)
	}
}

// RequestRefund begins to pay the payment back; asking again does nothing.
func (p *Payment) RequestRefund(at time.Time, deadline time.Duration) {
	if p.apply(InRefundRequested, at) {
		end := at.Add(deadline)
		p.Failure, p.DeadlineAt, p.SentAt, p.claimed = "", &end, nil, false
	}
}

// Expire ends what is past its deadline: a charge fails, and a refund is reported and still tried. It reports
// whether anything was.
func (p *Payment) Expire(at time.Time) bool {
	if p.DeadlineAt == nil || p.DeadlineAt.After(at) {
		return false
	}
	p.DeadlineAt = nil
	in, failure := InDeadline, FailureDeadline
	if p.Status == Refunding {
		in, failure = InRefundDeadline, FailureRefundDeadline
	}
	if _, ok := next(p.State, in); ok {
		p.Failure = failure
		p.apply(in, at)
	}
	return true
}

func (p *Payment) addAttempt(a Attempt) {
	p.AttemptCount++
	a.Number, a.Message, a.Instance = p.AttemptCount, cut(a.Message, maxMessage), cut(a.Instance, maxReference)
	p.attempts = append(p.attempts, a)
}

// cut returns at most n bytes of the text, without breaking a character, and without what a database does not store.
func cut(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ClaimState returns whether a worker holds the payment, and whether nothing had been sent before.
func (p *Payment) ClaimState() (claimed, fresh bool) { return p.claimed, p.fresh }

// Loaded sets what ClaimState returned when the payment was stored.
func (p *Payment) Loaded(claimed, fresh bool) *Payment {
	p.claimed, p.fresh = claimed, fresh
	return p
}

// TakeAttempts returns the attempts made since the last call.
func (p *Payment) TakeAttempts() []Attempt {
	all := p.attempts
	p.attempts = nil
	return all
}

// TakeEvents returns the events recorded since the last call.
func (p *Payment) TakeEvents() []event.Event { return p.events.Take() }

// snapshot is the payment as its events show it.
type snapshot struct {
	OrderID     uid.Order `json:"orderId"`
	OrderNumber string    `json:"orderNumber"`
	UserID      uid.User  `json:"userId"`
	Status      Status    `json:"status"`
	Amount      string    `json:"amount"`
	Currency    string    `json:"currency"`
	Reference   string    `doc:"the provider's own id"                                       json:"reference,omitempty"`
	Failure     string    `doc:"of payment.failed and payment.refund_failed: a code for why" json:"failure,omitempty"`
}

func (p *Payment) record(t event.Type, at time.Time) {
	s := snapshot{p.OrderID, p.OrderNumber, p.UserID, p.Status, p.Amount.Amount(), p.Amount.Currency, p.Reference, p.Failure}
	p.events.Record(t, string(p.ID), p.Version, s, at, string(p.OrderID), string(p.UserID))
}
