package loader

import (
	"context"
	"maps"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ByID returns the object that the field of the root names by its argument id,
// zero if there is none. It reads those of the operation's other fields of that
// name along with it.
func ByID[K ~string, V any](ctx context.Context, l *Loader[K, V], id string) (V, error) {
	keys := []K{K(id)}
	fc, oc := graphql.GetFieldContext(ctx), graphql.GetOperationContext(ctx)
	for _, f := range graphql.CollectFields(oc, oc.Operation.SelectionSet, []string{fc.Object}) {
		if other, ok := f.ArgumentMap(oc.Variables)["id"].(string); ok && f.Name == fc.Field.Name {
			keys = append(keys, K(other))
		}
	}
	found, err := l.LoadAll(ctx, keys)
	return found[K(id)], err
}

// NodesByIDs returns the objects with the ids, in their order, nil where there is
// none: one read for each kind of object.
func NodesByIDs(ctx context.Context, ids []string) ([]model.Node, error) {
	found, err := Nodes.LoadAll(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make([]model.Node, len(ids))
	for i, id := range ids {
		all[i] = found[id]
	}
	return all, nil
}

// nodesByIDs is the bulk read of Nodes.
func nodesByIDs(ctx context.Context, ids []string) (map[string]model.Node, error) {
	byKind := map[uid.Kind][]string{}
	for _, id := range ids {
		if kind, ok := uid.KindOf(id); ok {
			byKind[kind] = append(byKind[kind], id)
		}
	}
	all := make(map[string]model.Node, len(ids))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for kind, some := range byKind {
		read := nodes[kind]
		if read == nil {
			continue // nothing of that kind is a Node
		}
		g.Go(func() error {
			found, err := read(ctx, some)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(all, found)
			return err
		})
	}
	return all, g.Wait()
}

// asNodes is the bulk read of a loader by plain ids. It keeps a nil pointer from
// becoming a Node that is not nil.
func asNodes[K ~string, V comparable](l *Loader[K, V]) bulk[string, model.Node] {
	return func(ctx context.Context, ids []string) (map[string]model.Node, error) {
		keys := make([]K, len(ids))
		for i, id := range ids {
			keys[i] = K(id)
		}
		found, err := l.LoadAll(ctx, keys)
		all := make(map[string]model.Node, len(found))
		var none V
		for k, v := range found {
			if v != none {
				all[string(k)] = v
			}
		}
		return all, err
	}
}
