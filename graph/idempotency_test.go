package graph

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
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

func TestFingerprintCall_survives_a_release_with_more_optional_fields(t *testing.T) {
	t.Parallel()
	type line struct {
		Sku  string
		Note graphql.Omittable[*string]
	}
	type newLine struct {
		Added graphql.Omittable[*string]
		Sku   string
		Note  graphql.Omittable[*string]
		Gift  *bool
	}
	type input[L any] struct {
		Items []*L
		Note  graphql.Omittable[*string]
	}
	type newInput struct {
		Items   []*newLine
		Coupons []string
		Note    graphql.Omittable[*string]
		Labels  map[string]string
		Last    graphql.Omittable[*int]
	}
	note := graphql.OmittableOf(ptr("x"))
	before := fingerprintCall([]byte("s"), "placeOrder", input[line]{Items: []*line{{Sku: "A", Note: note}, {Sku: "B"}}, Note: note})
	after := fingerprintCall([]byte("s"), "placeOrder", newInput{Items: []*newLine{{Sku: "A", Note: note}, {Sku: "B"}}, Note: note})
	if before != after {
		t.Error("a call of before has another fingerprint in a release with more optional fields")
	}
	moved := fingerprintCall([]byte("s"), "placeOrder", newInput{Items: []*newLine{{Sku: "A"}, {Sku: "B", Note: note}}, Note: note})
	if moved == after {
		t.Error("a field of another line gives the same fingerprint")
	}
}

func TestClaimCall_takes_the_key_from_header_or_field(t *testing.T) {
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
			ctx := inMutation(t.Context(), "placeOrder")
			if !tt.anonymous {
				ctx = signedIn(ctx)
			}
			if tt.header != "" {
				ctx = executor.WithIdempotencyKey(ctx, tt.header)
			}
			got, err := (&Resolver{secret: []byte("s")}).claimCall(ctx, tt.field, model.PlaceOrderInput{})
			want := claim.Claim(claim.None)
			if tt.want != "" {
				want = claim.Call{Caller: "usr_1", Key: tt.want, Fingerprint: fingerprintCall([]byte("s"), "placeOrder", model.PlaceOrderInput{})}
			}
			if got != want || tt.code != "" && !fault.Is(err, tt.code) || tt.code == "" && err != nil {
				t.Errorf("claimCall = %+v, %v; want %+v and error code %q", got, err, want, tt.code)
			}
			if err != nil && !slices.Equal(fault.From(err).Path, []string{"idempotencyKey"}) {
				t.Errorf("path of the error = %v, want idempotencyKey", fault.From(err).Path)
			}
		})
	}
}

// inMutation returns a context in which the executor resolves a mutation.
func inMutation(ctx context.Context, name string) context.Context {
	return graphql.WithFieldContext(ctx, &graphql.FieldContext{Object: "Mutation", Field: graphql.CollectedField{Field: &ast.Field{Name: name}}})
}

func signedIn(ctx context.Context) context.Context {
	return auth.With(ctx, &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")})
}

// mutationsWithoutKey are the mutations that take effect each time: those that return a
// secret, which no duplicate may read again, and the heartbeats, picks and outcomes of the registry.
var mutationsWithoutKey = []string{
	"createApiKey", "createStreamTicket", "pickInstance", "refreshSession", "renewInstance", "reportOutcome", "signIn", "signUp",
}

// The resolvers have no use cases here: one that calls any before it makes its claim panics.
func TestMutations_that_take_an_idempotency_key_claim_it_first(t *testing.T) {
	t.Parallel()
	var without []string
	for _, m := range Definitions().Mutation.Fields {
		resolve := mutationMethod(t, m.Name)
		input := reflect.New(resolve.Type().In(1)).Elem()
		key := input.FieldByName("IdempotencyKey")
		if !key.IsValid() {
			without = append(without, m.Name)
			continue
		}
		key.Set(reflect.ValueOf(graphql.OmittableOf(ptr("malformed\n"))))
		err := callMutation(inMutation(signedIn(t.Context()), m.Name), resolve, input)
		if !fault.Is(err, fault.IdempotencyKeyInvalid) {
			t.Errorf("%s with a malformed key = %v, want IDEMPOTENCY_KEY_INVALID", m.Name, err)
		}
	}
	slices.Sort(without)
	if diff := cmp.Diff(mutationsWithoutKey, without); diff != "" {
		t.Errorf("mutations without an idempotency key (-want +got):\n%s", diff)
	}
}

// mutationMethod returns the resolver of a mutation.
func mutationMethod(t *testing.T, name string) reflect.Value {
	t.Helper()
	r := reflect.ValueOf((&Resolver{}).Mutation())
	for m := range r.Type().Methods() {
		if strings.EqualFold(m.Name, name) {
			return r.Method(m.Index)
		}
	}
	t.Fatalf("no resolver of the mutation %s", name)
	return reflect.Value{}
}

// callMutation calls a resolver and returns its error, or its panic as one.
func callMutation(ctx context.Context, resolve, input reflect.Value) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	err, _ = reflect.TypeAssert[error](resolve.Call([]reflect.Value{reflect.ValueOf(ctx), input})[1])
	return err
}
