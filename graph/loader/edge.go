package loader

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/page"
)

// Edge declares a field that leads from a parent to the value of a key.
type Edge[P, K comparable, V any] struct {
	key    func(P) K
	from   *Loader[K, V]
	spread func(map[K]V) any // the objects that the values hold, for the level below
}

// newEdge declares a field that leads to one object, or to a plain value.
func newEdge[P, K, V comparable](from *Loader[K, V], key func(P) K) *Edge[P, K, V] {
	return &Edge[P, K, V]{key, from, func(found map[K]V) any {
		var none V // hidden or absent
		return slices.DeleteFunc(slices.Collect(maps.Values(found)), func(v V) bool { return v == none })
	}}
}

// newListEdge declares a field that leads to a list of objects.
func newListEdge[P, K comparable, V any](from *Loader[K, []V], key func(P) K) *Edge[P, K, []V] {
	return &Edge[P, K, []V]{key, from, func(found map[K][]V) any { return slices.Concat(slices.Collect(maps.Values(found))...) }}
}

// Load returns the value of the field for the parent. The first of the parent's siblings
// to call it reads for all of them.
func (e *Edge[P, K, V]) Load(ctx context.Context, parent P) (V, error) {
	key, level := e.key(parent), parentLevel(ctx)
	r, first := shareAmongSiblings(ctx, e, level, func() *siblingBatch[K, V] {
		return &siblingBatch[K, V]{pending: newPending[K, V](keysOf(siblingsOf(level, parent), e.key))}
	})
	if first {
		e.from.batcherOf(loadersFrom(ctx)).start(ctx, r.pending)
	}
	v, asked, err := r.valueOf(ctx, key, e.spread)
	if err == nil && !asked {
		return e.from.Load(ctx, key)
	}
	return v, err
}

// LoadAll passes the value of the field for each parent to add, with the parent's index. All are
// read at once; parents of other types are left out.
func (e *Edge[P, K, V]) LoadAll(ctx context.Context, parents []any, add func(i int, v V, err error)) {
	keys := make([]K, 0, len(parents))
	for _, p := range parents {
		if p, ok := p.(P); ok {
			keys = append(keys, e.key(p))
		}
	}
	found, err := e.from.LoadAll(ctx, keys)
	for i, p := range parents {
		if p, ok := p.(P); ok {
			add(i, found[e.key(p)], err)
		}
	}
}

// siblingBatch is the read that siblings share: the values of all of them, and the level
// that these make.
type siblingBatch[K comparable, V any] struct {
	*pending[K, V]
	once sync.Once
	to   level
}

// valueOf returns the value of one sibling's key; asked is false for a key that is not
// part of the batch.
func (r *siblingBatch[K, V]) valueOf(ctx context.Context, key K, spread func(map[K]V) any) (v V, asked bool, err error) {
	if err := r.wait(ctx); err != nil {
		return v, true, err
	}
	r.once.Do(func() { r.to.objects = spread(r.found) })
	setChildLevel(ctx, &r.to)
	v, ok := r.found[key]
	return v, ok || slices.Contains(r.keys, key), nil
}

// List declares a field that leads from a parent to pages of a list. A are the
// arguments of the field, which are equal for all siblings.
type List[P, K comparable, A, T any] struct {
	key  func(P) K
	open func(*Domains) (pages func(context.Context, []K, A) (map[K]page.Page[T], error), count func(context.Context, []K, A) (map[K]int, error))
}

// newList declares a nested list, with the bulk reads of its pages and of its total
// counts.
func newList[P, K comparable, A, T any](
	open func(*Domains) (pages func(context.Context, []K, A) (map[K]page.Page[T], error), count func(context.Context, []K, A) (map[K]int, error)),
	key func(P) K,
) *List[P, K, A, T] {
	return &List[P, K, A, T]{key, open}
}

// Load returns a page of the parent's list, read in one query for all siblings; their
// total counts are one more query if the document selects them.
func (l *List[P, K, A, T]) Load(ctx context.Context, parent P, args A) (*model.Connection[T], error) {
	key, level := l.key(parent), parentLevel(ctx)
	pages, count := l.open(&loadersFrom(ctx).domains)
	read := func(ctx context.Context, keys []K) (map[K]page.Page[T], error) { return pages(ctx, keys, args) }
	r, first := shareAmongSiblings(ctx, l, level, func() *siblingPages[K, T] {
		return newSiblingPages[K, T](keysOf(siblingsOf(level, parent), l.key))
	})
	if first {
		newBatcher(read, nil).start(ctx, r.pending)
	}
	p, asked, err := r.valueOf(ctx, key, pageItems)
	if err == nil && !asked {
		r = newSiblingPages[K, T]([]K{key})
		newBatcher(read, nil).start(ctx, r.pending)
		p, _, err = r.valueOf(ctx, key, pageItems)
	}
	if err != nil {
		return nil, err
	}
	return model.NewConnection(p, func(ctx context.Context) (int, error) {
		return r.countOf(ctx, key, func(ctx context.Context, keys []K) (map[K]int, error) { return count(ctx, keys, args) })
	}), nil
}

// siblingPages is a siblingBatch of pages, with the total counts of their lists.
type siblingPages[K comparable, T any] struct {
	siblingBatch[K, page.Page[T]]
	counting sync.Once
	counts   *pending[K, int]
}

func newSiblingPages[K comparable, T any](keys []K) *siblingPages[K, T] {
	return &siblingPages[K, T]{siblingBatch: siblingBatch[K, page.Page[T]]{pending: newPending[K, page.Page[T]](keys)}}
}

func (r *siblingPages[K, T]) countOf(ctx context.Context, key K, read bulkRead[K, int]) (int, error) {
	r.counting.Do(func() {
		r.counts = newPending[K, int](r.keys)
		newBatcher(read, nil).start(ctx, r.counts)
	})
	if err := r.counts.wait(ctx); err != nil {
		return 0, err
	}
	return r.counts.found[key], nil
}

func pageItems[K comparable, T any](pages map[K]page.Page[T]) any {
	var all []T
	for _, p := range pages {
		all = append(all, p.Items...)
	}
	return all
}

func keysOf[P, K comparable](parents []P, key func(P) K) []K {
	keys := make([]K, len(parents))
	for i, p := range parents {
		keys[i] = key(p)
	}
	return keys
}
