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

// edge declares a field that leads to one object, or to a plain value.
func edge[P, K, V comparable](from *Loader[K, V], key func(P) K) *Edge[P, K, V] {
	return &Edge[P, K, V]{key, from, func(found map[K]V) any {
		var none V // hidden or absent
		return slices.DeleteFunc(slices.Collect(maps.Values(found)), func(v V) bool { return v == none })
	}}
}

// edges declares a field that leads to a list of objects.
func edges[P, K comparable, V any](from *Loader[K, []V], key func(P) K) *Edge[P, K, []V] {
	return &Edge[P, K, []V]{key, from, func(found map[K][]V) any { return slices.Concat(slices.Collect(maps.Values(found))...) }}
}

// Of returns what the field leads to from the parent. The first of its siblings
// that asks reads for all of them.
func (e *Edge[P, K, V]) Of(ctx context.Context, parent P) (V, error) {
	key, level := e.key(parent), parents(ctx)
	r := share(ctx, e, level, func() *reading[K, V] {
		return &reading[K, V]{pending: e.from.start(ctx, keysOf(siblings(level, parent), e.key))}
	})
	v, asked, err := r.value(ctx, key, e.spread)
	if err == nil && !asked {
		return e.from.Load(ctx, key)
	}
	return v, err
}

// reading is what siblings share: the values of all, and the level that they make.
type reading[K comparable, V any] struct {
	*pending[K, V]
	once sync.Once
	to   level
}

// value returns the value of one sibling's key; asked is false for a key that the
// reading knows nothing of.
func (r *reading[K, V]) value(ctx context.Context, key K, spread func(map[K]V) any) (v V, asked bool, err error) {
	if err := r.wait(ctx); err != nil {
		return v, true, err
	}
	r.once.Do(func() { r.to.objects = spread(r.found) })
	leadsTo(ctx, &r.to)
	v, ok := r.found[key]
	return v, ok || slices.Contains(r.keys, key), nil
}

// List declares a field that leads from a parent to pages of a list. A are the
// arguments of the field, which are equal for all siblings.
type List[P, K comparable, A, T any] struct {
	key  func(P) K
	open func(*Reads) (pages func(context.Context, []K, A) (map[K]page.Page[T], error), count func(context.Context, []K, A) (map[K]int, error))
}

// list declares a nested list, with the bulk reads of its pages and of how many
// items they hold in all.
func list[P, K comparable, A, T any](
	open func(*Reads) (pages func(context.Context, []K, A) (map[K]page.Page[T], error), count func(context.Context, []K, A) (map[K]int, error)),
	key func(P) K,
) *List[P, K, A, T] {
	return &List[P, K, A, T]{key, open}
}

// Of returns a page of the parent's list, read in one query for all siblings; how
// many items there are in all is one more query for all who ask.
func (l *List[P, K, A, T]) Of(ctx context.Context, parent P, args A) (*model.Connection[T], error) {
	key, level := l.key(parent), parents(ctx)
	pages, count := l.open(&from(ctx).reads)
	read := func(ctx context.Context, keys []K) (map[K]page.Page[T], error) { return pages(ctx, keys, args) }
	r := share(ctx, l, level, func() *listing[K, T] {
		return &listing[K, T]{reading: reading[K, page.Page[T]]{pending: single(ctx, keysOf(siblings(level, parent), l.key), read)}}
	})
	p, asked, err := r.value(ctx, key, items)
	if err == nil && !asked {
		r = &listing[K, T]{reading: reading[K, page.Page[T]]{pending: single(ctx, []K{key}, read)}}
		p, _, err = r.value(ctx, key, items)
	}
	if err != nil {
		return nil, err
	}
	return model.NewConnection(p, func(ctx context.Context) (int, error) {
		return r.count(ctx, key, func(ctx context.Context, keys []K) (map[K]int, error) { return count(ctx, keys, args) })
	}), nil
}

// listing is a reading of pages, and of how many items their lists hold.
type listing[K comparable, T any] struct {
	reading[K, page.Page[T]]
	counting sync.Once
	counts   *pending[K, int]
}

func (r *listing[K, T]) count(ctx context.Context, key K, read bulk[K, int]) (int, error) {
	r.counting.Do(func() { r.counts = single(ctx, r.keys, read) })
	if err := r.counts.wait(ctx); err != nil {
		return 0, err
	}
	return r.counts.found[key], nil
}

func items[K comparable, T any](pages map[K]page.Page[T]) any {
	var all []T
	for _, p := range pages {
		all = append(all, p.Items...)
	}
	return all
}

// single reads the keys without regard to what else the response has read.
func single[K comparable, V any](ctx context.Context, keys []K, read bulk[K, V]) *pending[K, V] {
	p := newPending[K, V](unique(keys))
	p.from = begin(ctx, p.keys, read, nil)
	return p
}

func keysOf[P, K comparable](parents []P, key func(P) K) []K {
	keys := make([]K, len(parents))
	for i, p := range parents {
		keys[i] = key(p)
	}
	return keys
}
