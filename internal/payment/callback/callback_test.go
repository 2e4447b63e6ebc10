package callback_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/payment/callback"
	"github.com/backplane-dev/backplane/internal/signing"
)

var now = time.Unix(1_800_000_000, 0).UTC()

func newSecret(t testing.TB, letter string) signing.Secret {
	t.Helper()
	s, err := signing.ParseSecret("whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// headers returns the headers of a message as a provider sends them.
func headers(m signing.Message) http.Header {
	h := http.Header{}
	h.Set("webhook-id", m.ID)
	h.Set("webhook-timestamp", m.Timestamp)
	h.Set("webhook-signature", m.Signature)
	return h
}

func TestReceiver(t *testing.T) {
	t.Parallel()
	const pay, data = "pay_01j9zq4m8ye7v9k2t3w5x6y7z8", `"status":"SUCCEEDED","reference":"ch_1"`
	answer := payment.Answer{Status: payment.AnswerSucceeded, Reference: "ch_1"}
	current, former, foreign := newSecret(t, "c"), newSecret(t, "f"), newSecret(t, "x")
	for name, tt := range map[string]struct {
		body  string
		by    signing.Secret
		want  *payment.Callback
		code  fault.Code
		stats callback.Stats
		inbox error
	}{
		"the outcome of a payment": {
			body: `{"type":"payment.updated","timestamp":"x","data":{"id":"` + pay + `",` + data + `}}`, by: current,
			want: &payment.Callback{ID: "msg_1", Payment: pay, Answer: answer, At: now}, stats: callback.Stats{Accepted: 1},
		},
		"that of a refund, by the former secret": {
			body: `{"type":"refund.updated","data":{"id":"r1","paymentId":"` + pay + `",` + data + `}}`, by: former,
			want: &payment.Callback{ID: "msg_1", Payment: pay, Refund: "r1", Answer: answer, At: now}, stats: callback.Stats{Accepted: 1},
		},
		"an inbox that cannot store": {
			body: `{"type":"payment.updated","data":{"id":"` + pay + `",` + data + `}}`, by: current,
			want: &payment.Callback{ID: "msg_1", Payment: pay, Answer: answer, At: now}, inbox: errors.New("no database"), code: fault.Internal, stats: callback.Stats{Failed: 1},
		},
		"a foreign signature":      {body: `{"type":"payment.updated","data":{"id":"` + pay + `",` + data + `}}`, by: foreign, code: fault.Unauthenticated, stats: callback.Stats{Refused: 1}},
		"a body that is no JSON":   {body: `hello`, by: current, code: fault.BadRequest, stats: callback.Stats{Invalid: 1}},
		"another type":             {body: `{"type":"payment.made","data":{"id":"` + pay + `",` + data + `}}`, by: current, code: fault.BadRequest, stats: callback.Stats{Invalid: 1}},
		"an unknown status":        {body: `{"type":"payment.updated","data":{"id":"` + pay + `","status":"MAYBE"}}`, by: current, code: fault.BadRequest, stats: callback.Stats{Invalid: 1}},
		"an id that is no payment": {body: `{"type":"payment.updated","data":{"id":"ord_01j9zq4m8ye7v9k2t3w5x6y7z8",` + data + `}}`, by: current, code: fault.BadRequest, stats: callback.Stats{Invalid: 1}},
		"a refund without its id":  {body: `{"type":"refund.updated","data":{"paymentId":"` + pay + `",` + data + `}}`, by: current, code: fault.BadRequest, stats: callback.Stats{Invalid: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *payment.Callback
			r, err := callback.NewReceiver([]signing.Secret{current, former}, func() time.Time { return now }, func(_ context.Context, c payment.Callback) error {
				got = &c
				return tt.inbox
			})
			if err != nil {
				t.Fatal(err)
			}
			err = r.Receive(t.Context(), headers(signing.Sign(tt.by, "msg_1", now, []byte(tt.body))), []byte(tt.body))
			if code := codeOf(err); code != tt.code || r.Stats() != tt.stats {
				t.Errorf("Receive = %v, counted %+v; want %q, %+v", err, r.Stats(), tt.code, tt.stats)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("the inbox gets (-want +got):\n%s", diff)
			}
		})
	}
}

func codeOf(err error) fault.Code {
	if err == nil {
		return ""
	}
	return fault.From(err).Code
}

// FuzzReceiver sends signed bodies: whatever a provider writes is refused or names a payment.
func FuzzReceiver(f *testing.F) {
	secret := newSecret(f, "c")
	f.Add([]byte(`{"type":"payment.updated","data":{"id":"pay_01j9zq4m8ye7v9k2t3w5x6y7z8","status":"FAILED","failure":"x"}}`))
	f.Add([]byte(`{"type":"refund.updated","data":{"id":"r1","paymentId":"pay_01j9zq4m8ye7v9k2t3w5x6y7z8","status":"PENDING"}}`))
	f.Add([]byte(`{"data":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := callback.NewReceiver([]signing.Secret{secret}, func() time.Time { return now }, func(_ context.Context, c payment.Callback) error {
			if !strings.HasPrefix(string(c.Payment), "pay_") || len(c.Payment) != 30 || len(c.Refund) > 100 || len(c.Answer.Message) > 500 || len(c.Answer.Reference) > 200 || len(c.Answer.Failure) > 64 {
				t.Errorf("the inbox gets %+v", c)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Receive(t.Context(), headers(signing.Sign(secret, "msg_1", now, body)), body); err != nil && !fault.Is(err, fault.BadRequest) {
			t.Errorf("Receive = %v", err)
		}
	})
}
