package graph

import (
	"cmp"
	"context"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/plan"
	"github.com/backplane-dev/backplane/internal/fault"
)

// Hooks are the functions that the executor runs around responses and fields.
type Hooks struct {
	newLoaders func() *loader.Loaders
}

// NewHooks returns the hooks of a schema over the domains.
func NewHooks(d Domains) *Hooks {
	return &Hooks{func() *loader.Loaders { return loader.New(d) }}
}

// AroundResponse gives each response fresh loaders: per request, a subscription
// would go stale. A response to a caller whose credential was refused says so.
func (h *Hooks) AroundResponse(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	if err := auth.Refused(ctx); err != nil {
		f := fault.From(err)
		graphql.RegisterExtension(ctx, credentialKey, map[string]any{"code": f.Code, "message": f.Message})
	}
	return next(loader.WithLoaders(ctx, h.newLoaders()))
}

// AroundRootField gives each mutation of a document fresh loaders, so that none returns
// an object as another has read it before the change.
func (h *Hooks) AroundRootField(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	if graphql.GetOperationContext(ctx).Operation.Operation == ast.Mutation { // the root field context does not name its type
		ctx = loader.WithLoaders(ctx, h.newLoaders())
	}
	return next(ctx)
}

// AroundField tells the loaders which field of the document runs, and moves the correctable
// errors of a mutation to its userErrors.
func (h *Hooks) AroundField(ctx context.Context, next graphql.Resolver) (any, error) {
	fc := graphql.GetFieldContext(ctx)
	if err := cmp.Or(checkLastKnownCaller(ctx, fc), checkRefusedCaller(ctx, fc)); err != nil {
		return nil, err
	}
	if fc.Object != "Mutation" {
		return loader.ResolveField(ctx, next)
	}
	if err := checkReadScopes(auth.From(ctx), fc); err != nil {
		return nil, err
	}
	if err := checkPayloadLists(ctx, fc); err != nil {
		return nil, err
	}
	res, err := next(ctx)
	return withUserErrors(fc.Field.Name, res, err)
}

// AroundLevel tells the loaders which objects are resolved together.
func (h *Hooks) AroundLevel(ctx context.Context, objects []any) context.Context {
	return loader.WithLevel(ctx, objects)
}

// Batch returns how the planned executor reads an edge for all the objects of a level, nil for a
// field that it resolves for each of them. Fields that AroundField checks have none.
func (h *Hooks) Batch(object, field string) plan.Batch {
	return batches[edgeField{object, field}]
}

// checkReadScopes refuses a mutation whose payload the caller's API key may not read: after the
// change the response would have an error in its place.
func checkReadScopes(caller *auth.Principal, mutation *graphql.FieldContext) error {
	if caller == nil || caller.Credential.Unscoped() {
		return nil
	}
	if missing := executor.MissingReadScope(caller, mutation.Field.Selections); missing != "" {
		return fault.New(fault.Forbidden, "This API key lacks the scope %s, which the payload needs; nothing was done.", missing)
	}
	return nil
}

// servedWithoutDatabase names the root fields that are served while the database is
// down, also to callers known only by a cached principal.
var servedWithoutDatabase = map[string]bool{"service": true, "services": true, "pickInstance": true, "reportOutcome": true}

// uncountedMutations do not count against the rate of writes: services call them for each interval of a
// lease and for each call of another service, and they store no event. All others count, refused ones
// and repeats too.
var uncountedMutations = map[string]bool{"renewInstance": true, "pickInstance": true, "reportOutcome": true}

// checkLastKnownCaller refuses the other root fields to a caller known only by a cached
// principal: a read that hides objects from anonymous callers would return nothing, as if
// there were none.
func checkLastKnownCaller(ctx context.Context, fc *graphql.FieldContext) error {
	if !isRoot(fc) || servedWithoutDatabase[fc.Field.Name] || auth.From(ctx) != nil || auth.LastKnown(ctx) == nil {
		return nil
	}
	return auth.NotSignedIn(ctx)
}

// credentialKey is the extension that says why the caller's credential was refused.
const credentialKey = "credential"

// servedAnonymously names the root fields that are served to a caller whose credential was refused:
// those that bring a credential of their own, and those that show an anonymous caller all that they
// show a customer. Fields that hide objects from anonymous callers, such as node and services, are not.
var servedAnonymously = map[string]bool{
	"signUp": true, "signIn": true, "refreshSession": true,
	"product": true, "productBySku": true, "products": true,
}

// checkRefusedCaller refuses the other root fields to a caller whose credential was refused, with
// the reason: nothing that needs a caller runs for an anonymous one by accident.
func checkRefusedCaller(ctx context.Context, fc *graphql.FieldContext) error {
	if !isRoot(fc) || servedAnonymously[fc.Field.Name] {
		return nil
	}
	return auth.Refused(ctx)
}

// isRoot reports whether the field is one of the roots of the schema, without introspection.
func isRoot(fc *graphql.FieldContext) bool {
	root := fc.Object == "Query" || fc.Object == "Mutation" || fc.Object == "Subscription"
	return root && !strings.HasPrefix(fc.Field.Name, "__")
}
