// Package payment owns the payments of orders: one for each placed order, asked of a payment
// provider until its outcome is known.
package payment

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Provider is a payment service as the domain calls it.
//
// A call that got no answer returns a *CallError. All instances of one provider share their
// idempotency: repeating a call with the same id changes nothing.
type Provider interface {
	// Charge asks for the charge of a payment. The id of the payment is the idempotency key: asking
	// again charges once.
	Charge(ctx context.Context, r ChargeRequest) (Answer, error)
	// FindPayment reads what the provider knows of a payment, or returns ErrUnknownToProvider if it
	// never got it.
	FindPayment(ctx context.Context, id uid.Payment) (Answer, error)
	// Refund asks for the refund of a payment. The id of the refund is the idempotency key.
	Refund(ctx context.Context, r RefundRequest) (Answer, error)
	// FindRefund reads what the provider knows of a refund, or returns ErrUnknownToProvider if it
	// never got it.
	FindRefund(ctx context.Context, payment uid.Payment, refund RefundID) (Answer, error)
}

// RefundID is the idempotency key of a refund.
type RefundID string

// ChargeRequest is what a provider needs to charge an order.
type ChargeRequest struct {
	Payment     uid.Payment
	Amount      money.Money
	OrderNumber string
}

// RefundRequest is what a provider needs to pay a payment back.
type RefundRequest struct {
	Payment uid.Payment
	Refund  RefundID
	Amount  money.Money
	Reason  string // as the caller stated it; may be empty
}

// AnswerStatus says how far a provider is with a charge or a refund.
type AnswerStatus string

// The statuses of an answer. AnswerSucceeded and AnswerFailed are final.
const (
	AnswerPending   AnswerStatus = "PENDING"   // accepted; the outcome comes later
	AnswerSucceeded AnswerStatus = "SUCCEEDED" // the money has moved
	AnswerFailed    AnswerStatus = "FAILED"    // declined: the money does not move
)

// Answer is what a provider says of a charge or a refund.
type Answer struct {
	Status    AnswerStatus
	Reference string // the provider's own id; may be empty
	Failure   string // why it was declined, as a code such as card_declined
	Message   string // for people; may be empty
	Instance  string // the registered instance that answered, or "sandbox"
}

// CallError is a call of a provider that got no answer.
type CallError struct {
	Instance string // that was called; empty if none was
	Sent     bool   // the provider may have got the request: its outcome is unknown and must be asked for
	Message  string // what happened, for staff: no secrets, no addresses inside the network
	Err      error  // the cause, for the log; may be nil
}

// Error returns the message and the cause.
func (e *CallError) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return fmt.Sprintf("%s: %v", e.Message, e.Err)
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// ErrNoProvider is the cause of a CallError when no service is registered as payment provider, or
// none of its instances may be called: nothing was sent.
var ErrNoProvider = fault.New(fault.Unavailable, "No payment provider is available.")

// ErrUnknownToProvider says that the provider answered, and that it never got the payment or refund.
var ErrUnknownToProvider = fault.New(fault.NotFound, "The payment provider does not know this payment.")

// Callback is a message that a provider has sent by itself, its signature verified.
type Callback struct {
	ID      string // of the message: repeats have the same one
	Payment uid.Payment
	Refund  RefundID // empty for a charge
	Answer  Answer
	At      time.Time // when the provider sent it
}
