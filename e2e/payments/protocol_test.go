package payments

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/signing"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestExamples_keep_the_provider_protocol drives the example of each language, two instances with one
// database, by the protocol alone.
func TestExamples_keep_the_provider_protocol(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short run: there are no races of ours in other programs")
	}
	for language, p := range programs {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, harness.StartServer(t, "sqlite:"+filepath.Join(t.TempDir(), "shop.db")))
			database := filepath.Join(t.TempDir(), "payments.db")
			one, two := s.start(t, p, "till-1", database), s.start(t, p, "till-2", database)
			for _, instance := range []string{"till-1", "till-2"} {
				testenv.Eventually(t, instance+" is registered and passes its checks", func() bool { return s.statusOf(t, instance) == "PASSING" })
			}
			chargesOnce(t, one, two)
			refusesMistakes(t, one)
			refunds(t, one, two)
			inbox := newCallbackInbox(t)
			sendsLateOutcomes(t, s.start(t, p, "till-3", database, "--late", p.seconds(200*time.Millisecond)), inbox)
			misbehavesAsTold(t, s.start(t, p, "till-4", database, "--fail", "2", "--die-after", "1"), two)

			one.kill()
			one.start()
			expect(t, one.get("/payments/pay_1"), http.StatusOK, "SUCCEEDED", "a payment after a restart")
			if code := two.terminate(); code != 0 {
				t.Errorf("an instance ends with %d on SIGTERM, want 0", code)
			}
			testenv.Eventually(t, "an instance that stops leaves the registry", func() bool { return s.statusOf(t, "till-2") == "" })
		})
	}
}

// reply is an answer of a payment service.
type reply struct {
	status int
	state  struct {
		ID, PaymentID, Status, Reference, Failure, Code string
	}
	err error
}

func (v *service) call(method, path, key string, body any) (r reply) {
	text, err := json.Marshal(body)
	if err != nil {
		return reply{err: err}
	}
	if raw, ok := body.(string); ok {
		text = []byte(raw)
	}
	if body == nil {
		text = nil
	}
	req, err := http.NewRequest(method, v.url+path, bytes.NewReader(text))
	if err != nil {
		return reply{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	r.err = json.NewDecoder(resp.Body).Decode(&r.state)
	return r
}

func (v *service) get(path string) reply { return v.call(http.MethodGet, path, "", nil) }

// money is a body of the protocol.
func money(id string, minor int64, more ...string) map[string]any {
	b := map[string]any{"id": id, "amount": map[string]any{"minorUnits": minor, "currency": "EUR"}, "orderNumber": "N-1"}
	if len(more) > 0 {
		b["callbackUrl"] = more[0]
	}
	return b
}

func (v *service) charge(id string, minor int64, more ...string) reply {
	return v.call(http.MethodPost, "/payments", id, money(id, minor, more...))
}

func (v *service) refund(payment, id string, minor int64, more ...string) reply {
	return v.call(http.MethodPost, "/payments/"+payment+"/refunds", id, money(id, minor, more...))
}

// expect compares a reply with its status, and with the status of the payment or the code of the error.
func expect(t *testing.T, r reply, status int, want, what string) reply {
	t.Helper()
	if r.err != nil || r.status != status || r.state.Status != want && r.state.Code != want {
		t.Errorf("%s: %+v, want %d %s", what, r, status, want)
	}
	return r
}

func chargesOnce(t *testing.T, one, two *service) {
	t.Helper()
	first := expect(t, one.charge("pay_1", 1299), http.StatusOK, "SUCCEEDED", "a charge")
	again := expect(t, two.charge("pay_1", 1299), http.StatusOK, "SUCCEEDED", "the same charge at another instance")
	read := expect(t, two.get("/payments/pay_1"), http.StatusOK, "SUCCEEDED", "the payment")
	if first.state.Reference == "" || again.state.Reference != first.state.Reference || read.state != first.state {
		t.Errorf("the payment is %+v, again %+v, read %+v; want one", first.state, again.state, read.state)
	}
	var calls sync.WaitGroup
	references := make(chan string, 20)
	for n := range cap(references) {
		calls.Go(func() { references <- []*service{one, two}[n%2].charge("pay_2", 700).state.Reference })
	}
	calls.Wait()
	want := two.get("/payments/pay_2").state.Reference
	for range cap(references) {
		if got := <-references; got != want || got == "" {
			t.Errorf("a concurrent charge has the reference %q, want %q", got, want)
		}
	}
	expect(t, two.charge("pay_1", 1300), http.StatusConflict, "AMOUNT_MISMATCH", "another amount for the same id")
	expect(t, one.charge("pay_3", 4020), http.StatusPaymentRequired, "FAILED", "a card that is declined")
	if r := expect(t, two.charge("pay_3", 4020), http.StatusPaymentRequired, "FAILED", "the same again"); r.state.Failure != "card_declined" {
		t.Errorf("the failure is %q, want card_declined", r.state.Failure)
	}
	expect(t, one.get("/payments/pay_none"), http.StatusNotFound, "PAYMENT_NOT_FOUND", "a payment that was never sent")
}

func refusesMistakes(t *testing.T, one *service) {
	t.Helper()
	expect(t, one.call(http.MethodPost, "/payments", "", money("pay_x", 1)), http.StatusUnprocessableEntity, "INVALID", "a charge without a key")
	expect(t, one.call(http.MethodPost, "/payments", "pay_x", money("pay_x", 0)), http.StatusUnprocessableEntity, "INVALID", "a charge of nothing")
	expect(t, one.call(http.MethodPost, "/payments", "pay_x", "{"), http.StatusBadRequest, "INVALID", "a body that is no JSON")
	expect(t, one.get("/payments/pay_x"), http.StatusNotFound, "PAYMENT_NOT_FOUND", "a charge that was refused")
}

func refunds(t *testing.T, one, two *service) {
	t.Helper()
	first := expect(t, two.refund("pay_1", "ref_1", 1000), http.StatusOK, "SUCCEEDED", "a refund")
	again := expect(t, one.refund("pay_1", "ref_1", 1000), http.StatusOK, "SUCCEEDED", "the same refund at another instance")
	if first.state.Reference == "" || first.state.PaymentID != "pay_1" || again.state != first.state {
		t.Errorf("the refund is %+v, again %+v; want one", first.state, again.state)
	}
	expect(t, one.get("/payments/pay_1/refunds/ref_1"), http.StatusOK, "SUCCEEDED", "the refund")
	expect(t, one.get("/payments/pay_1/refunds/ref_none"), http.StatusNotFound, "REFUND_NOT_FOUND", "a refund that was never sent")
	expect(t, one.refund("pay_1", "ref_1", 999), http.StatusConflict, "AMOUNT_MISMATCH", "another amount for the same refund")
	expect(t, one.refund("pay_1", "ref_2", 300), http.StatusUnprocessableEntity, "INVALID", "more than was paid")
	expect(t, one.refund("pay_3", "ref_3", 4020), http.StatusNotFound, "PAYMENT_NOT_FOUND", "a refund of a payment that was declined")
}

// callbackInbox is where a payment service sends callbacks. It refuses the first of each message, and
// keeps those after it.
type callbackInbox struct {
	url  string
	mu   sync.Mutex
	seen map[string]int // by the id of the message
	got  []string       // type, id and status of those that it took
	bad  []string       // what was wrong
}

func newCallbackInbox(t *testing.T) *callbackInbox {
	t.Helper()
	key, err := signing.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	in := &callbackInbox{seen: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m := signing.Message{ID: r.Header.Get(signing.HeaderID), Timestamp: r.Header.Get(signing.HeaderTimestamp), Signature: r.Header.Get(signing.HeaderSignature), Body: body}
		in.mu.Lock()
		defer in.mu.Unlock()
		if _, err := signing.Verify([]signing.Secret{key}, m, time.Now()); err != nil {
			in.bad = append(in.bad, err.Error())
		}
		if in.seen[m.ID]++; in.seen[m.ID] == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var message struct {
			Type string
			Data struct{ ID, PaymentID, Status string }
		}
		if err := json.Unmarshal(body, &message); err != nil {
			in.bad = append(in.bad, err.Error())
		}
		in.got = append(in.got, fmt.Sprint(message.Type, " ", message.Data.ID, " ", message.Data.PaymentID, " ", message.Data.Status))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	in.url = server.URL
	return in
}

func (in *callbackInbox) await(t *testing.T, want string) {
	t.Helper()
	testenv.Eventually(t, "the callback "+want+" comes again after a refusal", func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, bad := range in.bad {
			t.Errorf("a callback is wrong: %s", bad)
		}
		return len(in.got) > 0 && in.got[len(in.got)-1] == want
	})
}

func sendsLateOutcomes(t *testing.T, late *service, in *callbackInbox) {
	t.Helper()
	expect(t, late.charge("pay_late", 500, in.url), http.StatusAccepted, "PENDING", "a charge whose outcome comes later")
	in.await(t, "payment.updated pay_late  SUCCEEDED")
	expect(t, late.get("/payments/pay_late"), http.StatusOK, "SUCCEEDED", "the payment after its callback")
	expect(t, late.refund("pay_late", "ref_late", 500, in.url), http.StatusAccepted, "PENDING", "a refund whose outcome comes later")
	in.await(t, "refund.updated ref_late pay_late SUCCEEDED")
}

func misbehavesAsTold(t *testing.T, bad, other *service) {
	t.Helper()
	expect(t, bad.refund("pay_2", "ref_4", 1), http.StatusOK, "SUCCEEDED", "the first POST")
	expect(t, bad.refund("pay_2", "ref_5", 1), http.StatusServiceUnavailable, "OVERLOADED", "each second POST")
	if r := bad.charge("pay_dying", 100); r.err == nil {
		t.Errorf("a service that is told to die answers %+v", r)
	}
	expect(t, other.charge("pay_dying", 100), http.StatusOK, "SUCCEEDED", "a payment whose instance died before it answered")
}
