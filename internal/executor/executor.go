// Package executor runs GraphQL requests over one executable schema, from the text
// of a request to the bytes of its response:
//
//  1. resolve the document's text, sent or persisted (persisted.go)
//  2. parse it within the limits of bytes and tokens (document.go)
//  3. check its limits: document metrics and expanded size (metrics.go, size.go)
//  4. validate it against the schema (validate.go, variableuse.go, merge.go)
//  5. coerce the variables (coerce.go)
//  6. compute the cost and check it (cost.go)
//  7. execute the operation: one response, or one for each event (stream.go)
//  8. present errors to the client (present.go)
//
// Steps 1 to 6 make a prepared operation and belong to Preparer, which needs the
// schema's types only; step 7 belongs to Executor. Documents that pass step 4 are
// cached by the hash of their text. Equal subscriptions share responses (shared.go).
//
// All work before execution is bounded: every limit is checked in time linear in the
// document before a step that is not linear, and no rule visits a definition more
// often than the limits allow. The package knows nothing of HTTP; plain requests,
// WebSockets, event streams and REST use the same Executor. It has more than 20 files, since each
// step has its own.
package executor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/executor/plan"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/writelimit"
)

// Config tunes an Executor. The zero value is ready to use.
type Config struct {
	Limits               Limits
	CacheBytes           int64               // memory for prepared documents; default 32 MiB
	PersistedBytes       int64               // memory for the texts of automatic persisted queries; default 8 MiB
	SharedBytes          int64               // memory for responses that equal subscriptions share; default 16 MiB
	Memory               *membudget.Budget   // of the node; nil for no limit
	Writes               *writelimit.Limiter // of the node; nil for no limit
	Cursors              *cursor.Codec       // of the installation; nil for one that no other executor can read
	UncountedMutations   map[string]bool     // names of those that do not count against Writes
	DisableIntrospection bool                // refuse __schema and __type
	DisableSuggestions   bool                // no "did you mean" in errors

	// Scalars check the values of variables of custom scalars, by the scalar's name, so
	// that all mistakes are reported at once and before execution. Their errors are
	// faults whose message begins with "This ". A scalar without a check is checked
	// when the schema reads it.
	Scalars map[string]func(v any) error

	// Planned executes operations by compiled plans, see package plan, in place of gqlgen's
	// executor. The schema must have the tables that graph/plangen writes.
	Planned     bool
	AroundLevel func(ctx context.Context, objects []any) context.Context // the context of fields below objects that are resolved together; may be nil
	Batch       func(object, field string) plan.Batch                    // how a field is read for a whole level, nil for each parent; may be nil

	AroundResponse  graphql.ResponseMiddleware  // around each response, e.g. for its loaders; may be nil
	AroundRootField graphql.RootFieldMiddleware // around each field of the root; may be nil
	AroundField     graphql.FieldMiddleware     // around each resolver, but for those of Batch; may be nil

	OnError func(ctx context.Context, err error) // called with each different error of a response; may be nil
}

// Executor prepares and executes operations. It is safe for concurrent use.
type Executor struct {
	*Preparer
	executable graphql.ExecutableSchema
	cfg        Config
	log        *slog.Logger
	shared     *sharedResponses
	types      *plan.Types // nil if operations are not planned
	hooks      plan.Hooks
}

// New returns an Executor over the schema, which it never changes.
func New(schema graphql.ExecutableSchema, cfg Config, log *slog.Logger) (*Executor, error) {
	if schema == nil {
		return nil, errors.New("executor: schema is required")
	}
	p, err := NewPreparer(schema.Schema(), cfg)
	if err != nil {
		return nil, err
	}
	return p.NewExecutor(schema, log)
}

// NewExecutor returns an Executor of the operations that p prepares. The schema must
// have the types that p was made for. Resolvers of the schema may use p.
func (p *Preparer) NewExecutor(schema graphql.ExecutableSchema, log *slog.Logger) (*Executor, error) {
	if schema == nil || log == nil {
		return nil, errors.New("executor: schema and log are required")
	}
	if schema.Schema() != p.schema {
		return nil, errors.New("executor: the schema has other types than those that operations are prepared for")
	}
	x := &Executor{
		Preparer:   p,
		executable: schema,
		cfg:        p.cfg.withDefaults(),
		log:        log,
		shared:     newSharedResponses(cmp.Or(p.cfg.SharedBytes, 16<<20)),
		hooks:      p.cfg.planHooks(),
	}
	if p.cfg.Planned {
		planned, ok := schema.(plannedSchema)
		if !ok {
			return nil, errors.New("executor: the schema has no tables for plans")
		}
		x.types = planned.PlanTypes()
	}
	return x, nil
}

// withDefaults sets missing hooks to ones that do nothing, since gqlgen calls them
// without a check for nil, and counts the bytes that fields return.
func (c Config) withDefaults() Config {
	if c.AroundResponse == nil {
		c.AroundResponse = func(ctx context.Context, next graphql.ResponseHandler) *graphql.Response { return next(ctx) }
	}
	if c.AroundRootField == nil {
		c.AroundRootField = func(ctx context.Context, next graphql.RootResolver) graphql.Marshaler { return next(ctx) }
	}
	if c.AroundField == nil {
		c.AroundField = func(ctx context.Context, next graphql.Resolver) (any, error) { return next(ctx) }
	}
	if c.Cursors == nil {
		c.Cursors = cursor.NewRandomCodec()
	}
	c.AroundField = meterFields(c.AroundField)
	return c
}

// Operation is a prepared operation, which may be executed more than once.
type Operation struct {
	document   *document
	definition *ast.OperationDefinition
	variables  map[string]any // coerced; the request itself is not kept
	roots      int            // fields of the response's root, without __typename
	cost       int
}

// Kind returns query, mutation or subscription.
func (o *Operation) Kind() ast.Operation { return o.definition.Operation }

// Name returns the operation's name, empty if it has none.
func (o *Operation) Name() string { return o.definition.Name }

// RootFields returns how many fields of its root type the operation resolves with its variables:
// equal fields count once, as they are merged, and __typename and fields that are skipped not at all.
func (o *Operation) RootFields() int { return o.roots }

// Cost returns the operation's cost with its variables, as Limits.Complexity
// describes it.
func (o *Operation) Cost() int { return o.cost }
