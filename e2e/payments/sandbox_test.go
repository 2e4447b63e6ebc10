package payments

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// startDemo starts a server whose orders are paid by the sandbox, and signs its first ADMIN in.
func startDemo(t *testing.T, database string) (*testenv.Process, harness.Caller) {
	t.Helper()
	p := testenv.ServerWith(t, []string{"--demo", "--migrate"}, harness.Settings(database, "BACKPLANE_PAYMENT_SERVICE=payment-service")...)
	return p, signInDemo(t, p)
}

// signInDemo signs the first ADMIN of the demo in.
func signInDemo(t *testing.T, p *testenv.Process) harness.Caller {
	t.Helper()
	var words []string // after the first ADMIN: its name and its password
	harness.Eventually(t, "the server says how to sign in", func() bool {
		_, login, _ := strings.Cut(p.Logs(), "\n  ADMIN ")
		words = strings.Fields(login)
		return len(words) > 3 // and the next line has begun
	})
	return harness.SignIn(t, p, words[0], words[1])
}

const readPayment = `query($id: ID!) { order(id: $id) { status paymentStatus refundRequestedAt items { product { stock } }
	payment { id status failure reference amount { amount currency } order { id } attempts { number instance outcome message } } } }`

// buyFor places an order of one unit that costs the amount, and returns its id.
func buyFor(t *testing.T, admin, buyer harness.Caller, sku, amount string) string {
	t.Helper()
	data := admin.Do(t, `mutation($sku: String!, $amount: Decimal!) {
		createProduct(input: {sku: $sku, name: $sku, price: {amount: $amount, currency: "EUR"}, stock: 10}) { product { id } userErrors { code } }
	}`, map[string]any{"sku": sku, "amount": amount})
	if harness.Text(data, "createProduct", "product", "id") == "" {
		t.Fatalf("createProduct gave %v", data)
	}
	placed := buyer.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine(sku, 1)}})
	return harness.Text(placed, "placeOrder", "order", "id")
}

// awaitStatus waits until the order has the status, and returns it.
func awaitStatus(t *testing.T, c harness.Caller, id, status string) (order any) {
	t.Helper()
	harness.EventuallyWithin(t, time.Minute, fmt.Sprintf("order %s is %s", id, status), func() bool {
		order = harness.At(c.Do(t, readPayment, map[string]any{"id": id}), "order")
		return harness.Text(order, "status") == status
	})
	return order
}

func TestSandbox_settles_orders(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p, admin := startDemo(t, database)
		ada := harness.SignUp(t, p, "grace")
		paid, declined := buyFor(t, admin, ada, "PAID", "12.50"), buyFor(t, admin, ada, "DECLINED", "40.20")
		lost, late := buyFor(t, admin, ada, "LOST", "40.80"), buyFor(t, admin, ada, "LATE", "20.20")

		o := awaitStatus(t, admin, paid, "PAID")
		if harness.Text(o, "payment", "status") != "SUCCEEDED" || harness.Text(o, "paymentStatus") != "SUCCEEDED" || harness.Text(o, "payment", "amount", "amount") != "12.50" ||
			harness.Text(o, "payment", "order", "id") != paid || harness.Text(o, "payment", "attempts", 0, "instance") != "sandbox" || harness.Text(o, "payment", "attempts", 0, "outcome") != "SUCCEEDED" {
			t.Errorf("a paid order is %v", o)
		}
		if own := awaitStatus(t, ada, paid, "PAID"); harness.At(own, "payment", "attempts", 0, "instance") != nil || harness.Text(own, "payment", "attempts", 0, "outcome") != "SUCCEEDED" {
			t.Errorf("its customer sees %v", own)
		}
		o = awaitStatus(t, admin, declined, "CANCELLED")
		if harness.Text(o, "payment", "status") != "FAILED" || harness.Text(o, "payment", "failure") != "card_declined" || harness.Number(o, "items", 0, "product", "stock") != 10 {
			t.Errorf("a declined order is %v", o)
		}
		o = awaitStatus(t, admin, lost, "PAID")
		if harness.Text(o, "payment", "attempts", 0, "outcome") != "UNKNOWN" {
			t.Errorf("an order whose answer was lost is %v", o)
		}
		o = awaitStatus(t, admin, late, "PAID")
		if harness.Text(o, "payment", "attempts", 0, "outcome") != "ACCEPTED" {
			t.Errorf("an order that was paid late is %v", o)
		}
		checkRefund(t, ada, admin, paid)
		checkTransports(t, ada, admin, harness.SignUp(t, p, "heidi"), declined)
	})
}

// checkRefund asks for the refund of a paid order.
func checkRefund(t *testing.T, ada, admin harness.Caller, id string) {
	t.Helper()
	if got := ada.Do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id}); harness.Text(got, "cancelOrder", "userErrors", 0, "code") != "ORDER_NOT_CANCELLABLE" {
		t.Errorf("cancelling a paid order gave %v", got)
	}
	ada.Do(t, `mutation($id: ID!) { refundOrder(input: {id: $id, reason: "too big"}) { userErrors { code } } }`, map[string]any{"id": id})
	o := awaitStatus(t, admin, id, "REFUNDED")
	if harness.Text(o, "payment", "status") != "REFUNDED" || harness.Number(o, "items", 0, "product", "stock") != 10 {
		t.Errorf("a refunded order is %v", o)
	}
	var types []string
	for _, e := range harness.At(admin.Do(t, `query($id: ID!) { order(id: $id) { events(first: 20) { nodes { type } } } }`, map[string]any{"id": id}), "order", "events", "nodes").([]any) {
		types = append(types, harness.Text(e, "type"))
	}
	want := []string{"ORDER_PLACED", "PAYMENT_REQUESTED", "PAYMENT_SUCCEEDED", "ORDER_PAID", "PAYMENT_REFUND_REQUESTED", "PAYMENT_REFUNDED", "ORDER_REFUNDED"}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("the events of a refunded order (-want +got):\n%s", diff)
	}
}

// checkTransports reads a failed payment over GraphQL and REST, as its customer and as another one.
func checkTransports(t *testing.T, ada, admin, bob harness.Caller, id string) {
	t.Helper()
	failed := admin.Do(t, `query($id: ID!) { payments(filter: {status: FAILED, orderId: $id}) { nodes { id } totalCount } }`, map[string]any{"id": id})
	payment := harness.Text(failed, "payments", "nodes", 0, "id")
	if harness.Number(failed, "payments", "totalCount") != 1 {
		t.Errorf("the payments that failed are %v", failed)
	}
	if got := harness.Text(ada.MustREST(t, http.StatusOK, "GET /payments/"+payment, "").JSON(t), "failure"); got != "card_declined" {
		t.Errorf("GET /payments/{id} shows the failure %q", got)
	}
	if got := harness.Text(ada.MustREST(t, http.StatusOK, "GET /orders/"+id, "").JSON(t), "payment_status"); got != "FAILED" {
		t.Errorf("GET /orders/{id} shows the payment status %q", got)
	}
	list := admin.MustREST(t, http.StatusOK, "GET /payments?status=FAILED&order_id="+id, "").JSON(t).([]any)
	if len(list) != 1 || harness.Text(list[0], "id") != payment {
		t.Errorf("GET /payments shows %v", list)
	}
	bob.MustREST(t, http.StatusNotFound, "GET /payments/"+payment, "")
	if got := bob.Do(t, `query($id: ID!) { node(id: $id) { id } payment(id: $id) { id } }`, map[string]any{"id": payment}); harness.At(got, "payment") != nil || harness.At(got, "node") != nil {
		t.Errorf("another customer sees %v", got)
	}
}
