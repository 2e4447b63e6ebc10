// Package executor owns the way of a GraphQL request from text to response
// over one executable schema: parse, limits, validation, variables, cost, run.
//
// Whatever happens before execution is bounded: every limit is checked in time
// linear in the document before anything runs that is not, and no rule looks at
// a definition more often than the limits allow. Nothing here knows of HTTP;
// plain requests, sockets, event streams and REST share one Executor.
package executor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Config tunes an Executor. The zero value is ready to use.
type Config struct {
	Limits               Limits
	CacheBytes           int64 // memory for prepared documents; default 32 MiB
	PersistedBytes       int64 // memory for the texts of automatic persisted queries; default 8 MiB
	SharedBytes          int64 // memory for responses that equal subscriptions have in common; default 16 MiB
	DisableIntrospection bool  // refuse __schema and __type
	DisableSuggestions   bool  // no "did you mean" in errors

	// Scalars check the values that variables give to custom scalars, by the name of
	// the scalar, so that all that is wrong is said at once and before anything runs.
	// Their errors are faults whose message begins with "This ". One that has none is
	// checked when the schema reads it.
	Scalars map[string]func(v any) error

	AroundResponse  graphql.ResponseMiddleware  // around each response, e.g. for its loaders; may be nil
	AroundRootField graphql.RootFieldMiddleware // around each field of the root; may be nil
	AroundField     graphql.FieldMiddleware     // around each resolver; may be nil
}

// Executor prepares and runs operations. It is safe for concurrent use.
type Executor struct {
	schema    graphql.ExecutableSchema
	cfg       Config
	limits    Limits
	log       *slog.Logger
	rules     *ruleSet
	documents *lru[*document]
	persisted *lru[string]
	shares    *shares
}

// New returns an Executor over the schema, which it never changes.
func New(schema graphql.ExecutableSchema, cfg Config, log *slog.Logger) (*Executor, error) {
	if schema == nil || log == nil {
		return nil, errors.New("operation: schema and log are required")
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Executor{
		schema:    schema,
		cfg:       cfg.withHooks(),
		limits:    limits,
		log:       log,
		rules:     newRuleSet(!cfg.DisableSuggestions),
		documents: newLRU[*document](cmp.Or(cfg.CacheBytes, 32<<20)),
		persisted: newLRU[string](cmp.Or(cfg.PersistedBytes, 8<<20)),
		shares:    newShares(cmp.Or(cfg.SharedBytes, 16<<20)),
	}, nil
}

// withHooks fills in hooks that do nothing, since gqlgen calls them unasked.
func (c Config) withHooks() Config {
	if c.AroundResponse == nil {
		c.AroundResponse = func(ctx context.Context, next graphql.ResponseHandler) *graphql.Response { return next(ctx) }
	}
	if c.AroundRootField == nil {
		c.AroundRootField = func(ctx context.Context, next graphql.RootResolver) graphql.Marshaler { return next(ctx) }
	}
	if c.AroundField == nil {
		c.AroundField = func(ctx context.Context, next graphql.Resolver) (any, error) { return next(ctx) }
	}
	return c
}

// Request is what a client sends, decoded. Values of Variables and Extensions
// are those of encoding/json with UseNumber, so that no number is rounded.
type Request struct {
	Query         string
	OperationName string
	Variables     map[string]any
	Extensions    map[string]any

	// Called says how messages about a variable call the value at a path, whose
	// first part is the variable's name; nil: as clients of GraphQL know it.
	Called func(path []string) string
}

// Schema returns the schema that operations run on; it must not be changed.
func (x *Executor) Schema() *ast.Schema { return x.schema.Schema() }

// Check returns why no request with this document could run, whatever its
// variables; nil if one could. A document that passes is kept prepared.
func (x *Executor) Check(query string) *Refusal {
	_, refusal := x.document(query)
	return refusal
}

// Stage says how far a refused request got.
type Stage int

// The stages.
const (
	StageRequest  Stage = iota // it is no GraphQL request: no document, or parameters that contradict one another
	StageParse                 // the document is no GraphQL
	StageLimit                 // the document passes a limit
	StageValidate              // the document does not fit the schema
	StageSelect                // the document or operation asked for is not known here
	StageCoerce                // the variables do not fit the operation
)

// Refusal says why a request was not run. Its errors are ready for the client;
// a response made of it has no data entry.
type Refusal struct {
	Stage  Stage
	Errors gqlerror.List
}

// Operation is a request that may be run, once or more often.
type Operation struct {
	document   *document
	definition *ast.OperationDefinition
	variables  map[string]any
	request    Request
	roots      int
	cost       int
}

// Kind returns query, mutation or subscription.
func (o *Operation) Kind() ast.Operation { return o.definition.Operation }

// Name returns the operation's name, empty if it has none.
func (o *Operation) Name() string { return o.definition.Name }

// RootFields returns how many fields the operation selects on its root type,
// fragments expanded and repeats counted.
func (o *Operation) RootFields() int { return o.roots }

// Cost returns the operation's cost with its variables, as Limits.Complexity
// describes it.
func (o *Operation) Cost() int { return o.cost }

// Prepare turns a request into an Operation or says why not; one of the two
// results is nil. Equal documents are parsed and validated once.
func (x *Executor) Prepare(ctx context.Context, req Request) (*Operation, *Refusal) {
	query, persist, refusal := x.resolveText(req)
	if refusal != nil {
		return nil, refusal
	}
	req.Query = query
	doc, refusal := x.document(query)
	if refusal != nil {
		return nil, refusal
	}
	if persist != "" {
		x.persisted.put(persist, query, int64(len(query)))
	}
	def, err := doc.operation(req.OperationName)
	if err != nil {
		return nil, refuse(StageSelect, err)
	}
	return x.complete(doc, def, req)
}

// complete does what depends on the variables.
func (x *Executor) complete(doc *document, def *ast.OperationDefinition, req Request) (*Operation, *Refusal) {
	c := coercer{schema: x.schema.Schema(), scalars: x.cfg.Scalars, limit: x.limits.Errors}
	vars, err := c.coerceVariables(def, req.Variables, req.Called)
	if err != nil {
		return nil, refuseAll(StageCoerce, err)
	}
	op := &Operation{document: doc, definition: def, variables: vars, request: req, roots: doc.shapes[def].roots}
	if op.cost, err = x.limits.checkCost(x.schema.Schema(), doc, op); err != nil {
		return nil, refuse(StageLimit, err)
	}
	return op, nil
}
