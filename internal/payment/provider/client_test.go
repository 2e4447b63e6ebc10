package provider_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/payment/provider"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

const (
	paid   uid.Payment      = "pay_00000000000000000000000001"
	refund payment.RefundID = "refund-1"
)

var (
	charge   = payment.ChargeRequest{Payment: paid, Amount: money.Money{Minor: 1299, Currency: "EUR"}, OrderNumber: "N-1"}
	giveBack = payment.RefundRequest{Payment: paid, Refund: refund, Amount: money.Money{Minor: 500, Currency: "KWD"}, Reason: "broken"}
)

// fixture is a Client over a directory with instances on real ports.
type fixture struct {
	t         *testing.T
	directory *registry.Directory
	service   *registry.Service
	client    *provider.Client
}

type emptyStore struct{ registry.Store }

func (emptyStore) Load(context.Context) ([]*registry.Service, []*registry.Instance, error) {
	return nil, nil, nil
}

type noLog struct{}

func (noLog) Lag() time.Duration { return 0 }
func (noLog) Head() event.Cursor { return event.Cursor{} }

// newFixture returns a Client, and a service that is marked as payment provider, with an instance at each URL.
func newFixture(t *testing.T, cfg provider.Config, policy gateway.Policy, urls ...string) *fixture {
	t.Helper()
	f := &fixture{t: t, directory: registry.NewDirectory(emptyStore{}, noLog{}, time.Now, slog.New(slog.DiscardHandler))}
	if err := f.directory.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool, err := balance.NewPool(time.Now, balance.Config{})
	if err != nil {
		t.Fatal(err)
	}
	guard, err := gateway.NewGuard(policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.client, err = provider.NewClient(provider.Deps{Guard: guard, Directory: f.directory, Pool: pool}, cfg); err != nil {
		t.Fatal(err)
	}
	if f.service, err = registry.NewService(registry.ServiceInput{Name: payment.DefaultService}, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.mark(true)
	for n, u := range urls {
		i, err := registry.NewInstance(f.service.ID, registry.InstanceInput{InstanceID: fmt.Sprintf("till-%d", n+1), URL: u}, time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		f.directory.ApplyInstance(i)
	}
	return f
}

func (f *fixture) mark(yes bool) {
	f.t.Helper()
	s := *f.service
	if err := s.Apply(registry.ServiceChange{PaymentProvider: validate.Of(yes)}, time.Now()); err != nil {
		f.t.Fatal(err)
	}
	f.service = &s
	f.directory.ApplyService(f.service)
}

func startServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// closedPort returns the URL of a port without a listener.
func closedPort(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL
}

func answerWith(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func breakOff(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

const succeeded = `{"id":"pay_00000000000000000000000001","status":"SUCCEEDED","reference":"ch_1","failure":"","message":"thanks"}`

func callError(t *testing.T, err error) *payment.CallError {
	t.Helper()
	e, ok := errors.AsType[*payment.CallError](err)
	if !ok {
		t.Fatalf("the error is %v, want a CallError", err)
	}
	return e
}

var anywhere = gateway.Policy{AllPrivate: true}

// TestClient_sends_what_the_protocol_says holds each call against the requests of the protocol.
func TestClient_sends_what_the_protocol_says(t *testing.T) {
	t.Parallel()
	var got []string
	var mu sync.Mutex
	server := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, fmt.Sprintf("%s %s key=%s type=%s %s", r.Method, r.URL.Path, r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), body))
		mu.Unlock()
		id := string(paid)
		if strings.Contains(r.URL.Path, "/refunds") {
			id = string(refund)
		}
		_ = json.NewEncoder(w).Encode(provider.State{ID: id, Status: payment.AnswerPending, Reference: "r"})
	})
	f := newFixture(t, provider.Config{CallbackURL: "https://shop.example/callbacks/payments"}, anywhere, server+"/base")
	want := payment.Answer{Status: payment.AnswerPending, Reference: "r", Instance: "till-1"}
	for _, call := range []func() (payment.Answer, error){
		func() (payment.Answer, error) { return f.client.Charge(t.Context(), charge) },
		func() (payment.Answer, error) { return f.client.FindPayment(t.Context(), paid) },
		func() (payment.Answer, error) { return f.client.Refund(t.Context(), giveBack) },
		func() (payment.Answer, error) { return f.client.FindRefund(t.Context(), paid, refund) },
	} {
		if a, err := call(); err != nil || a != want {
			t.Errorf("the answer is %+v, %v, want %+v", a, err, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{
		`POST /base/payments key=pay_00000000000000000000000001 type=application/json {"id":"pay_00000000000000000000000001","amount":{"minorUnits":1299,"currency":"EUR"},"orderNumber":"N-1","callbackUrl":"https://shop.example/callbacks/payments"}`,
		`GET /base/payments/pay_00000000000000000000000001 key= type= `,
		`POST /base/payments/pay_00000000000000000000000001/refunds key=refund-1 type=application/json {"id":"refund-1","amount":{"minorUnits":500,"currency":"KWD"},"reason":"broken","callbackUrl":"https://shop.example/callbacks/payments"}`,
		`GET /base/payments/pay_00000000000000000000000001/refunds/refund-1 key= type= `,
	}, got); diff != "" {
		t.Errorf("the requests differ (-want +got):\n%s", diff)
	}
}

// TestClient_reads_answers has one case for each row of the table in docs/payments.md.
func TestClient_reads_answers(t *testing.T) {
	t.Parallel()
	declined := `{"id":"` + string(paid) + `","status":"FAILED","failure":"card_declined","message":"no"}`
	for name, tt := range map[string]struct {
		status int
		body   string
		find   bool           // instead of charge
		want   payment.Answer // without an error
		sent   bool           // of the error
		text   string         // in the error's message
		absent bool           // the error is ErrUnknownToProvider
	}{
		"200":                                 {status: 200, body: succeeded, want: payment.Answer{Status: payment.AnswerSucceeded, Reference: "ch_1", Message: "thanks"}},
		"201":                                 {status: 201, body: succeeded, want: payment.Answer{Status: payment.AnswerSucceeded, Reference: "ch_1", Message: "thanks"}},
		"202 while it is under way":           {status: 202, body: strings.Replace(succeeded, "SUCCEEDED", "PENDING", 1), want: payment.Answer{Status: payment.AnswerPending, Reference: "ch_1", Message: "thanks"}},
		"200 with a decline":                  {status: 200, body: declined, want: payment.Answer{Status: payment.AnswerFailed, Failure: "card_declined", Message: "no"}},
		"402":                                 {status: 402, body: declined, want: payment.Answer{Status: payment.AnswerFailed, Failure: "card_declined", Message: "no"}},
		"a decline without its reason":        {status: 402, body: `{"id":"` + string(paid) + `","status":"FAILED"}`, want: payment.Answer{Status: payment.AnswerFailed, Failure: "declined"}},
		"402 of a host that wants its fee":    {status: 402, body: "<html>pay your bill", sent: true, text: "402"},
		"402 with a success":                  {status: 402, body: succeeded, sent: true, text: "402"},
		"200 for another payment":             {status: 200, body: strings.Replace(succeeded, string(paid), "pay_2", 1), sent: true, text: "does not name the payment"},
		"200 with an unknown status":          {status: 200, body: strings.Replace(succeeded, "SUCCEEDED", "DONE", 1), sent: true, text: "does not fit"},
		"200 that is no JSON":                 {status: 200, body: "hello", sent: true, text: "does not name the payment"},
		"200 that is too long":                {status: 200, body: succeeded + strings.Repeat(" ", 64<<10), sent: true, text: "more than 65536 bytes"},
		"204":                                 {status: 204, sent: true, text: "204"},
		"302":                                 {status: 302, sent: true, text: "302"},
		"400":                                 {status: 400, body: `{"code":"X","message":"too\nfew cents"}`, text: "the provider refuses the request: status 400: too few cents"},
		"401":                                 {status: 401, text: "refuses"},
		"404 for a charge":                    {status: 404, body: `{"code":"PAYMENT_NOT_FOUND"}`, text: "refuses"},
		"404 for a payment":                   {status: 404, body: `{"code":"PAYMENT_NOT_FOUND"}`, find: true, absent: true},
		"404 of a program that is no payment": {status: 404, body: "404 page not found", find: true, text: "refuses"},
		"408":                                 {status: 408, sent: true, text: "408"},
		"409 as the amount differs":           {status: 409, body: `{"code":"AMOUNT_MISMATCH"}`, text: "refuses"},
		"409 as another call is under way":    {status: 409, sent: true, text: "409"},
		"422":                                 {status: 422, text: "refuses"},
		"429":                                 {status: 429, text: "slow down"},
		"500":                                 {status: 500, body: "oops", sent: true, text: "500"},
		"503":                                 {status: 503, sent: true, text: "503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, provider.Config{}, anywhere, startServer(t, answerWith(tt.status, tt.body)))
			call := func() (payment.Answer, error) { return f.client.Charge(t.Context(), charge) }
			if tt.find {
				call = func() (payment.Answer, error) { return f.client.FindPayment(t.Context(), paid) }
			}
			a, err := call()
			switch {
			case tt.absent:
				if !errors.Is(err, payment.ErrUnknownToProvider) {
					t.Errorf("the error is %v, want ErrUnknownToProvider", err)
				}
			case tt.text == "":
				if tt.want.Instance = "till-1"; err != nil || a != tt.want {
					t.Errorf("the answer is %+v, %v, want %+v", a, err, tt.want)
				}
			default:
				if e := callError(t, err); e.Sent != tt.sent || !strings.Contains(e.Message, tt.text) || e.Instance != "till-1" || errors.Is(err, payment.ErrNoProvider) {
					t.Errorf("the error is %+v, want sent %v and %q of till-1", e, tt.sent, tt.text)
				}
			}
		})
	}
}

func TestClient_tries_other_instances(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bad      http.HandlerFunc // nil for a closed port
		only     bool             // there is no other instance
		sent     bool
		answered bool
	}{
		"when no connection is made":                 {answered: true},
		"when the connection breaks off":             {bad: breakOff, answered: true},
		"when an instance is overloaded":             {bad: answerWith(503, ""), answered: true},
		"but not after an unclear answer":            {bad: answerWith(500, ""), sent: true},
		"but not after a refusal":                    {bad: answerWith(422, "")},
		"but there may be none, and nothing is sent": {only: true},
		"but there may be none, and it was sent":     {bad: breakOff, only: true, sent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			good := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				_, _ = io.WriteString(w, succeeded)
			})
			bad := closedPort(t)
			if tt.bad != nil {
				bad = startServer(t, tt.bad)
			}
			urls := []string{bad, good}
			if tt.only {
				urls = urls[:1]
			}
			f := newFixture(t, provider.Config{}, anywhere, urls...)
			for range 4 { // the bad one has the first turn in one of them at least
				a, err := f.client.Charge(t.Context(), charge)
				if err == nil {
					if a.Instance != "till-2" || tt.only {
						t.Fatalf("%s answers", a.Instance)
					}
					continue
				}
				if e := callError(t, err); tt.answered || e.Sent != tt.sent || e.Instance != "till-1" {
					t.Fatalf("the error is %+v, want sent %v", e, tt.sent)
				}
				return
			}
			if !tt.answered {
				t.Error("no call met the bad instance")
			}
		})
	}
}

// An instance that took the request and broke off leaves the outcome unknown, also if the attempt at
// another one was not sent.
func TestClient_remembers_that_an_earlier_attempt_was_sent(t *testing.T) {
	t.Parallel()
	f := newFixture(t, provider.Config{}, anywhere, startServer(t, breakOff), closedPort(t))
	for range 4 {
		if _, err := f.client.Charge(t.Context(), charge); !callError(t, err).Sent {
			t.Fatalf("the error is %v, want one that may have been sent", err)
		}
	}
}

func TestClient_waits_no_longer_than_the_time_of_a_call(t *testing.T) {
	t.Parallel()
	slow := startServer(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done() // which ends with the connection
	})
	f := newFixture(t, provider.Config{Timeout: 50 * time.Millisecond}, anywhere, slow)
	_, err := f.client.Charge(t.Context(), charge)
	if e := callError(t, err); !e.Sent || e.Message != "no answer in time" {
		t.Errorf("the error is %+v, want one that was sent and has no answer in time", e)
	}
}

func TestClient_calls_only_a_marked_service_with_instances(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	server := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, succeeded)
	})
	expect := func(t *testing.T, f *fixture) {
		t.Helper()
		_, err := f.client.Charge(t.Context(), charge)
		if e := callError(t, err); e.Sent || !errors.Is(err, payment.ErrNoProvider) || calls.Load() > 0 {
			t.Errorf("the error is %+v after %d calls, want ErrNoProvider and none", e, calls.Load())
		}
	}
	f := newFixture(t, provider.Config{}, anywhere, server)
	f.mark(false)
	expect(t, f)
	if f.client.IsMarked() {
		t.Error("an unmarked service counts as marked")
	}
	expect(t, newFixture(t, provider.Config{}, anywhere))
	expect(t, newFixture(t, provider.Config{Service: "other"}, anywhere, server))
}

func TestClient_dials_through_the_guard(t *testing.T) {
	t.Parallel()
	f := newFixture(t, provider.Config{}, gateway.Policy{}, startServer(t, answerWith(200, succeeded)))
	_, err := f.client.Charge(t.Context(), charge)
	if e := callError(t, err); e.Sent || !strings.Contains(e.Message, "may not be called") {
		t.Errorf("the error is %+v, want one that says that the address may not be called", e)
	}
}

func TestState_Answer_bounds_texts(t *testing.T) {
	t.Parallel()
	s := provider.State{Status: payment.AnswerFailed, Reference: strings.Repeat("é", 150), Failure: "a\x00b", Message: "\xff" + strings.Repeat("m", 1000)}
	a, ok := s.Answer()
	if !ok || a.Reference != strings.Repeat("é", 100) || a.Failure != "a b" || len(a.Message) > 500 || !strings.HasPrefix(a.Message, "mmm") {
		t.Errorf("Answer = %+v, %v", a, ok)
	}
}
