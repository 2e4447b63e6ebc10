package auth

import (
	"context"
)

type principalKey struct{}

// With returns a context with the caller p.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// WithCurrent returns a context in which From calls current for the caller: a
// stream outlives a request and must not keep the rights that its caller had at the
// start. current must be cheap and safe for concurrent use.
func WithCurrent(ctx context.Context, current func() *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, current)
}

// Current returns a function that returns the current caller as From does, without
// the look-up in the context: for code that calls it often.
func Current(ctx context.Context) func() *Principal {
	switch p := ctx.Value(principalKey{}).(type) {
	case *Principal:
		return func() *Principal { return p }
	case func() *Principal:
		return p
	}
	return func() *Principal { return nil }
}

// From returns the caller, nil for an anonymous one. Under WithCurrent two calls may
// return different principals.
func From(ctx context.Context) *Principal {
	switch p := ctx.Value(principalKey{}).(type) {
	case *Principal:
		return p
	case func() *Principal:
		return p()
	}
	return nil
}

// WithLastKnown returns a context with a caller whose rights cannot be read right
// now; p is the caller as last read. From returns nil and NotSignedIn UNAVAILABLE.
// Only reads that are served without the database use p, by LastKnown.
func WithLastKnown(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, lastKnown{p})
}

type lastKnown struct{ *Principal }

// LastKnown returns the caller or, under WithLastKnown, the caller as last read; nil
// for an anonymous caller. It is for reads from memory during an outage of the
// database, never for changes.
func LastKnown(ctx context.Context) *Principal {
	if p, ok := ctx.Value(principalKey{}).(lastKnown); ok {
		return p.Principal
	}
	return From(ctx)
}

// WithRefused returns a context with a caller that is anonymous because the credential it
// sent was refused with the error. From returns nil and NotSignedIn the error.
func WithRefused(ctx context.Context, err error) context.Context {
	return context.WithValue(ctx, principalKey{}, refused{err})
}

type refused struct{ error }

// Refused returns the error by which the credential of the caller was refused; nil for any
// caller but that of WithRefused.
func Refused(ctx context.Context) error {
	r, _ := ctx.Value(principalKey{}).(refused)
	return r.error
}
