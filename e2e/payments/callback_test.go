package payments

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/signing"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestCallbacks_count_only_with_a_right_signature has a payment service that leaves a payment open, and
// callbacks that say that it has succeeded.
func TestCallbacks_count_only_with_a_right_signature(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short run: there are no races of ours in other programs")
	}
	admin := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	former := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("f", 32)))
	foreign := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 32)))
	p := harness.StartServer(t, "sqlite:"+filepath.Join(t.TempDir(), "shop.db"), "BACKPLANE_PAYMENT_SERVICE="+serviceName,
		"BACKPLANE_PAYMENT_CALLBACK_SECRETS="+secret+","+former, "BACKPLANE_PUBLIC_URL=http://shop.example/", "BACKPLANE_ADMIN_LISTEN="+admin)
	s := newShop(t, p)
	s.start(t, programs["Go"], "till-1", filepath.Join(t.TempDir(), "payments.db"), "--late", "1h")
	harness.CreateProduct(t, s.root, "mug", 10)
	placed := s.root.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("mug", 1)}})
	id := harness.Text(placed, "placeOrder", "order", "id")
	var payment string
	read := func() (status string) {
		o := harness.At(s.root.Do(t, `query($id: ID!) { order(id: $id) { status payment { id attempts { outcome } } } }`, map[string]any{"id": id}), "order")
		payment = harness.Text(o, "payment", "id")
		return harness.Text(o, "status") + " " + harness.Text(o, "payment", "attempts", 0, "outcome")
	}
	testenv.Eventually(t, "the payment service has accepted the payment", func() bool { return read() == "PENDING ACCEPTED" })

	body := fmt.Sprintf(`{"type":"payment.updated","timestamp":"2027-01-15T08:00:00Z","data":{"id":%q,"status":"SUCCEEDED","reference":"ch_1"}}`, payment)
	send := func(by, id, sent string, at time.Time) int {
		t.Helper()
		key, err := signing.ParseSecret(by)
		if err != nil {
			t.Fatal(err)
		}
		m := signing.Sign(key, id, at, []byte(body))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.BaseURL+"/callbacks/payments", strings.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "shop.example"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(signing.HeaderID, m.ID)
		r.Header.Set(signing.HeaderTimestamp, m.Timestamp)
		r.Header.Set(signing.HeaderSignature, m.Signature)
		resp, err := harness.HTTPClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	now := time.Now()
	for name, got := range map[string]int{
		"by a foreign secret": send(foreign, "msg_1", body, now),
		"of another body":     send(secret, "msg_1", strings.Replace(body, "ch_1", "ch_2", 1), now),
		"that is old":         send(secret, "msg_1", body, now.Add(-6*time.Minute)),
		"of the future":       send(secret, "msg_1", body, now.Add(6*time.Minute)),
	} {
		if got != http.StatusUnauthorized {
			t.Errorf("a callback %s is answered with %d, want 401", name, got)
		}
	}
	if got := read(); got != "PENDING ACCEPTED" {
		t.Errorf("after refused callbacks the order is %s, want PENDING ACCEPTED", got)
	}
	for _, by := range []string{former, former, secret} {
		if got := send(by, "msg_1", body, now); got != http.StatusNoContent {
			t.Errorf("a right callback is answered with %d, want 204", got)
		}
	}
	testenv.Eventually(t, "the order is paid", func() bool { return strings.HasPrefix(read(), "PAID ") })
	for outcome, want := range map[string]float64{"refused": 4, "accepted": 3, "invalid": 0, "failed": 0} {
		if got := harness.Metric(t, admin, fmt.Sprintf("backplane_payment_callbacks_total{outcome=%q}", outcome)); got != want {
			t.Errorf("the metric counts %v callbacks as %s, want %v", got, outcome, want)
		}
	}
}
