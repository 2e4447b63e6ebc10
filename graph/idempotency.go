package graph

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// claimCall returns the claim of a mutation's call: a claim.Call if the client sent an
// idempotency key, in the input or for the whole request, else claim.None. It is the first
// statement of each mutation whose input has the field. Anonymous callers claim nothing.
// IDEMPOTENCY_KEY_INVALID, at idempotencyKey, for a malformed key or two that differ.
func (r *Resolver) claimCall(ctx context.Context, inInput graphql.Omittable[*string], input any) (claim.Claim, error) {
	caller := auth.From(ctx)
	if caller == nil {
		return claim.None, nil
	}
	key, given := executor.IdempotencyKey(ctx), inInput.Value()
	switch {
	case given != nil && key != "" && key != *given:
		return claim.None, fault.New(fault.IdempotencyKeyInvalid, "The header Idempotency-Key and the input say different keys.").At("idempotencyKey")
	case given != nil:
		key = *given
	case key == "":
		return claim.None, nil
	}
	if err := executor.CheckIdempotencyKey(key); err != nil {
		return claim.None, fault.From(err).At("idempotencyKey")
	}
	mutation := graphql.GetFieldContext(ctx).Field.Name
	return claim.Call{Caller: caller.UserID, Key: key, Fingerprint: fingerprintCall(r.secret, mutation, input)}, nil
}

// fingerprintCall returns the fingerprint of a call: an HMAC of the mutation's name and
// its coerced input without the key. It reads the input as the resolver gets it, so
// equal calls have equal fingerprints however they are written: with literals or
// variables, with or without defaults, over GraphQL or REST. Fields that the client did not send
// add nothing, so a fingerprint stays what it is in a release with more optional fields;
// and the secret is derived from the data key, which outlasts a change of the operator's key.
func fingerprintCall(secret []byte, mutation string, input any) [32]byte {
	h := hmac.New(sha256.New, secret)
	_, _ = fmt.Fprintf(h, "%q", mutation)
	writeValue(h, reflect.ValueOf(input))
	return [32]byte(h.Sum(nil))
}

// writeValue writes a value so that only equal values give equal bytes: with lengths, and
// with absent distinct from null where the schema tells them apart.
func writeValue(h hash.Hash, v reflect.Value) {
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
		_, _ = io.WriteString(h, "null;")
	case v.Kind() == reflect.Pointer:
		writeValue(h, v.Elem())
	case v.Type() == reflect.TypeFor[time.Time]():
		_, _ = fmt.Fprintf(h, "t%d;", v.Interface().(time.Time).UnixMicro())
	case isOmittable(v):
		writeValue(h, v.MethodByName("Value").Call(nil)[0])
	case v.Kind() == reflect.Struct:
		writeStruct(h, v)
	case v.Kind() == reflect.Slice && v.IsNil():
		_, _ = io.WriteString(h, "null;")
	case v.Kind() == reflect.Slice:
		_, _ = fmt.Fprintf(h, "[%d;", v.Len())
		for i := range v.Len() {
			writeValue(h, v.Index(i))
		}
	case v.Kind() == reflect.Map:
		writeMap(h, v)
	case v.Kind() == reflect.String:
		_, _ = fmt.Fprintf(h, "s%d:%s;", v.Len(), v.String())
	default:
		_, _ = fmt.Fprintf(h, "%v;", v.Interface())
	}
}

// writeMap writes the entries of a map whose keys are strings in their order.
func writeMap(h hash.Hash, v reflect.Value) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	_, _ = fmt.Fprintf(h, "{%d;", len(keys))
	for _, k := range keys {
		writeValue(h, k)
		writeValue(h, v.MapIndex(k))
	}
}

// writeStruct writes the fields that the client sent, but for the idempotency key.
func writeStruct(h hash.Hash, v reflect.Value) {
	_, _ = io.WriteString(h, "(")
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; name != "IdempotencyKey" && isSent(v.Field(i)) {
			_, _ = io.WriteString(h, name+":")
			writeValue(h, v.Field(i))
		}
	}
	_, _ = io.WriteString(h, ")")
}

// isSent reports whether the client sent a field: one that may be absent is set, and another is not null.
func isSent(v reflect.Value) bool {
	if isOmittable(v) {
		return isSet(v)
	}
	return v.Kind() != reflect.Pointer && v.Kind() != reflect.Slice && v.Kind() != reflect.Map || !v.IsNil()
}

func isOmittable(v reflect.Value) bool {
	return v.Kind() == reflect.Struct && v.MethodByName("IsSet").IsValid()
}

func isSet(omittable reflect.Value) bool {
	return omittable.MethodByName("IsSet").Call(nil)[0].Bool()
}
