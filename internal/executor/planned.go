package executor

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor/plan"
)

// plannedSchema is a schema with the tables that plans need. Package graph/plangen writes them.
type plannedSchema interface{ PlanTypes() *plan.Types }

// Bounds of the plans that a document keeps: the fields compiled for it, whose number depends on
// the objects that are met, and the variables of conditions, each of which doubles the plans.
const (
	planFieldBytes = 300 // estimate of a compiled field
	maxConditions  = 16
)

// documentPlans are the plans of a document's operations.
type documentPlans struct {
	maxFields int

	mu         sync.Mutex
	conditions map[*ast.OperationDefinition][]string
	plans      map[planKey]*plan.Plan
}

// planKey says what a plan was compiled for: an operation, and which of its conditions hold.
type planKey struct {
	operation *ast.OperationDefinition
	holds     uint64
}

// newDocumentPlans returns no plans, for a document with that many fields and values.
func newDocumentPlans(nodes int) *documentPlans {
	return &documentPlans{
		maxFields:  2*nodes + 8,
		conditions: map[*ast.OperationDefinition][]string{},
		plans:      map[planKey]*plan.Plan{},
	}
}

// bytes bounds the memory of the plans.
func (d *documentPlans) bytes() int64 { return int64(d.maxFields) * planFieldBytes }

// planOf returns the plan of the operation, which is kept unless it is too large.
func (d *documentPlans) planOf(types *plan.Types, schema *ast.Schema, op *Operation) *plan.Plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, ok := d.conditions[op.definition]
	if !ok {
		names = plan.Conditions(op.document.ast, op.definition)
		d.conditions[op.definition] = names
	}
	key := planKey{operation: op.definition}
	for i, name := range names {
		if v, _ := op.variables[name].(bool); v && i < maxConditions {
			key.holds |= 1 << i
		}
	}
	p := d.plans[key]
	if p == nil {
		variables := make(map[string]any, len(names))
		for _, name := range names {
			variables[name] = op.variables[name]
		}
		p = plan.Compile(types, schema, op.document.ast, op.definition, variables)
	}
	d.keep(key, p, len(names))
	return p
}

// keep stores a plan within the bound of fields, which also counts what was compiled since plans
// were stored.
func (d *documentPlans) keep(key planKey, p *plan.Plan, conditions int) {
	fields := p.Fields()
	for k, other := range d.plans {
		if k != key {
			fields += other.Fields()
		}
	}
	if fields > d.maxFields {
		clear(d.plans)
	} else if conditions <= maxConditions {
		d.plans[key] = p
	}
}

// exec starts the operation of ctx with the planned executor or, without tables, with gqlgen's.
func (x *Executor) exec(ctx context.Context, op *Operation) graphql.ResponseHandler {
	if x.types == nil {
		return x.executable.Exec(ctx)
	}
	return op.document.plans.planOf(x.types, x.schema, op).Exec(ctx, x.hooks)
}

// planHooks are the hooks of plans: those of the configuration, and the limit of a response.
func (c Config) planHooks() plan.Hooks {
	h := plan.Hooks{
		AroundLevel: c.AroundLevel,
		Batch:       c.Batch,
		CountText: func(ctx context.Context, n int64) bool {
			m, _ := ctx.Value(meterKey{}).(*responseMeter)
			return m == nil || m.count(ctx, n) == nil
		},
		Ended: func(ctx context.Context) bool {
			m, _ := ctx.Value(meterKey{}).(*responseMeter)
			return m != nil && m.ended.Load() != nil
		},
	}
	if h.AroundLevel == nil {
		h.AroundLevel = func(ctx context.Context, _ []any) context.Context { return ctx }
	}
	return h
}
