package fairshare

import (
	"context"
	"sync/atomic"
)

type admissionKey struct{}

// WithAdmission returns the context of an operation that may still be refused as a whole: it has
// used nothing yet that it would be wrong to break off.
func WithAdmission(ctx context.Context) context.Context {
	return context.WithValue(ctx, admissionKey{}, new(atomic.Bool))
}

// Admit makes the operation of ctx one that has begun. Without WithAdmission it does nothing.
func Admit(ctx context.Context) {
	if a, ok := ctx.Value(admissionKey{}).(*atomic.Bool); ok {
		a.Store(true)
	}
}

// IsAdmitted reports whether the operation of ctx has begun and must not be refused any more; true
// without WithAdmission.
func IsAdmitted(ctx context.Context) bool {
	a, ok := ctx.Value(admissionKey{}).(*atomic.Bool)
	return !ok || a.Load()
}
