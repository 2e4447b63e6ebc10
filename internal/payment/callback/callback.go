// Package callback receives the messages that payment providers send by themselves: the outcome of a
// payment or refund that came later than the answer.
//
// A Receiver takes a message only if it is signed by a secret that the operator has set (package
// signing), is fresh, and names a payment. It hands it over to an inbox, which drops repeats; only when
// that has stored it does the provider get an answer that ends its retries. What a message changes is
// for package payment to say.
package callback

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/payment/provider"
	"github.com/backplane-dev/backplane/internal/signing"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The types of messages.
const (
	typePayment = "payment.updated"
	typeRefund  = "refund.updated"
)

// maxRefundID bounds the id of a refund, in bytes.
const maxRefundID = 100

// Inbox stores a message before it returns, and drops one that it has. It is safe for concurrent use.
type Inbox func(ctx context.Context, c payment.Callback) error

// Stats counts messages.
type Stats struct {
	Accepted uint64 // stored, repeats included
	Refused  uint64 // not signed, signed by a foreign secret, or too old
	Invalid  uint64 // signed, but not of the protocol
	Failed   uint64 // not stored
}

// Receiver verifies messages. It is safe for concurrent use.
type Receiver struct {
	secrets                            []signing.Secret
	now                                func() time.Time
	inbox                              Inbox
	accepted, refused, invalid, failed atomic.Uint64
}

// NewReceiver returns a Receiver that accepts messages signed by one of the secrets.
func NewReceiver(secrets []signing.Secret, now func() time.Time, inbox Inbox) (*Receiver, error) {
	if len(secrets) == 0 || now == nil || inbox == nil {
		return nil, errors.New("payment callbacks: a secret, a clock and an inbox are required")
	}
	return &Receiver{secrets: secrets, now: now, inbox: inbox}, nil
}

// Stats returns the counts so far; zero for a nil Receiver, which receives nothing.
func (r *Receiver) Stats() Stats {
	if r == nil {
		return Stats{}
	}
	return Stats{r.accepted.Load(), r.refused.Load(), r.invalid.Load(), r.failed.Load()}
}

// Receive verifies a message and stores it. Its errors are UNAUTHENTICATED for a wrong signature, and
// BAD_REQUEST for a message that is none of the protocol.
func (r *Receiver) Receive(ctx context.Context, h http.Header, body []byte) error {
	m := signing.Message{ID: h.Get(signing.HeaderID), Timestamp: h.Get(signing.HeaderTimestamp), Signature: h.Get(signing.HeaderSignature), Body: body}
	at, err := signing.Verify(r.secrets, m, r.now())
	if err != nil {
		r.refused.Add(1)
		return fault.New(fault.Unauthenticated, "The callback is not accepted: %s.", err)
	}
	c, err := parse(m, at)
	if err != nil {
		r.invalid.Add(1)
		return err
	}
	if err := r.inbox(ctx, c); err != nil {
		r.failed.Add(1)
		return err
	}
	r.accepted.Add(1)
	return nil
}

// message is the body of a message.
type message struct {
	Type string `json:"type"`
	Data struct {
		provider.State
		PaymentID uid.Payment `json:"paymentId"` // of a refund
	} `json:"data"`
}

func parse(m signing.Message, at time.Time) (payment.Callback, error) {
	var in message
	if err := json.Unmarshal(m.Body, &in); err != nil {
		return payment.Callback{}, fault.New(fault.BadRequest, "The body is no JSON object with type and data.")
	}
	answer, ok := in.Data.Answer()
	if !ok {
		return payment.Callback{}, fault.New(fault.BadRequest, "data.status must be PENDING, SUCCEEDED or FAILED.")
	}
	c := payment.Callback{ID: m.ID, Payment: uid.Payment(in.Data.ID), Answer: answer, At: at}
	switch in.Type {
	case typePayment:
	case typeRefund:
		c.Payment, c.Refund = in.Data.PaymentID, payment.RefundID(in.Data.ID)
		if c.Refund == "" || len(c.Refund) > maxRefundID {
			return payment.Callback{}, fault.New(fault.BadRequest, "data.id must be the id of a refund.")
		}
	default:
		return payment.Callback{}, fault.New(fault.BadRequest, "type must be %s or %s.", typePayment, typeRefund)
	}
	if !c.Payment.Valid() {
		return payment.Callback{}, fault.New(fault.BadRequest, "The message names no payment: data.id, or data.paymentId of a refund.")
	}
	return c, nil
}
