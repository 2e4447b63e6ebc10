package auth

import (
	"context"
)

type principalKey struct{}

// With returns a context in which p is calling.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// WithCurrent returns a context in which whoever current names is calling at the
// moment somebody asks: what outlives a request must not go by the rights that
// its caller had at the start. Current must be cheap and safe for concurrent use.
func WithCurrent(ctx context.Context, current func() *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, current)
}

// Current returns what tells who is calling at the moment it is called, as From
// does, for those who ask often.
func Current(ctx context.Context) func() *Principal {
	switch p := ctx.Value(principalKey{}).(type) {
	case *Principal:
		return func() *Principal { return p }
	case func() *Principal:
		return p
	}
	return func() *Principal { return nil }
}

// From returns who is calling, or nil for a stranger. Under WithCurrent two
// calls may return different principals.
func From(ctx context.Context) *Principal {
	switch p := ctx.Value(principalKey{}).(type) {
	case *Principal:
		return p
	case func() *Principal:
		return p()
	}
	return nil
}

// WithLastKnown returns a context in which nobody is calling whose rights are
// known for sure: p was calling when they could last be read. Only what goes on
// without the database asks for it, by LastKnown; to everything else the caller
// is told to come again.
func WithLastKnown(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, lastKnown{p})
}

type lastKnown struct{ *Principal }

// LastKnown returns who is calling or, if that cannot be told without the
// database, who was at last; nil for a stranger. It is for reads that are to go
// on from the last known state, and for nothing that changes anything.
func LastKnown(ctx context.Context) *Principal {
	if p, ok := ctx.Value(principalKey{}).(lastKnown); ok {
		return p.Principal
	}
	return From(ctx)
}
