package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/bounded"
)

var errReadAborted = errors.New("read aborted")

// readCache keeps what reads returned, as long as callers trust it, and lets
// equal reads that overlap be one. Plain singleflight does not fit: whether a
// caller may join a read depends on when the read began, so that however slow it
// was, the result is as recent as the caller asked for when it called get. Errors
// are not kept.
type readCache[K comparable, V any] struct {
	maxAge   time.Duration // beyond which no caller trusts a read
	size     int
	now      func() time.Time
	sequence func() uint64 // revocation sequence number of a read that begins now

	mu    sync.Mutex
	reads map[K]*cachedRead[V]
}

// cachedRead is a read, in flight until done is closed.
type cachedRead[V any] struct {
	began    time.Time
	sequence uint64
	done     chan struct{}
	value    V
	err      error
}

// trustFunc reports whether its caller trusts a read of that age.
type trustFunc[V any] func(r *cachedRead[V], age time.Duration) bool

// result returns the value of a read that has ended without an error.
func (r *cachedRead[V]) result() (value V, ok bool) {
	select {
	case <-r.done:
		return r.value, r.err == nil
	default:
		return value, false
	}
}

func newReadCache[K comparable, V any](maxAge time.Duration, size int, now func() time.Time, sequence func() uint64) *readCache[K, V] {
	return &readCache[K, V]{maxAge: maxAge, size: size, now: now, sequence: sequence, reads: map[K]*cachedRead[V]{}}
}

// get returns the value of the key, by read unless there is a read that the
// caller trusts. A read that other callers may have joined goes on if the caller
// that began it leaves.
func (c *readCache[K, V]) get(ctx context.Context, key K, trust trustFunc[V], read func(context.Context) (V, error)) (V, error) {
	r, fresh := c.join(key, trust)
	if fresh {
		c.runRead(ctx, key, r, read)
	}
	select {
	case <-r.done:
		return r.value, r.err
	default:
	}
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// join returns the read of the key if it is trusted, or a fresh one that the
// caller must run.
func (c *readCache[K, V]) join(key K, trust trustFunc[V]) (r *cachedRead[V], fresh bool) {
	at := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.reads[key]; ok && trust(r, at.Sub(r.began)) {
		return r, false
	}
	bounded.MakeRoom(c.reads, c.size, func(r *cachedRead[V]) bool { return at.Sub(r.began) >= c.maxAge })
	r = &cachedRead[V]{began: at, sequence: c.sequence(), done: make(chan struct{})}
	c.reads[key] = r
	return r, true
}

func (c *readCache[K, V]) runRead(ctx context.Context, key K, r *cachedRead[V], read func(context.Context) (V, error)) {
	ctx, cancel := detachContext(ctx)
	defer cancel()
	defer close(r.done)
	defer func() {
		if r.err != nil {
			c.removeFailed(key, r)
		}
	}()
	r.err = errReadAborted // for callers that joined, should read panic
	r.value, r.err = read(ctx)
}

func (c *readCache[K, V]) removeFailed(key K, r *cachedRead[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads[key] == r {
		delete(c.reads, key)
	}
}

// cached returns the value of the last read of the key, if there is one that has ended without an
// error.
func (c *readCache[K, V]) cached(key K) (value V, ok bool) {
	c.mu.Lock()
	r := c.reads[key]
	c.mu.Unlock()
	if r == nil {
		return value, false
	}
	return r.result()
}

// invalidate makes later calls read the key again.
func (c *readCache[K, V]) invalidate(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reads, key)
}

// detachTimeout ends work that outlives its request.
const detachTimeout = 5 * time.Second

func detachContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
}
