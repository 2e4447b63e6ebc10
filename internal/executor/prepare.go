package executor

import (
	"cmp"
	"context"
	"errors"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Preparer turns requests into operations. It needs the types of a schema and no
// resolvers, so resolvers can use it. It is safe for concurrent use.
type Preparer struct {
	schema    *ast.Schema
	cfg       Config
	limits    Limits
	rules     *ruleSet
	documents *lru[*document]
	persisted *lru[string]
	workload  *workload
}

// NewPreparer returns a Preparer for the types of the schema, which it never changes.
func NewPreparer(schema *ast.Schema, cfg Config) (*Preparer, error) {
	if schema == nil {
		return nil, errors.New("executor: schema is required")
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Preparer{
		schema:    schema,
		cfg:       cfg,
		limits:    limits,
		rules:     newRuleSet(!cfg.DisableSuggestions, cfg.Scalars),
		documents: newLRU[*document](cmp.Or(cfg.CacheBytes, 32<<20)),
		persisted: newLRU[string](cmp.Or(cfg.PersistedBytes, 8<<20)),
		workload:  newWorkload(limits),
	}, nil
}

// Request is a client's request, decoded. Values of Variables and Extensions are
// those of encoding/json with UseNumber, so that no number is rounded.
type Request struct {
	Query         string
	OperationName string
	Variables     map[string]any
	Extensions    map[string]any

	// StrictLists refuses a single item where a list is expected; otherwise it is a list of one.
	StrictLists bool

	// DescribePath returns the subject of an error message about the value at a path of
	// the variables, whose first part is the variable's name; nil: as GraphQL clients
	// know it, Variable "$name".
	DescribePath func(path []string) string
}

// Stage says in which step a request was refused.
type Stage int

// The stages.
const (
	StageRequest  Stage = iota // the request has no document, or contradictory parameters
	StageParse                 // the document does not parse
	StageLimit                 // the document exceeds a limit
	StageValidate              // the document does not fit the schema
	StageSelect                // the requested document or operation is unknown
	StageCoerce                // the variables do not fit the operation
)

// Refusal says why a request was not executed. Its errors are ready for the client;
// a response made of it has no data entry.
type Refusal struct {
	Stage  Stage
	Errors gqlerror.List
}

// Schema returns the schema that operations run on; callers must not change it.
func (p *Preparer) Schema() *ast.Schema { return p.schema }

// CheckDocument returns why no request with this document could be executed, whatever
// its variables; nil if one could. A valid document is cached.
func (p *Preparer) CheckDocument(query string) *Refusal {
	_, refusal := p.prepareDocument(context.Background(), query)
	return refusal
}

// Prepare turns a request into an Operation or says why not; one of the two
// results is nil. Equal documents are parsed and validated once, and those of one caller one after the other.
func (p *Preparer) Prepare(ctx context.Context, req Request) (*Operation, *Refusal) {
	query, persist, refusal := p.resolveText(req)
	if refusal != nil {
		return nil, refusal
	}
	req.Query = query
	doc, refusal := p.prepareDocument(ctx, query)
	if refusal != nil {
		return nil, refusal
	}
	if persist != "" {
		p.persisted.put(persist, query, int64(len(query)))
	}
	def, err := doc.selectOperation(req.OperationName)
	if err != nil {
		return nil, refuseAt(StageSelect, err)
	}
	return p.coerceAndCost(doc, def, req)
}

// coerceAndCost runs the steps that depend on the variables.
func (p *Preparer) coerceAndCost(doc *document, def *ast.OperationDefinition, req Request) (*Operation, *Refusal) {
	c := coercer{schema: p.schema, scalars: p.cfg.Scalars, limit: p.limits.Errors, nonNull: doc.nonNull[def], strictLists: req.StrictLists, hideValues: p.cfg.DisableSuggestions}
	vars, err := c.coerceVariables(def, req.Variables, req.DescribePath)
	if err != nil {
		return nil, refuseAllAt(StageCoerce, err)
	}
	op := &Operation{document: doc, definition: def, variables: vars}
	if op.cost, err = p.limits.checkCost(p.schema, doc, op); err != nil {
		return nil, refuseAt(StageLimit, err)
	}
	op.roots = countRootFields(doc, op)
	return op, nil
}
