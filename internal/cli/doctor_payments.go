package cli

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/payment"
)

// Payments that are open for so long, or due for so long, stand still.
const (
	paymentDueFor = 15 * time.Minute
	paymentOldFor = 2 * time.Hour
)

// checkPayments finds payments that stand still.
func checkPayments(ctx context.Context, env app.Env, tools *app.Toolbox) (findings []finding, err error) {
	if env.Config.Payments.Service == payment.Off {
		return nil, nil
	}
	b, err := tools.DB.Payments().Backlog(ctx, tools.DB.Clock().Now())
	if b.Waiting > paymentDueFor {
		findings = append(findings, problem("Payments wait for a call of the payment provider, the first for %s: %d are PENDING, %d REFUNDING. Check that the service %s is registered, "+
			"marked (backplane services payment-provider) and has instances, and that a server runs. See docs/payments.md.", b.Waiting.Round(time.Second), b.Pending, b.Refunding, env.Config.Payments.Service)...)
	} else if b.Oldest > paymentOldFor {
		findings = append(findings, warning("The oldest of %d payments that are PENDING was created %s ago: the payment provider does not decide. Their attempts say more: "+
			"payments(filter: {status: PENDING}). See docs/payments.md.", b.Pending, b.Oldest.Round(time.Second))...)
	}
	if b.Unsettled > 0 {
		findings = append(findings, warning("%d payments have failed while it was not known whether they were charged; the payment provider is asked on, and refunds what was. "+
			"Check that it answers. See docs/payments.md.", b.Unsettled)...)
	}
	return findings, err
}
