// Package loader owns how the edges of the graph are read: in bulk, one set of
// loaders for each response.
//
// Every look-up by id, every edge and every nested list is declared once, in
// graph.go: from a parent to a key, and the bulk read behind it. Nothing waits
// for siblings to turn up. The objects that one field of a document has led to
// are known the moment they are read, all together (see level), so whichever of
// them is asked first reads for all. Statements therefore grow with the document
// and never with the length of a list, however busy the machine is.
//
// Whether the caller may see an object is decided by the bulk read: hidden and
// absent objects are both the zero value.
package loader

import (
	"context"
	"slices"
	"sync"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/user"
)

// maxBatch bounds the keys of one read; more are several reads, one after the other.
const maxBatch = 500

// Reads are the bulk reads behind the declarations: domain services, which know
// what the caller may see.
type Reads struct {
	Users    *user.Service
	Products *order.Catalog
	Orders   *order.Service
	Sessions *session.Service
	Registry *registry.Registrar
	Log      *event.Log
	Overseer *event.Overseer
	Legacy   *legacy.Service // has no loaders
}

// Loaders hold what one response has read. They are safe for concurrent use.
type Loaders struct {
	reads  Reads
	mu     sync.Mutex
	opened map[any]any // *Loader to its *memory
}

// New returns loaders that know nothing yet.
func New(r Reads) *Loaders { return &Loaders{reads: r, opened: map[any]any{}} }

type key struct{}

// With returns a context that carries the loaders of a response.
func With(ctx context.Context, l *Loaders) context.Context { return context.WithValue(ctx, key{}, l) }

// from returns the loaders of the response. It panics if there are none: then
// the schema is executed without the middleware of package graph.
func from(ctx context.Context) *Loaders { return ctx.Value(key{}).(*Loaders) }

// bulk reads values of many keys. Keys without a value are left out.
type bulk[K comparable, V any] = func(context.Context, []K) (map[K]V, error)

// peek answers from the memory of the process what bulk would, at once; ok is
// false for what is not there.
type peek[K comparable, V any] = func(context.Context, K) (v V, ok bool)

// Loader declares a look-up by key.
type Loader[K comparable, V any] struct {
	open func(*Reads) (bulk[K, V], peek[K, V])
}

// byKey declares a look-up. The peek that open returns may be nil.
func byKey[K comparable, V any](open func(*Reads) (bulk[K, V], peek[K, V])) *Loader[K, V] {
	return &Loader[K, V]{open}
}

// Load returns the value of the key, zero if it has none.
func (l *Loader[K, V]) Load(ctx context.Context, key K) (V, error) {
	found, err := l.LoadAll(ctx, []K{key})
	return found[key], err
}

// LoadAll returns the values of the keys that have one. What the process or this
// response holds is taken from there; the rest is one read for each maxBatch of
// keys.
func (l *Loader[K, V]) LoadAll(ctx context.Context, keys []K) (map[K]V, error) {
	p := l.start(ctx, keys)
	if err := p.wait(ctx); err != nil {
		return nil, err
	}
	return p.found, nil
}

// start begins to read the keys.
func (l *Loader[K, V]) start(ctx context.Context, keys []K) *pending[K, V] {
	return l.memory(from(ctx)).start(ctx, keys)
}

func (l *Loader[K, V]) memory(of *Loaders) *memory[K, V] {
	of.mu.Lock()
	defer of.mu.Unlock()
	if m, ok := of.opened[l].(*memory[K, V]); ok {
		return m
	}
	m := newMemory(l.open(&of.reads))
	of.opened[l] = m
	return m
}

// unique returns the keys, each once.
func unique[K comparable](keys []K) []K {
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
