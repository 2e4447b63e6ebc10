package plan

import (
	"context"
	"slices"
	"sync"

	"github.com/99designs/gqlgen/graphql"
)

// level holds the objects of a selection for all parents together.
type level struct {
	*selection

	objs   []any           // nil for null
	ctx    context.Context // for fields that wait
	values []*Values       // by slot
	leaves [][]graphql.Marshaler

	// Where the objects stand: of the root, or among the values of a field of parent.
	root   *graphql.FieldContext
	parent *level
	field  *field
	from   *Values
	itemOf []int // indexes of objs in from.items; nil if they are the same
}

// runLevel executes all that is below the objects of a level.
func (x *execution) runLevel(l *level) {
	if l.slots == 0 || x.hooks.Ended(x.ctx) {
		return
	}
	l.values, l.leaves = make([]*Values, l.slots), make([][]graphql.Marshaler, l.slots)
	if len(l.waiting) == 0 {
		x.runPlain(l)
		return
	}
	l.ctx = x.hooks.AroundLevel(x.ctx, l.objs)
	if len(l.waiting) == 1 && len(l.plain) == 0 {
		x.runField(l, l.waiting[0])
		return
	}
	tasks := make([]func(), 0, len(l.waiting)+1)
	if len(l.plain) > 0 {
		tasks = append(tasks, func() { x.runPlain(l) })
	}
	for _, f := range l.waiting {
		tasks = append(tasks, func() { x.runField(l, f) })
	}
	runAll(tasks)
}

func (x *execution) runPlain(l *level) {
	for _, f := range l.plain {
		x.runField(l, f)
	}
}

// runAll runs tasks side by side, the first in this goroutine. It panics if one of them has.
func runAll(tasks []func()) {
	if len(tasks) == 0 {
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var panicked any
	for _, run := range tasks[1:] {
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					mu.Lock()
					defer mu.Unlock()
					panicked = r
				}
			}()
			run()
		})
	}
	func() {
		defer wg.Wait()
		tasks[0]()
	}()
	if panicked != nil {
		panic(panicked)
	}
}

// runField reads a field for all the objects of a level, and executes all that is below it.
func (x *execution) runField(l *level, f *field) {
	if f.Type == "" {
		l.leaves[f.slot] = x.marshalLeaves(l, f)
		return
	}
	v := x.newValues(l, f)
	l.values[f.slot] = v
	if batch := x.batchOf(l, f); batch != nil {
		x.readBatch(l, f, v, batch)
	} else {
		for i := 0; i < len(l.objs); {
			i = x.readValues(l, f, v, i)
		}
	}
	x.runChildren(l, f, v)
}

func (x *execution) batchOf(l *level, f *field) Batch {
	if !f.Waits || x.hooks.Batch == nil || l.parent == nil {
		return nil
	}
	return x.hooks.Batch(l.object.Name, f.collected.Name)
}

// marshalLeaves resolves a leaf that may wait, or that has no object around it.
func (x *execution) marshalLeaves(l *level, f *field) []graphql.Marshaler {
	leaves := make([]graphql.Marshaler, len(l.objs))
	for i, obj := range l.objs {
		if obj != nil {
			leaves[i] = f.Marshal(x.objectContext(l, i), x.ec, f.collected, obj)
		}
	}
	return leaves
}

func (x *execution) newValues(l *level, f *field) *Values {
	n := len(l.objs)
	v := &Values{refs: make([]ref, n)}
	if !f.List {
		v.items = make([]any, 0, n)
	}
	v.err = func(parent int, err error) {
		ctx := x.fieldContext(l, parent, f)
		x.op.Error(ctx, graphql.AddFieldLocationToError(ctx, err))
	}
	return v
}

// readBatch reads a field for all parents at once. A panic is the error of each of them.
func (x *execution) readBatch(l *level, f *field, v *Values, batch Batch) {
	defer func() {
		if r := recover(); r != nil {
			v.items = nil
			clear(v.refs)
			for i, obj := range l.objs {
				if obj != nil {
					ctx := x.fieldContext(l, i, f)
					x.op.Error(ctx, x.op.Recover(ctx, r))
				}
			}
		}
	}()
	batch(l.ctx, f.collected, l.objs, v)
	for i, obj := range l.objs {
		if obj != nil {
			x.reportNulls(l, f, v, i)
		}
	}
}

// readValues reads a field for the objects from an index on. It returns the index to go on with,
// after an object whose accessor panicked.
func (x *execution) readValues(l *level, f *field, v *Values, from int) (next int) {
	i, before := from, len(v.items)
	defer func() {
		if r := recover(); r != nil {
			v.items, v.refs[i] = v.items[:before], ref{}
			ctx := x.fieldContext(l, i, f)
			x.op.Error(ctx, x.op.Recover(ctx, r))
			next = i + 1
		}
	}()
	for ; i < len(l.objs); i++ {
		obj := l.objs[i]
		if obj == nil {
			continue
		}
		before = len(v.items)
		v.Begin(i)
		if f.Read != nil {
			f.Read(obj, v)
		} else {
			f.Resolve(x.objectContext(l, i), x.ec, f.collected, obj, v)
		}
		x.reportNulls(l, f, v, i)
	}
	return i
}

// reportNulls reports nulls of a parent's value that the schema does not allow.
func (x *execution) reportNulls(l *level, f *field, v *Values, i int) {
	switch r := v.refs[i]; r.kind {
	case null:
		if f.NonNull {
			graphql.AddInvalidNullError(x.fieldContext(l, i, f), f.GQL)
		}
	case list:
		if !f.ItemNonNull {
			return
		}
		for k := range r.n {
			if v.items[r.start+k] == nil {
				x.reportNullItem(l, f, i, k)
			}
		}
	case failed, object:
	}
}

func (x *execution) reportNullItem(l *level, f *field, i, index int) {
	ctx := graphql.WithFieldContext(x.fieldContext(l, i, f), &graphql.FieldContext{Index: &index})
	graphql.AddInvalidNullError(ctx, f.Type+"!")
}

// runChildren executes all that is below the objects of a field.
func (x *execution) runChildren(l *level, f *field, v *Values) {
	if len(v.items) == 0 {
		return
	}
	typeOf := x.plan.types.Abstract[f.Type]
	if typeOf == nil {
		v.level = &level{selection: x.plan.below(f, f.Type), objs: v.items, ctx: x.ctx, parent: l, field: f, from: v}
		x.runLevel(v.level)
		return
	}
	levels := x.groupByType(l, f, v, typeOf)
	tasks := make([]func(), len(levels))
	for i, of := range levels {
		tasks[i] = func() { x.runLevel(of) }
	}
	runAll(tasks)
}

// groupByType returns a level for each object type that items of an abstract type have.
func (x *execution) groupByType(l *level, f *field, v *Values, typeOf func(any) (string, any)) []*level {
	var levels []*level
	v.places = make([]place, len(v.items))
	for i, item := range v.items {
		if item == nil {
			continue
		}
		name, obj := x.objectOf(l, f, v, i, typeOf)
		if obj == nil {
			v.items[i] = nil
			continue
		}
		k := slices.IndexFunc(levels, func(l *level) bool { return l.object.Name == name })
		if k < 0 {
			k = len(levels)
			levels = append(levels, &level{selection: x.plan.below(f, name), ctx: x.ctx, parent: l, field: f, from: v})
		}
		of := levels[k]
		v.places[i] = place{of, len(of.objs)}
		of.objs, of.itemOf = append(of.objs, obj), append(of.itemOf, i)
	}
	return levels
}

// objectOf returns an item's object and its type; nil for null, and with an error for a value of no
// type of the schema.
func (x *execution) objectOf(l *level, f *field, v *Values, item int, typeOf func(any) (string, any)) (name string, obj any) {
	defer func() {
		if r := recover(); r != nil {
			parent := v.parentOf(item)
			ctx := x.fieldContext(l, parent, f)
			if f.List {
				index := item - v.refs[parent].start
				ctx = graphql.WithFieldContext(ctx, &graphql.FieldContext{Index: &index})
			}
			x.op.Error(ctx, x.op.Recover(ctx, r))
			name, obj = "", nil
		}
	}()
	return typeOf(v.items[item])
}
