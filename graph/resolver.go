// Package graph owns the resolvers: each converts its arguments, calls one use
// case and wraps the result. Rules and permissions live in the domains, so that
// every transport obeys them.
//
// Its hooks serve all operations: a set of dataloaders for each response, and userErrors of
// mutations. A mutation makes the claim of its idempotency key first, and passes it to the use
// case. Package loader declares how nodes and edges are read in bulk.
package graph

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/graph/generated"
	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/graph/scalar"
	"github.com/backplane-dev/backplane/internal/executor"
)

// Domains are the use cases behind the schema; all of them are needed.
type Domains = loader.Domains

// Resolver calls the use cases of the domains.
type Resolver struct {
	domains Domains
	secret  []byte
	prepare func(context.Context, executor.Request) (*executor.Operation, *executor.Refusal)
}

// NewResolver returns a Resolver over the domains. The secret is the HMAC key of the
// fingerprints of idempotent calls, equal on all nodes. It prepares the operations of stream
// tickets with p, which is made for Definitions.
func NewResolver(d Domains, secret []byte, p *executor.Preparer) *Resolver {
	return &Resolver{d, secret, p.Prepare}
}

// NewExecutor returns the executor of the schema over the domains, with the hooks of this
// package and the checks of its scalars. The secret is that of NewResolver.
func NewExecutor(d Domains, secret []byte, cfg executor.Config, log *slog.Logger) (*executor.Executor, error) {
	h := NewHooks(d)
	cfg.AroundResponse, cfg.AroundRootField, cfg.AroundField = h.AroundResponse, h.AroundRootField, h.AroundField
	cfg.AroundLevel, cfg.Batch = h.AroundLevel, h.Batch
	cfg.Scalars, cfg.UncountedMutations = Scalars(), uncountedMutations
	p, err := executor.NewPreparer(Definitions(), cfg)
	if err != nil {
		return nil, err
	}
	return p.NewExecutor(NewSchema(NewResolver(d, secret, p)), log)
}

// Definitions returns the types of the schema that NewSchema makes executable.
func Definitions() *ast.Schema { return definitions() }

// NewSchema returns the one executable schema that every transport runs.
func NewSchema(r *Resolver) graphql.ExecutableSchema {
	return generated.NewExecutableSchema(generated.Config{Resolvers: r, Schema: definitions()})
}

// definitions returns the schema without @defer, which the library adds: an answer is one piece
// on every transport.
var definitions = sync.OnceValue(func() *ast.Schema {
	schema := *generated.NewExecutableSchema(generated.Config{Resolvers: &Resolver{}}).Schema()
	schema.Directives = maps.Clone(schema.Directives)
	delete(schema.Directives, "defer")
	return &schema
})

// Scalars are the checks of the schema's own scalars, for executor.Config.
func Scalars() map[string]func(any) error {
	return map[string]func(any) error{
		"DateTime":     scalarCheck(scalar.UnmarshalDateTime),
		"Decimal":      scalarCheck(scalar.UnmarshalDecimal),
		"CurrencyCode": scalarCheck(scalar.UnmarshalCurrencyCode),
		"Cursor":       scalar.CheckCursor,
		"Duration":     scalarCheck(scalar.UnmarshalDuration),
		"StringMap":    scalarCheck(scalar.UnmarshalStringMap),
		"Long":         scalarCheck(scalar.UnmarshalLong),
	}
}

func scalarCheck[T any](read func(any) (T, error)) func(any) error {
	return func(v any) error {
		_, err := read(v)
		return err
	}
}
