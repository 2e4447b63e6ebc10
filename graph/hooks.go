package graph

import (
	"context"
	"strings"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/internal/auth"
)

// Hooks are what the executor runs around operations.
type Hooks struct {
	newLoaders func() *loader.Loaders
	secret     []byte
}

// NewHooks returns the hooks for a schema of the resolver. The secret is the key
// of the fingerprints of idempotent calls, equal on all nodes.
func NewHooks(r *Resolver, secret []byte) *Hooks {
	reads := loader.Reads{Users: r.users, Products: r.products, Orders: r.orders, Sessions: r.sessions, Registry: r.registry, Log: r.log, Overseer: r.overseer}
	return &Hooks{func() *loader.Loaders { return loader.New(reads) }, secret}
}

// AroundResponse gives each response fresh loaders: per request, a subscription
// would go stale.
func (h *Hooks) AroundResponse(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	return next(loader.With(ctx, h.newLoaders()))
}

// AroundRootField gives each mutation of a document fresh loaders, so that none
// shows what the one before it has read and then changed.
func (h *Hooks) AroundRootField(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	if graphql.GetRootFieldContext(ctx).Object == "Mutation" {
		ctx = loader.With(ctx, h.newLoaders())
	}
	return next(ctx)
}

// AroundField lets loaders know where in the document a field stands. Of a mutation
// it claims the idempotency key and turns what its caller can mend into userErrors.
func (h *Hooks) AroundField(ctx context.Context, next graphql.Resolver) (any, error) {
	fc := graphql.GetFieldContext(ctx)
	if err := mayGoOn(ctx, fc); err != nil {
		return nil, err
	}
	if fc.Object != "Mutation" {
		return loader.AtField(ctx, next)
	}
	ctx, err := claim(ctx, h.secret, fc.Field.Name, fc.Args["input"])
	if err != nil {
		return withUserErrors(fc.Field.Name, nil, err)
	}
	res, err := next(ctx)
	return withUserErrors(fc.Field.Name, res, err)
}

// goesOn names what is answered without the database too, also to callers of
// whom only is known who they were at last.
var goesOn = map[string]bool{"service": true, "services": true, "pickInstance": true, "reportOutcome": true}

// mayGoOn refuses all else to such callers: reads that hide what a stranger may
// not see would read as if nothing were there.
func mayGoOn(ctx context.Context, fc *graphql.FieldContext) error {
	root := fc.Object == "Query" || fc.Object == "Mutation" || fc.Object == "Subscription"
	if !root || goesOn[fc.Field.Name] || strings.HasPrefix(fc.Field.Name, "__") || auth.From(ctx) != nil || auth.LastKnown(ctx) == nil {
		return nil
	}
	return auth.SignInFirst(ctx)
}
