package graph

import (
	"testing"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

func ptr[T any](v T) *T { return &v }

func anOrder(note graphql.Omittable[*string], skus ...string) model.PlaceOrderInput {
	in := model.PlaceOrderInput{Note: note}
	for _, sku := range skus {
		in.Items = append(in.Items, &model.OrderItemInput{Sku: sku, Quantity: 1})
	}
	return in
}

func TestFingerprintCall_differs_for_different_calls(t *testing.T) {
	t.Parallel()
	none := graphql.Omittable[*string]{}
	seen := map[[32]byte]string{}
	for name, fp := range map[string][32]byte{
		"an order":                           fingerprintCall([]byte("s"), "placeOrder", anOrder(none, "A", "B")),
		"under another secret":               fingerprintCall([]byte("t"), "placeOrder", anOrder(none, "A", "B")),
		"of another mutation":                fingerprintCall([]byte("s"), "otherOrder", anOrder(none, "A", "B")),
		"with its lines the other way":       fingerprintCall([]byte("s"), "placeOrder", anOrder(none, "B", "A")),
		"with its SKUs cut another way":      fingerprintCall([]byte("s"), "placeOrder", anOrder(none, "AB", "")),
		"with one line less":                 fingerprintCall([]byte("s"), "placeOrder", anOrder(none, "A")),
		"with a note that is null":           fingerprintCall([]byte("s"), "placeOrder", anOrder(graphql.OmittableOf[*string](nil), "A", "B")),
		"with a note that is empty":          fingerprintCall([]byte("s"), "placeOrder", anOrder(graphql.OmittableOf(ptr("")), "A", "B")),
		"with a note that spells the others": fingerprintCall([]byte("s"), "placeOrder", anOrder(graphql.OmittableOf(ptr("null;")), "A", "B")),
	} {
		if other, twice := seen[fp]; twice {
			t.Errorf("an order %s has the fingerprint of an order %s", name, other)
		}
		seen[fp] = name
	}
}

func TestFingerprintCall_is_equal_for_equal_calls(t *testing.T) {
	t.Parallel()
	a, b := anOrder(graphql.OmittableOf(ptr("x")), "A"), anOrder(graphql.OmittableOf(ptr("x")), "A")
	b.IdempotencyKey = graphql.OmittableOf(ptr("in the field, not in the header"))
	if fingerprintCall([]byte("s"), "placeOrder", a) != fingerprintCall([]byte("s"), "placeOrder", b) {
		t.Error("the key itself is part of the fingerprint")
	}
}

func TestWithIdempotentCall_takes_the_key_from_header_or_field(t *testing.T) {
	t.Parallel()
	absent := graphql.Omittable[*string]{}
	tests := []struct {
		name      string
		anonymous bool
		header    string
		field     graphql.Omittable[*string]
		want      string // the claimed key
		code      fault.Code
	}{
		{name: "no key claims nothing", field: absent},
		{name: "the header's", header: "h", field: absent, want: "h"},
		{name: "the field's", field: graphql.OmittableOf(ptr("f")), want: "f"},
		{name: "both, if they agree", header: "k", field: graphql.OmittableOf(ptr("k")), want: "k"},
		{name: "not if they differ", header: "h", field: graphql.OmittableOf(ptr("f")), code: fault.IdempotencyKeyInvalid},
		{name: "not an empty field", field: graphql.OmittableOf(ptr("")), code: fault.IdempotencyKeyInvalid},
		{name: "not a field with a newline", field: graphql.OmittableOf(ptr("a\nb")), code: fault.IdempotencyKeyInvalid},
		{name: "a null field says nothing", header: "h", field: graphql.OmittableOf[*string](nil), want: "h"},
		{name: "anonymous callers have none", anonymous: true, header: "h", field: absent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if !tt.anonymous {
				ctx = auth.With(ctx, &auth.Principal{UserID: uid.User("usr_1"), Credential: auth.SessionCredential("ses_1")})
			}
			if tt.header != "" {
				ctx = executor.WithIdempotencyKey(ctx, tt.header)
			}
			ctx, err := withIdempotentCall(ctx, []byte("s"), "placeOrder", model.PlaceOrderInput{IdempotencyKey: tt.field})
			call, ok := auth.CallFrom(ctx)
			if call.Key != tt.want || ok != (tt.want != "") || tt.code != "" && !fault.Is(err, tt.code) || tt.code == "" && err != nil {
				t.Errorf("claim gave key %q and error %v, want %q and %q", call.Key, err, tt.want, tt.code)
			}
		})
	}
}

func TestWithIdempotentCall_ignores_mutations_that_return_a_secret(t *testing.T) {
	t.Parallel()
	ctx := executor.WithIdempotencyKey(auth.With(t.Context(), &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}), "k")
	for name, input := range map[string]any{
		"signUp": model.SignUpInput{}, "signIn": model.SignInInput{}, "refreshSession": model.RefreshSessionInput{}, "createApiKey": model.CreateAPIKeyInput{},
		"createStreamTicket": model.CreateStreamTicketInput{},
	} {
		got, err := withIdempotentCall(ctx, []byte("s"), name, input)
		if _, claimed := auth.CallFrom(got); claimed || err != nil {
			t.Errorf("%s claims the key (error %v)", name, err)
		}
	}
}
