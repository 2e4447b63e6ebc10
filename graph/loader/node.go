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

// LoadByID returns the object of a root field's argument id, zero if there is none. It
// reads the objects of the operation's other root fields of that name in the same batch.
func LoadByID[K ~string, V any](ctx context.Context, l *Loader[K, V], id string) (V, error) {
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

// LoadNodes returns the nodes with the ids, in their order, nil where there is none: one
// bulk read for each kind of id.
func LoadNodes(ctx context.Context, ids []string) ([]model.Node, error) {
	found, err := readNodes(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make([]model.Node, len(ids))
	for i, id := range ids {
		all[i] = found[id]
	}
	return all, nil
}

// readNodes is the bulk read of Nodes.
func readNodes(ctx context.Context, ids []string) (map[string]model.Node, error) {
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
		read := nodeReads[kind]
		if read == nil {
			continue // no node has that kind of id
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

// nodeReads are the bulk reads of all nodes, by the kind of their ids; newNode adds to
// it while the package is initialised.
var nodeReads = map[uid.Kind]bulkRead[string, model.Node]{}

// newNode declares an entity: objects with an id of the kind, which Query.node finds.
func newNode[K ~string, V comparable](kind uid.Kind, open func(*Domains) (bulkRead[K, V], memoryRead[K, V])) *Loader[K, V] {
	l := newLoader(open)
	nodeReads[kind] = nodeReader(l)
	return l
}

// nodeReader returns the bulk read of a loader by plain ids. It keeps a nil pointer from
// becoming a Node that is not nil.
func nodeReader[K ~string, V comparable](l *Loader[K, V]) bulkRead[string, model.Node] {
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
