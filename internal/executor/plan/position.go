package plan

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
)

// objectContext returns the context of an object, below which its fields are resolved.
func (x *execution) objectContext(l *level, i int) context.Context {
	at := &graphql.FieldContext{Object: l.object.Name}
	ctx := graphql.WithFieldContext(l.ctx, at)
	if l.parent == nil {
		at.Parent = l.root
		return ctx
	}
	item := i
	if l.itemOf != nil {
		item = l.itemOf[i]
	}
	parent := l.from.parentOf(item)
	at.Parent = l.from.fieldContext(x, l, parent)
	if l.field.List {
		index := item - l.from.refs[parent].start
		at.Index = &index
	}
	return ctx
}

// parentOf returns the parent that has an item.
func (v *Values) parentOf(item int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.owners == nil {
		v.owners = make([]int, len(v.items))
		for i, r := range v.refs {
			for k := range r.n {
				v.owners[r.start+k] = i
			}
		}
	}
	return v.owners[item]
}

// fieldContext returns the context of the field for a parent, which the items of a list share.
func (v *Values) fieldContext(x *execution, l *level, parent int) *graphql.FieldContext {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.contexts == nil {
		v.contexts = make([]*graphql.FieldContext, len(v.refs))
	}
	if v.contexts[parent] == nil {
		v.contexts[parent] = graphql.GetFieldContext(x.fieldContext(l.parent, parent, l.field))
	}
	return v.contexts[parent]
}

// fieldContext returns the context of a field for errors of its value.
func (x *execution) fieldContext(l *level, i int, f *field) context.Context {
	return graphql.WithFieldContext(x.objectContext(l, i), &graphql.FieldContext{
		Object: l.object.Name, Field: f.collected, IsMethod: f.Method, IsResolver: f.Resolver,
	})
}
