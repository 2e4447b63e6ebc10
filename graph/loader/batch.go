package loader

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
)

// batcher is the dataloader of one declaration in one response: its results, and the
// batches under way.
type batcher[K comparable, V any] struct {
	read bulkRead[K, V]
	peek memoryRead[K, V]

	mu      sync.Mutex
	results map[K]result[K, V]
}

// result is a value, or the batch that will have it.
type result[K comparable, V any] struct {
	value V
	from  *batch[K, V] // nil once the value is there
}

func newBatcher[K comparable, V any](read bulkRead[K, V], peek memoryRead[K, V]) *batcher[K, V] {
	return &batcher[K, V]{read: read, peek: peek, results: map[K]result[K, V]{}}
}

// startLoad starts to read the keys that are neither read nor under way.
func (m *batcher[K, V]) startLoad(ctx context.Context, keys []K) *pending[K, V] {
	p := newPending[K, V](uniqueKeys(keys))
	var missing []K
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range p.keys {
		if !m.takeResult(ctx, k, p) {
			missing = append(missing, k)
		}
	}
	batches := startBatches(ctx, missing, m.read, m.forgetBatch)
	for _, b := range batches {
		for _, k := range b.keys {
			m.results[k] = result[K, V]{from: b}
		}
	}
	p.from = append(p.from, batches...)
	return p
}

// takeResult adds to p the value of the key, or the batch that reads it; false if it
// must be read.
func (m *batcher[K, V]) takeResult(ctx context.Context, key K, p *pending[K, V]) bool {
	e, ok := m.results[key]
	if !ok && m.peek != nil {
		if e.value, ok = m.peek(ctx, key); ok {
			m.results[key] = e
		}
	}
	switch {
	case !ok:
	case e.from == nil:
		p.found[key] = e.value
	case !slices.Contains(p.from, e.from):
		p.from = append(p.from, e.from)
	}
	return ok
}

// forgetBatch drops a failed batch: errors are not cached.
func (m *batcher[K, V]) forgetBatch(b *batch[K, V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.results, func(_ K, e result[K, V]) bool { return e.from == b })
}

// batch is a bulk read, under way until done is closed.
type batch[K comparable, V any] struct {
	keys  []K
	done  chan struct{}
	found map[K]V
	err   error
}

// startBatches starts to read the keys, maxBatch of them at a time, so that no response
// takes more than one connection for each of its fields. Other fields may wait for the
// values, so a read goes on when the field that started it is cancelled, up to the
// time limit that all fields of a response share. failed, if not nil, is called with a
// failed batch before any waiter returns.
func startBatches[K comparable, V any](ctx context.Context, keys []K, read bulkRead[K, V], failed func(*batch[K, V])) []*batch[K, V] {
	if len(keys) == 0 {
		return nil
	}
	var batches []*batch[K, V]
	for some := range slices.Chunk(keys, maxBatch) {
		batches = append(batches, &batch[K, V]{keys: some, done: make(chan struct{})})
	}
	go func() {
		ctx, cancel := detachContext(ctx)
		defer cancel()
		for _, b := range batches {
			b.runRead(ctx, read, failed)
		}
	}()
	return batches
}

func (b *batch[K, V]) runRead(ctx context.Context, read bulkRead[K, V], failed func(*batch[K, V])) {
	defer close(b.done)
	defer func() {
		if r := recover(); r != nil {
			b.err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if b.err != nil && failed != nil {
			failed(b)
		}
	}()
	b.found, b.err = read(ctx, b.keys)
}

func detachContext(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return context.WithCancel(free)
}

// pending is the values of several keys, of which some may be under way.
type pending[K comparable, V any] struct {
	keys  []K // each once
	from  []*batch[K, V]
	once  sync.Once
	found map[K]V // complete after wait
}

func newPending[K comparable, V any](keys []K) *pending[K, V] {
	return &pending[K, V]{keys: keys, found: make(map[K]V, len(keys))}
}

// wait returns once all values are read, or with the error of the first batch that
// failed or of ctx. Any number of callers may wait, each with its own context.
func (p *pending[K, V]) wait(ctx context.Context) error {
	for _, b := range p.from {
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if b.err != nil {
			return b.err
		}
	}
	p.once.Do(p.collectResults)
	return nil
}

func (p *pending[K, V]) collectResults() {
	for _, b := range p.from {
		for _, k := range p.keys {
			if v, ok := b.found[k]; ok {
				p.found[k] = v
			}
		}
	}
}
