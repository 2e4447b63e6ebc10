// Package loader reads the nodes and edges of the graph in bulk, with one set of
// dataloaders for each response, so that a list never causes N+1 reads.
//
// Every node, every edge and every nested list is declared once, in graph.go: from a
// parent to a key, and the bulk read behind it. A batch does not wait for a timer. The
// objects that one field of a document returns are known all together once they are
// read (see level), so the first of these siblings whose field is resolved reads for
// all of them. The number of statements therefore grows with the document, not with the
// length of a list or the load of the machine.
//
// The bulk read decides whether the caller may see an object: hidden and absent objects
// are both the zero value.
package loader

import (
	"context"
	"slices"
	"sync"
)

// maxBatch bounds the keys of one bulk read; more keys are read in several, one after
// the other.
const maxBatch = 500

// Loaders hold the results of one response. They are safe for concurrent use.
type Loaders struct {
	domains  Domains
	mu       sync.Mutex
	batchers map[any]any // *Loader to its *memory
}

// New returns loaders without results.
func New(d Domains) *Loaders { return &Loaders{domains: d, batchers: map[any]any{}} }

type key struct{}

// WithLoaders returns a context that carries the loaders of a response.
func WithLoaders(ctx context.Context, l *Loaders) context.Context {
	return context.WithValue(ctx, key{}, l)
}

// loadersFrom returns the loaders of the response. It panics if there are none:
// then the schema is executed without the hooks of package graph.
func loadersFrom(ctx context.Context) *Loaders { return ctx.Value(key{}).(*Loaders) }

// bulkRead reads values of many keys. Keys without a value are left out.
type bulkRead[K comparable, V any] = func(context.Context, []K) (map[K]V, error)

// memoryRead returns a value from the memory of the process without waiting; ok is false
// if it is not there.
type memoryRead[K comparable, V any] = func(context.Context, K) (v V, ok bool)

// Loader declares a dataloader: values by key.
type Loader[K comparable, V any] struct {
	open func(*Domains) (bulkRead[K, V], memoryRead[K, V])
}

// newLoader declares a look-up. The peek that open returns may be nil.
func newLoader[K comparable, V any](open func(*Domains) (bulkRead[K, V], memoryRead[K, V])) *Loader[K, V] {
	return &Loader[K, V]{open}
}

// Load returns the value of the key, zero if it has none.
func (l *Loader[K, V]) Load(ctx context.Context, key K) (V, error) {
	found, err := l.LoadAll(ctx, []K{key})
	return found[key], err
}

// LoadAll returns the values of the keys that have one. It takes values from this
// response or the memory of the process if they are there; the rest is one bulk read
// for each maxBatch of keys.
func (l *Loader[K, V]) LoadAll(ctx context.Context, keys []K) (map[K]V, error) {
	p := newPending[K, V](keys)
	l.batcherOf(loadersFrom(ctx)).start(ctx, p)
	if err := p.wait(ctx); err != nil {
		return nil, err
	}
	return p.found, nil
}

func (l *Loader[K, V]) batcherOf(of *Loaders) *batcher[K, V] {
	of.mu.Lock()
	defer of.mu.Unlock()
	if m, ok := of.batchers[l].(*batcher[K, V]); ok {
		return m
	}
	m := newBatcher(l.open(&of.domains))
	of.batchers[l] = m
	return m
}

// uniqueKeys returns the keys, each once.
func uniqueKeys[K comparable](keys []K) []K {
	if len(keys) < 2 {
		return keys
	}
	seen := make(map[K]struct{}, len(keys))
	return slices.DeleteFunc(slices.Clone(keys), func(k K) bool {
		_, again := seen[k]
		seen[k] = struct{}{}
		return again
	})
}
