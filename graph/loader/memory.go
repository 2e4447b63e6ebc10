package loader

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
)

// memory is what a response has read of one kind, and is reading.
type memory[K comparable, V any] struct {
	read bulk[K, V]
	peek peek[K, V]

	mu    sync.Mutex
	known map[K]known[K, V]
}

// known is a value, or where it will come from.
type known[K comparable, V any] struct {
	value V
	from  *batch[K, V] // nil if value is it
}

func newMemory[K comparable, V any](read bulk[K, V], peek peek[K, V]) *memory[K, V] {
	return &memory[K, V]{read: read, peek: peek, known: map[K]known[K, V]{}}
}

// start begins to read what is neither held nor under way.
func (m *memory[K, V]) start(ctx context.Context, keys []K) *pending[K, V] {
	p := newPending[K, V](unique(keys))
	var missing []K
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range p.keys {
		if !m.answer(ctx, k, p) {
			missing = append(missing, k)
		}
	}
	batches := begin(ctx, missing, m.read, m.forget)
	for _, b := range batches {
		for _, k := range b.keys {
			m.known[k] = known[K, V]{from: b}
		}
	}
	p.from = append(p.from, batches...)
	return p
}

// answer notes in p the value of the key, or the batch that it is part of; false
// if it must be read.
func (m *memory[K, V]) answer(ctx context.Context, key K, p *pending[K, V]) bool {
	e, ok := m.known[key]
	if !ok && m.peek != nil {
		if e.value, ok = m.peek(ctx, key); ok {
			m.known[key] = e
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

// forget drops a batch that has failed: an error is no answer to keep.
func (m *memory[K, V]) forget(b *batch[K, V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.known, func(_ K, e known[K, V]) bool { return e.from == b })
}

// batch is a read of several keys, under way until done is closed.
type batch[K comparable, V any] struct {
	keys  []K
	done  chan struct{}
	found map[K]V
	err   error
}

// begin begins to read the keys, maxBatch of them at a time, so that no response
// takes more than one connection for each of its fields. Others may wait for the
// values, so a read goes on when the field that began it is cancelled, up to the
// time limit that all fields of a response share. Failed, if it is not nil, hears
// of an error before anybody else.
func begin[K comparable, V any](ctx context.Context, keys []K, read bulk[K, V], failed func(*batch[K, V])) []*batch[K, V] {
	if len(keys) == 0 {
		return nil
	}
	var batches []*batch[K, V]
	for some := range slices.Chunk(keys, maxBatch) {
		batches = append(batches, &batch[K, V]{keys: some, done: make(chan struct{})})
	}
	go func() {
		ctx, cancel := detached(ctx)
		defer cancel()
		for _, b := range batches {
			b.fill(ctx, read, failed)
		}
	}()
	return batches
}

func (b *batch[K, V]) fill(ctx context.Context, read bulk[K, V], failed func(*batch[K, V])) {
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

func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return context.WithCancel(free)
}

// pending are the values of several keys, some of them perhaps under way.
type pending[K comparable, V any] struct {
	keys  []K // each once
	from  []*batch[K, V]
	once  sync.Once
	found map[K]V // complete after wait
}

func newPending[K comparable, V any](keys []K) *pending[K, V] {
	return &pending[K, V]{keys: keys, found: make(map[K]V, len(keys))}
}

// wait returns once everything is found, or with the error of the first batch
// that failed or of ctx. Any number of callers may wait, each on its own context.
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
	p.once.Do(p.gather)
	return nil
}

func (p *pending[K, V]) gather() {
	for _, b := range p.from {
		for _, k := range p.keys {
			if v, ok := b.found[k]; ok {
				p.found[k] = v
			}
		}
	}
}
