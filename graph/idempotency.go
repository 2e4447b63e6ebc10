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

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// claim puts the call into the context if the client gave a key for it: in the
// input, or for the request as a whole. Mutations whose input has no such field
// and callers that are strangers have none.
func claim(ctx context.Context, secret []byte, mutation string, input any) (context.Context, error) {
	field := reflect.ValueOf(input)
	if field.Kind() != reflect.Struct || auth.From(ctx) == nil {
		return ctx, nil
	}
	field = field.FieldByName("IdempotencyKey")
	if !field.IsValid() {
		return ctx, nil
	}
	key, given := executor.IdempotencyKey(ctx), omittableText(field)
	switch {
	case given != nil && key != "" && key != *given:
		return ctx, fault.New(fault.Invalid, fault.IdempotencyKeyInvalid, "The header Idempotency-Key and the input say different keys.").At("idempotencyKey")
	case given != nil:
		key = *given
	case key == "":
		return ctx, nil
	}
	if err := executor.CheckIdempotencyKey(key); err != nil {
		return ctx, fault.From(err).At("idempotencyKey")
	}
	return auth.WithCall(ctx, auth.Call{Key: key, Fingerprint: fingerprint(secret, mutation, input)}), nil
}

// fingerprint tells whether two calls are the same: an HMAC of the mutation's
// name and its coerced input, the key aside. Since it reads the input as the
// resolver gets it, spelling does not matter: literals and variables, defaults
// left out or written, GraphQL or REST.
func fingerprint(secret []byte, mutation string, input any) [32]byte {
	h := hmac.New(sha256.New, secret)
	_, _ = fmt.Fprintf(h, "%q", mutation)
	digest(h, reflect.ValueOf(input))
	return [32]byte(h.Sum(nil))
}

// digest writes a value so that two values are written alike only if they are
// equal: with the lengths of what has one, and absent apart from null.
func digest(h hash.Hash, v reflect.Value) {
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
		_, _ = io.WriteString(h, "null;")
	case v.Kind() == reflect.Pointer:
		digest(h, v.Elem())
	case v.Type() == reflect.TypeFor[time.Time]():
		_, _ = fmt.Fprintf(h, "t%d;", v.Interface().(time.Time).UnixMicro())
	case v.Kind() == reflect.Struct && v.MethodByName("IsSet").IsValid():
		digestOmittable(h, v)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "IdempotencyKey" {
				_, _ = io.WriteString(h, name+":")
				digest(h, v.Field(i))
			}
		}
	case v.Kind() == reflect.Slice && v.IsNil():
		_, _ = io.WriteString(h, "null;")
	case v.Kind() == reflect.Slice:
		_, _ = fmt.Fprintf(h, "[%d;", v.Len())
		for i := range v.Len() {
			digest(h, v.Index(i))
		}
	case v.Kind() == reflect.Map:
		digestMap(h, v)
	case v.Kind() == reflect.String:
		_, _ = fmt.Fprintf(h, "s%d:%s;", v.Len(), v.String())
	default:
		_, _ = fmt.Fprintf(h, "%v;", v.Interface())
	}
}

// digestMap writes the entries of a map whose keys are strings in their order.
func digestMap(h hash.Hash, v reflect.Value) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	_, _ = fmt.Fprintf(h, "{%d;", len(keys))
	for _, k := range keys {
		digest(h, k)
		digest(h, v.MapIndex(k))
	}
}

func digestOmittable(h hash.Hash, v reflect.Value) {
	if !isSet(v) {
		_, _ = io.WriteString(h, "absent;")
		return
	}
	digest(h, v.MethodByName("Value").Call(nil)[0])
}

func isSet(omittable reflect.Value) bool {
	return omittable.MethodByName("IsSet").Call(nil)[0].Bool()
}

func omittableText(v reflect.Value) *string {
	s, _ := reflect.TypeAssert[*string](v.MethodByName("Value").Call(nil)[0])
	return s
}
