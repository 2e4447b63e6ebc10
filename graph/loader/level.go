package loader

import (
	"context"
	"strings"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/model"
)

// level holds the objects that one field of a document returned, for all parents
// together: siblings, whose fields are resolved next. In
// `orders { nodes { items { product } } }` the items of all the orders are one level.
type level struct {
	objects any // []P, P or a connection of P, or []any from WithLevel

	mu     sync.Mutex
	shared map[fieldPosition]any // what siblings share, e.g. *siblingBatch
}

// fieldPosition is a field of a level.
type fieldPosition struct {
	edge  any // a pointer to the declaration
	alias string
}

// fieldLocation is the position of a field: below a level, with the level it leads to.
type fieldLocation struct {
	above *fieldLocation
	to    *level
}

type locationKey struct{}

// ResolveField runs the resolver of a field at its location, so that the fields below
// know their siblings. The executor's hook calls it for every field.
func ResolveField(ctx context.Context, next graphql.Resolver) (any, error) {
	fc := graphql.GetFieldContext(ctx)
	if !fc.IsResolver && len(fc.Field.Selections) == 0 || isConnectionType(fc.Object) {
		return next(ctx)
	}
	p := &fieldLocation{above: locationOf(ctx)}
	v, err := next(context.WithValue(ctx, locationKey{}, p))
	if p.to == nil {
		p.to = &level{objects: v}
	}
	return v, err
}

// WithLevel returns the context for the fields of objects that are resolved together: they are
// siblings. The planned executor knows them without the hook of fields.
func WithLevel(ctx context.Context, objects []any) context.Context {
	return context.WithValue(ctx, locationKey{}, &fieldLocation{to: &level{objects: objects}})
}

// isConnectionType reports whether objects of the type only wrap the objects of a list,
// which belong to the level of the field that returned the list.
func isConnectionType(object string) bool {
	return strings.HasSuffix(object, "Connection") || strings.HasSuffix(object, "Edge")
}

func locationOf(ctx context.Context) *fieldLocation {
	p, _ := ctx.Value(locationKey{}).(*fieldLocation)
	return p
}

// shareAmongSiblings returns what create made for all siblings of the object whose field
// is resolved, and whether this call made it: the caller then starts it, without the lock,
// for which hundreds of siblings would queue. The level is nil for an object without
// siblings.
func shareAmongSiblings[T any](ctx context.Context, edge any, of *level, create func() T) (shared T, first bool) {
	if of == nil {
		return create(), true
	}
	at := fieldPosition{edge, graphql.GetFieldContext(ctx).Field.Alias}
	of.mu.Lock()
	defer of.mu.Unlock()
	if v, ok := of.shared[at].(T); ok {
		return v, false
	}
	v := create()
	if of.shared == nil {
		of.shared = map[fieldPosition]any{}
	}
	of.shared[at] = v
	return v, true
}

// parentLevel returns the level of the object whose field is resolved.
func parentLevel(ctx context.Context) *level {
	if p := locationOf(ctx); p != nil && p.above != nil {
		return p.above.to
	}
	return nil
}

// siblingsOf returns the objects of the level that have the type of parent, including
// parent.
func siblingsOf[P comparable](of *level, parent P) []P {
	if of == nil {
		return []P{parent}
	}
	var all []P
	switch objects := of.objects.(type) {
	case []P:
		all = objects
	case interface{ Nodes() []P }:
		all = objects.Nodes()
	case []model.Node:
		all = ofType[P](objects)
	case []any:
		all = ofType[P](objects)
	}
	if len(all) == 0 {
		return []P{parent}
	}
	return all
}

// ofType returns the objects that have the type P.
func ofType[P any, O any](objects []O) []P {
	var all []P
	for _, o := range objects {
		if p, ok := any(o).(P); ok {
			all = append(all, p)
		}
	}
	return all
}

// setChildLevel sets the level that the field being resolved leads to.
func setChildLevel(ctx context.Context, to *level) {
	if p := locationOf(ctx); p != nil {
		p.to = to
	}
}
