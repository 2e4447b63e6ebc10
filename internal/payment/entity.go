package payment

import (
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The types of events. payment.refund_requested tells of an order: package order declares it.
const (
	EventPaymentRequested    event.Type = "payment.requested"
	EventPaymentSucceeded               = event.PaymentSucceeded
	EventPaymentFailed                  = event.PaymentFailed
	EventPaymentRefunded                = event.PaymentRefunded
	EventPaymentRefundFailed event.Type = "payment.refund_failed"
)

// The codes of errors.
const (
	CodePaymentNotFound fault.Code = "PAYMENT_NOT_FOUND"
)

// Entity is the declaration of payments. A caller that may read an order may read its payment.
var Entity = entity.Declare(entity.Declaration{
	Name: "payment", Kind: uid.KindPayment,
	Events: []event.Declaration{
		{Type: EventPaymentRequested, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventPaymentSucceeded, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventPaymentFailed, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventPaymentRefunded, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventPaymentRefundFailed, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodePaymentNotFound, Kind: fault.KindNotFound, Sentence: "There is no such payment, or it is hidden from the caller."},
	},
})

// NotFound is the error for a payment that is absent or hidden.
func NotFound() *fault.Error {
	return fault.New(CodePaymentNotFound, "There is no such payment.").At("id")
}
