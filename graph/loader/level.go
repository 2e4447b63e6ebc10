package loader

import (
	"context"
	"strings"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/model"
)

// level is what one field of a document has led to, for all parents together: the
// objects whose fields are asked for next. Of `orders { nodes { items { product } } }`
// the items of all the orders are one level.
type level struct {
	objects any // []P, P or a connection of P

	mu     sync.Mutex
	shared map[position]any // what siblings share, e.g. *reading
}

// position is a field of a level.
type position struct {
	edge  any // a pointer to the declaration
	alias string
}

// place is where a field stands: below a level, and what it leads to itself.
type place struct {
	above *place
	to    *level
}

type placeKey struct{}

// AtField runs the resolver of a field at its place, so that what it leads to is
// known to those below. It is for every field, by way of the executor's hook.
func AtField(ctx context.Context, next graphql.Resolver) (any, error) {
	fc := graphql.GetFieldContext(ctx)
	if !fc.IsResolver && len(fc.Field.Selections) == 0 || isWrapping(fc.Object) {
		return next(ctx)
	}
	p := &place{above: placeOf(ctx)}
	v, err := next(context.WithValue(ctx, placeKey{}, p))
	if p.to == nil {
		p.to = &level{objects: v}
	}
	return v, err
}

// isWrapping reports whether objects of the type only wrap those of a list, which
// stand on the level of whatever gave the list.
func isWrapping(object string) bool {
	return strings.HasSuffix(object, "Connection") || strings.HasSuffix(object, "Edge")
}

func placeOf(ctx context.Context) *place {
	p, _ := ctx.Value(placeKey{}).(*place)
	return p
}

// share returns what begin begins for the field that is being resolved: once for all
// siblings. The level is nil for an object that has none.
func share[T any](ctx context.Context, edge any, of *level, begin func() T) T {
	if of == nil {
		return begin()
	}
	at := position{edge, graphql.GetFieldContext(ctx).Field.Alias}
	of.mu.Lock()
	defer of.mu.Unlock()
	if v, ok := of.shared[at].(T); ok {
		return v
	}
	v := begin()
	if of.shared == nil {
		of.shared = map[position]any{}
	}
	of.shared[at] = v
	return v
}

// parents returns the level on which the object stands whose field is resolved.
func parents(ctx context.Context) *level {
	if p := placeOf(ctx); p != nil && p.above != nil {
		return p.above.to
	}
	return nil
}

// siblings returns the objects of the type of parent on the level, parent itself
// among them.
func siblings[P comparable](of *level, parent P) []P {
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
		for _, o := range objects {
			if p, ok := o.(P); ok {
				all = append(all, p)
			}
		}
	}
	if len(all) == 0 {
		return []P{parent}
	}
	return all
}

// leadsTo notes what the field that is being resolved has led to.
func leadsTo(ctx context.Context, to *level) {
	if p := placeOf(ctx); p != nil {
		p.to = to
	}
}
