package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/internal/executor/plan"
)

// edgeField is a field of an object type that leads along an edge.
type edgeField struct{ object, field string }

// batches read the edges below long lists for all the objects of a level at once. Each does what
// the field's resolver does for one object; other edges are few, and go through theirs.
var batches = map[edgeField]plan.Batch{
	{"Order", "user"}:        objectBatch(loader.OrderUser, loader.RequireReadable),
	{"Order", "items"}:       listBatch(loader.OrderItems),
	{"OrderItem", "product"}: objectBatch(loader.ItemProduct, nil),
	{"Event", "subject"}:     objectBatch(loader.EventSubject, nil),
}

// objectBatch reads an edge to one object. Check may be nil.
func objectBatch[P, K, V comparable](e *loader.Edge[P, K, V], check func(V, error) (V, error)) plan.Batch {
	return func(ctx context.Context, _ graphql.CollectedField, parents []any, to *plan.Values) {
		e.LoadAll(ctx, parents, func(i int, v V, err error) {
			to.Begin(i)
			if check != nil {
				v, err = check(v, err)
			}
			var none V
			switch {
			case err != nil:
				to.Fail(err)
			case v == none:
				to.Null()
			default:
				to.Object(v)
			}
		})
	}
}

// listBatch reads an edge to a list of objects.
func listBatch[P, K, V comparable](e *loader.Edge[P, K, []V]) plan.Batch {
	return func(ctx context.Context, _ graphql.CollectedField, parents []any, to *plan.Values) {
		e.LoadAll(ctx, parents, func(i int, all []V, err error) {
			to.Begin(i)
			if err != nil {
				to.Fail(err)
				return
			}
			to.List(len(all))
			for _, v := range all {
				to.Item(v)
			}
		})
	}
}
