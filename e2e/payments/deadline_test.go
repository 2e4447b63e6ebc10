package payments

import (
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

func TestPayments_wait_without_a_provider_until_their_deadline(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_PAYMENT_SERVICE=payment-service", "BACKPLANE_PAYMENT_DEADLINE=8s") // longer than the steps until the cancellation take
		admin, buyer := harness.SignInAdmin(t, p), harness.SignUp(t, p, "grace")
		kept, cancelled := buyFor(t, admin, buyer, "KEPT", "12.50"), buyFor(t, admin, buyer, "CANCELLED", "12.50")
		var o any
		for _, id := range []string{kept, cancelled} {
			harness.Eventually(t, "the order has a payment", func() bool {
				o = harness.At(admin.Do(t, readPayment, map[string]any{"id": id}), "order")
				return harness.At(o, "payment") != nil
			})
			if harness.Text(o, "payment", "status") != "PENDING" || len(harness.At(o, "payment", "attempts").([]any)) != 0 {
				t.Errorf("without a provider an order is %v", o)
			}
		}
		if got := buyer.Do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id}) { order { status } userErrors { code } } }`, map[string]any{"id": cancelled}); harness.Text(got, "cancelOrder", "order", "status") != "CANCELLED" {
			t.Errorf("cancelling an order that no provider was asked for gave %v", got)
		}
		if o := awaitStatus(t, admin, cancelled, "CANCELLED"); harness.Text(o, "payment", "status") != "FAILED" || harness.Text(o, "payment", "failure") != "order_cancelled" {
			t.Errorf("the cancelled order is %v", o)
		}
		if o := awaitStatus(t, admin, kept, "CANCELLED"); harness.Text(o, "payment", "failure") != "deadline" || harness.Number(o, "items", 0, "product", "stock") != 10 {
			t.Errorf("the order that met its deadline is %v", o)
		}
	})
}
