package provider_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/payment/provider"
	"github.com/backplane-dev/backplane/internal/uid"
)

// outcome is an answer or an error in one word.
func outcome(a payment.Answer, err error) string {
	e, failed := errors.AsType[*payment.CallError](err)
	switch {
	case errors.Is(err, payment.ErrUnknownToProvider):
		return "unknown"
	case failed && e.Sent:
		return "sent"
	case failed:
		return "not sent"
	case err != nil:
		return err.Error()
	}
	return string(a.Status)
}

func newSandbox() *provider.Sandbox {
	return provider.NewSandbox(time.Now, slog.New(slog.DiscardHandler))
}

func TestSandbox_follows_its_magic_amounts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		minor int64
		want  []string // of calls: charges (c), reads (f), and reads after the delay (l)
	}{
		"cffc":   {1299, []string{"SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"}},
		"fcf":    {1299, []string{"unknown", "SUCCEEDED", "SUCCEEDED"}},
		"ccf":    {4020, []string{"FAILED", "FAILED", "FAILED"}},
		"cfc":    {14080, []string{"sent", "SUCCEEDED", "SUCCEEDED"}},
		"cccfcf": {5030, []string{"not sent", "not sent", "not sent", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"}},
		"cfcf":   {5030, []string{"not sent", "unknown", "not sent", "unknown"}},
		"cfclc":  {2020, []string{"PENDING", "PENDING", "PENDING", "SUCCEEDED", "SUCCEEDED"}},
		"cfl":    {2040, []string{"PENDING", "PENDING", "SUCCEEDED"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSandbox()
				r := payment.ChargeRequest{Payment: paid, Amount: money.Money{Minor: tt.minor, Currency: "JPY"}}
				var got []string
				for _, step := range name {
					switch step {
					case 'c':
						got = append(got, outcome(s.Charge(t.Context(), r)))
					case 'l':
						time.Sleep(provider.SandboxDelay)
						fallthrough
					default:
						got = append(got, outcome(s.FindPayment(t.Context(), paid)))
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("the outcomes differ (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestSandbox_refuses_another_amount_and_refunds(t *testing.T) {
	t.Parallel()
	s := newSandbox()
	if got := outcome(s.Charge(t.Context(), charge)); got != "SUCCEEDED" {
		t.Fatal(got)
	}
	other := charge
	other.Amount.Minor++
	if got := outcome(s.Charge(t.Context(), other)); got != "not sent" {
		t.Errorf("another amount for the same id: %s, want a refusal", got)
	}
	if got := outcome(s.FindRefund(t.Context(), paid, refund)) + " " + outcome(s.Refund(t.Context(), giveBack)) + " " + outcome(s.FindRefund(t.Context(), paid, refund)); got != "unknown SUCCEEDED SUCCEEDED" {
		t.Errorf("a refund is %s", got)
	}
}

func TestSandbox_says_that_it_answers(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := provider.NewSandbox(time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		if a, err := s.Charge(t.Context(), charge); err != nil || a.Instance != provider.SandboxInstance || !strings.Contains(a.Message, "no money") {
			t.Errorf("the answer is %+v, %v", a, err)
		}
	}
	if n := strings.Count(log.String(), "sandbox"); n != 1 {
		t.Errorf("the log says %d times that the sandbox answers, want once:\n%s", n, log.String())
	}
}

func TestSandbox_sends_late_outcomes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSandbox()
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var got []string
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(_ context.Context, c payment.Callback) error {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, c.ID+" "+string(c.Payment)+" "+string(c.Answer.Status))
				return errors.New("it is lost")
			})
		}()
		for id, minor := range map[uid.Payment]int64{"pay_late": 2020, "pay_now": 1299} {
			_, _ = s.Charge(ctx, payment.ChargeRequest{Payment: id, Amount: money.Money{Minor: minor, Currency: "EUR"}})
		}
		time.Sleep(time.Second)
		_, _ = s.Charge(ctx, payment.ChargeRequest{Payment: "pay_twice", Amount: money.Money{Minor: 2040, Currency: "EUR"}})
		synctest.Wait()
		mu.Lock()
		if len(got) > 0 {
			t.Errorf("callbacks come before their time: %v", got)
		}
		mu.Unlock()
		time.Sleep(2 * provider.SandboxDelay)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{"sandbox_pay_late pay_late SUCCEEDED", "sandbox_pay_twice pay_twice SUCCEEDED", "sandbox_pay_twice pay_twice SUCCEEDED", "sandbox_pay_twice_other pay_twice SUCCEEDED"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the callbacks differ (-want +got):\n%s", diff)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestFallback_asks_a_marked_service_alone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, provider.Config{}, gateway.Policy{AllPrivate: true})
	p := &provider.Fallback{Registered: f.client, Sandbox: newSandbox()}
	if _, err := p.Charge(t.Context(), charge); !errors.Is(err, payment.ErrNoProvider) {
		t.Errorf("a marked service without instances answers %v, want ErrNoProvider", err)
	}
	f.mark(false)
	if a, err := p.Charge(t.Context(), charge); err != nil || a.Instance != provider.SandboxInstance {
		t.Errorf("without a marked service the answer is %+v, %v, want the sandbox's", a, err)
	}
}
