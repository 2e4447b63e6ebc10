package payment

import (
	"fmt"

	"github.com/backplane-dev/backplane/internal/event"
)

// Status is a state in the life of a payment.
type Status string

// The states of a payment.
const (
	Pending   Status = "PENDING"   // the provider has not decided
	Succeeded Status = "SUCCEEDED" // charged
	Failed    Status = "FAILED"    // not charged, and never asked for again
	Refunding Status = "REFUNDING" // charged; the provider is asked to pay it back
	Refunded  Status = "REFUNDED"  // paid back
)

// Statuses returns every state.
func Statuses() []Status { return []Status{Pending, Succeeded, Failed, Refunding, Refunded} }

// Knowledge is what is known of the provider's view of the charge, or of the refund from
// REFUNDING on.
type Knowledge string

// What may be known.
const (
	NothingSent Knowledge = "NOTHING_SENT" // no request can have reached the provider
	Unknown     Knowledge = "UNKNOWN"      // a request may have reached it: it must be asked for the outcome
	Known       Knowledge = "KNOWN"        // it has answered; while PENDING or REFUNDING: that it will decide later
)

// Knowledges returns everything that may be known.
func Knowledges() []Knowledge { return []Knowledge{NothingSent, Unknown, Known} }

// State is a status with what is known of the provider.
type State struct {
	Status Status
	Known  Knowledge
}

// Input is what happens to a payment.
type Input string

// The inputs. A charge and a refund have the same answers under different names, so that a
// message about the one never moves the other.
const (
	InSend     Input = "send"      // a request is about to leave; committed before it does
	InUnsent   Input = "unsent"    // the first request that was about to leave did not
	InNotFound Input = "not_found" // the provider says that it never got the charge
	InNeverGot Input = "never_got" // as InNotFound, long after the last request left

	InAccepted  Input = "accepted"  // the charge was accepted; its outcome comes later
	InSucceeded Input = "succeeded" // charged
	InDeclined  Input = "declined"  // not charged, and final

	InDeadline       Input = "deadline"        // the time for the charge is over
	InOrderCancelled Input = "order_cancelled" // nothing is to be paid any more

	InRefundRequested Input = "refund_requested" // pay it back
	InRefundNotFound  Input = "refund_not_found" // the provider says that it never got the refund
	InRefundAccepted  Input = "refund_accepted"  // the refund was accepted; its outcome comes later
	InRefundSucceeded Input = "refund_succeeded" // paid back
	InRefundDeclined  Input = "refund_declined"  // not paid back, and final
	InRefundDeadline  Input = "refund_deadline"  // the time for the refund is over; it is still tried
)

// Inputs returns every input.
func Inputs() []Input {
	return []Input{
		InSend, InUnsent, InNotFound, InNeverGot, InAccepted, InSucceeded, InDeclined, InDeadline, InOrderCancelled,
		InRefundRequested, InRefundNotFound, InRefundAccepted, InRefundSucceeded, InRefundDeclined, InRefundDeadline,
	}
}

// Edge is where an input leads, and the event that it records; none if empty.
type Edge struct {
	To    State
	Event event.Type
}

// The states by short names, for the table.
var (
	pendingUnsent    = State{Pending, NothingSent}
	pendingUnknown   = State{Pending, Unknown}
	pendingAccepted  = State{Pending, Known}
	succeededKnown   = State{Succeeded, Known}
	failedUnsent     = State{Failed, NothingSent}
	failedUnknown    = State{Failed, Unknown} // given up: the charge may still turn up, and is then refunded
	failedKnown      = State{Failed, Known}
	refundUnsent     = State{Refunding, NothingSent}
	refundUnknown    = State{Refunding, Unknown}
	refundAccepted   = State{Refunding, Known}
	refundedForGood  = State{Refunded, Known}
	chargeSucceeded  = Edge{succeededKnown, EventPaymentSucceeded}
	chargeDeclined   = Edge{failedKnown, EventPaymentFailed}
	refundSucceeded  = Edge{refundedForGood, EventPaymentRefunded}
	refundIsDeclined = Edge{succeededKnown, EventPaymentRefundFailed}
)

// edges is the state table: every change that there is. An input without an edge changes nothing,
// so that messages of providers may come twice, late and in any order.
//
// A success counts in every state before it, also after the payment failed: the money has moved.
// The order then decides: if it was cancelled, it asks for the refund.
var edges = map[State]map[Input]Edge{
	pendingUnsent: {
		InSend:           {To: pendingUnknown},
		InAccepted:       {To: pendingAccepted},
		InSucceeded:      chargeSucceeded,
		InDeclined:       chargeDeclined,
		InDeadline:       {failedUnsent, EventPaymentFailed},
		InOrderCancelled: {failedUnsent, EventPaymentFailed},
	},
	pendingUnknown: {
		InUnsent:         {To: pendingUnsent},
		InAccepted:       {To: pendingAccepted},
		InSucceeded:      chargeSucceeded,
		InDeclined:       chargeDeclined,
		InDeadline:       {failedUnknown, EventPaymentFailed},
		InOrderCancelled: {failedUnknown, EventPaymentFailed},
	},
	pendingAccepted: {
		InNotFound:       {To: pendingUnknown},
		InSucceeded:      chargeSucceeded,
		InDeclined:       chargeDeclined,
		InDeadline:       {failedUnknown, EventPaymentFailed},
		InOrderCancelled: {failedUnknown, EventPaymentFailed},
	},
	failedUnsent: {
		InSucceeded: chargeSucceeded,
	},
	failedUnknown: {
		InNeverGot:  {To: failedKnown},
		InSucceeded: chargeSucceeded,
		InDeclined:  {To: failedKnown},
	},
	failedKnown: {
		InSucceeded: chargeSucceeded,
	},
	succeededKnown: {
		InRefundRequested: {To: refundUnsent},
		InRefundSucceeded: refundSucceeded,
	},
	refundUnsent: {
		InSend:            {To: refundUnknown},
		InRefundAccepted:  {To: refundAccepted},
		InRefundSucceeded: refundSucceeded,
		InRefundDeclined:  refundIsDeclined,
		InRefundDeadline:  {refundUnsent, EventPaymentRefundFailed},
	},
	refundUnknown: {
		InUnsent:          {To: refundUnsent},
		InRefundAccepted:  {To: refundAccepted},
		InRefundSucceeded: refundSucceeded,
		InRefundDeclined:  refundIsDeclined,
		InRefundDeadline:  {refundUnknown, EventPaymentRefundFailed},
	},
	refundAccepted: {
		InRefundNotFound:  {To: refundUnknown},
		InRefundSucceeded: refundSucceeded,
		InRefundDeclined:  refundIsDeclined,
		InRefundDeadline:  {refundAccepted, EventPaymentRefundFailed},
	},
	refundedForGood: {},
}

// next returns the edge that the input takes from the state; ok is false if it changes nothing.
func next(s State, in Input) (e Edge, ok bool) {
	e, ok = edges[s][in]
	return e, ok
}

// Valid reports whether a payment can be in the state.
func (s State) Valid() bool {
	_, ok := edges[s]
	return ok
}

// String returns the state as STATUS/KNOWLEDGE.
func (s State) String() string { return fmt.Sprintf("%s/%s", s.Status, s.Known) }

// Step is what a worker does next for a payment.
type Step string

// The steps.
const (
	StepNone      Step = "none"
	StepCharge    Step = "charge"
	StepAsk       Step = "ask"        // find the charge; send it again if the provider never got it and the payment is PENDING
	StepRefund    Step = "refund"     //
	StepAskRefund Step = "ask_refund" // find the refund; send it again if the provider never got it
)

// steps are what a worker does in each state; nothing in the others.
var steps = map[State]Step{
	pendingUnsent:   StepCharge,
	pendingUnknown:  StepAsk,
	pendingAccepted: StepAsk,
	failedUnknown:   StepAsk,
	refundUnsent:    StepRefund,
	refundUnknown:   StepAskRefund,
	refundAccepted:  StepAskRefund,
}
