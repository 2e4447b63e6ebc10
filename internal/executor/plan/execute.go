package plan

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// Hooks are what an execution calls.
type Hooks struct {
	// AroundLevel returns the context for the fields of a level that wait; objects may have nils.
	AroundLevel func(ctx context.Context, objects []any) context.Context
	// Batch returns how to read a field of an object type for a whole level, nil for per parent.
	Batch func(object, field string) Batch
	// CountText counts bytes of text; false ends the execution, whose result is then not used.
	CountText func(ctx context.Context, n int64) (ok bool)
	// Ended reports whether the execution has ended.
	Ended func(ctx context.Context) bool
}

// execution is the execution of an operation, or of one root field of it.
type execution struct {
	plan  *Plan
	hooks Hooks
	op    *graphql.OperationContext
	ec    any
	ctx   context.Context // of the root field
}

// rootObject stands for the object of a root type, which has none.
type rootObject struct{}

// Exec starts the plan for the operation of ctx, as graphql.ExecutableSchema.Exec does.
func (p *Plan) Exec(ctx context.Context, hooks Hooks) graphql.ResponseHandler {
	op := graphql.GetOperationContext(ctx)
	x := execution{plan: p, hooks: hooks, op: op, ec: p.types.NewExecution(op)}
	if p.operation == ast.Subscription {
		return x.subscribe(ctx)
	}
	started := false
	return func(ctx context.Context) *graphql.Response {
		if started {
			return nil
		}
		started = true
		return &graphql.Response{Data: x.executeRoot(ctx)}
	}
}

// subscribe starts the stream of a subscription and returns what writes each event of it.
func (x *execution) subscribe(ctx context.Context) graphql.ResponseHandler {
	ctx = graphql.WithFieldContext(ctx, &graphql.FieldContext{Object: x.plan.root.object.Name})
	if len(x.plan.root.fields) != 1 {
		graphql.AddErrorf(ctx, "must subscribe to exactly one stream")
		return graphql.OneShot(nil)
	}
	f := x.plan.root.fields[0]
	next := f.Stream(ctx, x.ec, f.collected, func(ctx context.Context, read func(*Values)) graphql.Marshaler {
		event := *x
		return event.writeEvent(ctx, f, read)
	})
	return func(ctx context.Context) *graphql.Response {
		data := next(ctx)
		if data == nil {
			return nil
		}
		w := newWriter(nil)
		defer w.release()
		data.MarshalGQL(w)
		return &graphql.Response{Data: slices.Clone(w.b)}
	}
}

// writeEvent returns the value of the subscription's field.
func (x *execution) writeEvent(ctx context.Context, f *field, read func(*Values)) graphql.Marshaler {
	x.ctx = ctx
	l := &level{selection: x.plan.root, objs: []any{rootObject{}}, ctx: ctx, values: make([]*Values, 1), root: graphql.GetFieldContext(ctx)}
	v := x.newValues(l, f)
	read(v)
	// gqlgen runs an event outside of the context of its field, so paths begin below it.
	v.contexts = []*graphql.FieldContext{{}}
	l.values[0] = v
	x.runChildren(l, f, v)
	return x.write(l, f)
}

// write returns the value of a field of the root; graphql.Null if it is null against the schema,
// or if the execution has ended.
func (x *execution) write(l *level, f *field) graphql.Marshaler {
	if x.hooks.Ended(x.ctx) {
		return graphql.Null // levels may lack their values
	}
	w := newWriter(x)
	if !w.writeValue(l, 0, f) {
		w.release()
		return graphql.Null
	}
	w.flushText()
	return w
}

// executeRoot returns the data of a query or mutation.
func (x *execution) executeRoot(ctx context.Context) []byte {
	root := x.plan.root
	ctx = graphql.WithFieldContext(ctx, &graphql.FieldContext{Object: root.object.Name})
	results := make([]graphql.Marshaler, len(root.fields))
	var tasks []func()
	for i, f := range root.fields {
		if f.typename == nil {
			tasks = append(tasks, func() { results[i] = x.executeRootField(ctx, f) })
		}
	}
	if x.plan.operation == ast.Mutation {
		for _, run := range tasks {
			run()
		}
	} else {
		runAll(tasks)
	}
	return joinRoot(root, results)
}

// joinRoot returns the object of the root and releases the buffers of its fields.
func joinRoot(root *selection, results []graphql.Marshaler) []byte {
	size, invalid := 2, false
	for i, f := range root.fields {
		size += len(f.key) + len(f.typename) + 1
		if w, ok := results[i].(*writer); ok {
			size += len(w.b)
			defer w.release()
		}
		if f.typename == nil {
			invalid = invalid || f.NonNull && results[i] == graphql.Null || results[i] == graphql.RequiredNull
		}
	}
	if invalid {
		return []byte("null")
	}
	out := &writer{b: append(make([]byte, 0, size), '{')}
	for i, f := range root.fields {
		if i > 0 {
			out.b = append(out.b, ',')
		}
		out.b = append(append(out.b, f.key...), f.typename...)
		if f.typename == nil {
			results[i].MarshalGQL(out)
		}
	}
	return append(out.b, '}')
}

// executeRootField returns the value of a root field; graphql.Null if it is null against the schema.
func (x *execution) executeRootField(ctx context.Context, f *field) graphql.Marshaler {
	ctx = graphql.WithRootFieldContext(ctx, &graphql.RootFieldContext{Object: f.collected.Name, Field: f.collected})
	return x.op.RootResolverMiddleware(ctx, func(ctx context.Context) (res graphql.Marshaler) {
		defer func() {
			if r := recover(); r != nil {
				x.op.Error(ctx, x.op.Recover(ctx, r))
				res = graphql.Null
			}
		}()
		branch := *x
		branch.ctx = ctx
		root := x.plan.root
		l := &level{
			selection: root, objs: []any{rootObject{}}, ctx: ctx, root: graphql.GetFieldContext(ctx),
			values: make([]*Values, root.slots), leaves: make([][]graphql.Marshaler, root.slots),
		}
		branch.runField(l, f)
		return branch.write(l, f)
	})
}
