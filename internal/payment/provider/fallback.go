package provider

import (
	"context"

	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Fallback asks the sandbox while no service is registered and marked as payment provider. Once one is,
// it asks that one alone, also while none of its instances can be called: what was sent to it must not
// be charged elsewhere.
type Fallback struct {
	Registered *Client
	Sandbox    *Sandbox
}

var (
	_ payment.Provider     = (*Fallback)(nil)
	_ payment.Availability = (*Fallback)(nil)
)

func (f *Fallback) provider() payment.Provider {
	if f.Registered.IsMarked() {
		return f.Registered
	}
	return f.Sandbox
}

// Available implements payment.Availability.
func (f *Fallback) Available() bool { return !f.Registered.IsMarked() || f.Registered.Available() }

// Charge implements payment.Provider.
func (f *Fallback) Charge(ctx context.Context, r payment.ChargeRequest) (payment.Answer, error) {
	return f.provider().Charge(ctx, r)
}

// FindPayment implements payment.Provider.
func (f *Fallback) FindPayment(ctx context.Context, id uid.Payment) (payment.Answer, error) {
	return f.provider().FindPayment(ctx, id)
}

// Refund implements payment.Provider.
func (f *Fallback) Refund(ctx context.Context, r payment.RefundRequest) (payment.Answer, error) {
	return f.provider().Refund(ctx, r)
}

// FindRefund implements payment.Provider.
func (f *Fallback) FindRefund(ctx context.Context, id uid.Payment, refund payment.RefundID) (payment.Answer, error) {
	return f.provider().FindRefund(ctx, id, refund)
}
