package loader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/graph-gophers/dataloader/v7"
)

// batcher is the dataloader of one declaration in one response. The library caches a
// promise (thunk) by key, joins the callers of a key on it and dispatches batches. Its
// timer is off: start has all keys of a batch, and flushes it.
type batcher[K comparable, V any] struct {
	read  bulkRead[K, V]
	peek  memoryRead[K, V]
	cache dataloader.Cache[K, V]
	known map[K]V // what peek has returned

	mu     sync.Mutex // held until the batch is flushed, so that no other caller splits it
	loader *dataloader.Loader[K, V]
}

func newBatcher[K comparable, V any](read bulkRead[K, V], peek memoryRead[K, V]) *batcher[K, V] {
	b := &batcher[K, V]{read: read, peek: peek, cache: dataloader.NewCache[K, V](), known: map[K]V{}}
	b.loader = dataloader.NewBatchedLoader(b.readBatch, dataloader.WithCache(b.cache), dataloader.WithWait[K, V](math.MaxInt64),
		dataloader.WithInputCapacity[K, V](64)) // the library's 1,000 allocate 8 KB a batch
	return b
}

// start starts to read the keys of p that are neither read nor under way, in one batch.
// A panic is an error of p, for which siblings wait.
func (b *batcher[K, V]) start(ctx context.Context, p *pending[K, V]) {
	defer func() {
		if r := recover(); r != nil {
			p.err = panicError(r)
			close(p.done)
		}
	}()
	if b.loadThunks(ctx, p) {
		go p.collectValues()
	} else {
		p.collectValues()
	}
}

// loadThunks reports whether p may have to wait for a value.
func (b *batcher[K, V]) loadThunks(ctx context.Context, p *pending[K, V]) (waits bool) {
	p.keys = uniqueKeys(p.keys)
	p.found = make(map[K]V, len(p.keys))
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.loader.Flush()
	for i, k := range p.keys {
		if v, ok := b.knownValue(ctx, k); ok {
			p.found[k] = v
			continue
		}
		if p.thunks == nil {
			p.thunks = make([]dataloader.Thunk[V], len(p.keys))
		}
		p.thunks[i] = b.loader.Load(ctx, k)
	}
	return p.thunks != nil
}

// knownValue returns the value of the key from the memory of the process, always the same in a
// response, unless the loader has it or reads it.
func (b *batcher[K, V]) knownValue(ctx context.Context, key K) (v V, ok bool) {
	if b.peek == nil {
		return v, false
	}
	if v, ok = b.known[key]; ok {
		return v, true
	}
	if _, ok = b.cache.Get(ctx, key); ok {
		return v, false
	}
	if v, ok = b.peek(ctx, key); ok {
		b.known[key] = v
	}
	return v, ok
}

// readBatch reads the keys of a batch, maxBatch of them at a time, so that no response
// takes more than one connection for each of its fields. Other fields may wait for the
// values, so a read goes on when the field that started it is cancelled, up to the time
// limit that all fields of a response share. An error is the result of the keys from
// there on, which leave the cache before any waiter returns.
func (b *batcher[K, V]) readBatch(ctx context.Context, keys []K) []*dataloader.Result[V] {
	ctx, cancel := detachContext(ctx)
	defer cancel()
	var err error
	values := make([]dataloader.Result[V], len(keys))
	results := make([]*dataloader.Result[V], 0, len(keys))
	for some := range slices.Chunk(keys, maxBatch) {
		var found map[K]V
		if err == nil {
			found, err = b.readRecovered(ctx, some)
		}
		for _, k := range some {
			var ok bool
			r := &values[len(results)]
			switch r.Data, ok = found[k]; {
			case err != nil:
				b.loader.Clear(ctx, k)
				r.Error = err
			case !ok:
				r.Error = dataloader.ErrNoResultProvided
			}
			results = append(results, r)
		}
	}
	return results
}

func (b *batcher[K, V]) readRecovered(ctx context.Context, keys []K) (found map[K]V, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError(r)
		}
	}()
	return b.read(ctx, keys)
}

func panicError(r any) error { return fmt.Errorf("panic: %v\n%s", r, debug.Stack()) }

func detachContext(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return context.WithCancel(free)
}

// pending is the values of several keys, of which some may be under way.
type pending[K comparable, V any] struct {
	keys   []K // each once, when done
	thunks []dataloader.Thunk[V]
	done   chan struct{} // closed once found and err are complete
	found  map[K]V
	err    error
}

// newPending returns the values of the keys; batcher.start starts to read them.
func newPending[K comparable, V any](keys []K) *pending[K, V] {
	return &pending[K, V]{keys: keys, done: make(chan struct{})}
}

// collectValues waits for the thunks, which a context cannot end.
func (p *pending[K, V]) collectValues() {
	defer close(p.done)
	for i, thunk := range p.thunks {
		if thunk == nil {
			continue // known
		}
		v, err := thunk()
		if err == nil {
			p.found[p.keys[i]] = v
		} else if !errors.Is(err, dataloader.ErrNoResultProvided) {
			p.err = err
			return
		}
	}
}

// wait returns once all values are read, or with the first error of a batch or of ctx.
// Any number of callers may wait, each with its own context.
func (p *pending[K, V]) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
