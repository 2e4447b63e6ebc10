package executor

import (
	"context"

	"github.com/backplane-dev/backplane/internal/fault"
)

type idempotencyKey struct{}

// WithIdempotencyKey returns a context that carries the idempotency key of a request
// with one mutation.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// IdempotencyKey returns the key in ctx, empty if the client sent none.
func IdempotencyKey(ctx context.Context) string {
	key, _ := ctx.Value(idempotencyKey{}).(string)
	return key
}

// maxIdempotencyKey is the length of the longest key in characters.
const maxIdempotencyKey = 200

// CheckIdempotencyKey returns IDEMPOTENCY_KEY_INVALID unless the key has 1 to
// 200 printable ASCII characters.
func CheckIdempotencyKey(key string) error {
	ok := len(key) >= 1 && len(key) <= maxIdempotencyKey
	for i := range len(key) {
		ok = ok && key[i] >= ' ' && key[i] <= '~'
	}
	if ok {
		return nil
	}
	return fault.New(fault.IdempotencyKeyInvalid, "An idempotency key has 1 to %d printable ASCII characters.", maxIdempotencyKey)
}
