// Package provider calls payment providers.
//
// Client speaks the provider protocol (docs/payment-provider.openapi.yaml) with the instances of a
// registered service that ADMIN has marked as payment provider. It picks an instance for each call by
// package balance, reports the outcome, and calls only through the guarded dialer. Sandbox is a provider
// inside this process for demonstrations; Fallback uses it while no service is marked.
//
// Invariants: an answer is only taken if it names the payment or refund that was asked for. A call whose
// request may have reached an instance, but that got no such answer, is a payment.CallError with Sent: the
// caller asks for the outcome, never guesses it. A call that was certainly not sent, or that the instance
// refused, is one without Sent.
//
// Package payment decides when to call, and what follows from an answer.
package provider
