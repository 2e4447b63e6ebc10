package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errUnread = errors.New("read broke off")

// memo remembers what reads returned, as long as their callers trust it, and lets
// equal reads that overlap be one. Whether a reading is trusted goes by when it
// began: however slow it was, what get returns is as recent as its caller asks at
// the moment get was called. Errors are not remembered.
type memo[K comparable, V any] struct {
	age  time.Duration // beyond which nobody trusts a reading
	size int
	now  func() time.Time
	mark func() uint64 // what a reading that begins now bears

	mu    sync.Mutex
	reads map[K]*reading[V]
}

// reading is a read, under way until done is closed.
type reading[V any] struct {
	began time.Time
	mark  uint64
	done  chan struct{}
	value V
	err   error
}

// ended returns the value of a reading that has one.
func (r *reading[V]) ended() (value V, ok bool) {
	select {
	case <-r.done:
		return r.value, r.err == nil
	default:
		return value, false
	}
}

func newMemo[K comparable, V any](age time.Duration, size int, now func() time.Time, mark func() uint64) *memo[K, V] {
	return &memo[K, V]{age: age, size: size, now: now, mark: mark, reads: map[K]*reading[V]{}}
}

// get returns the value of the key, by read unless a reading is remembered that
// the caller trusts. A read that others may wait for goes on if the caller that
// began it leaves.
func (m *memo[K, V]) get(ctx context.Context, key K, trust func(r *reading[V], age time.Duration) bool, read func(context.Context) (V, error)) (V, error) {
	r, fresh := m.claim(key, trust)
	if fresh {
		m.fill(ctx, key, r, read)
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

// claim returns the reading of the key if it is trusted, or a fresh one that the
// caller must fill.
func (m *memo[K, V]) claim(key K, trust func(r *reading[V], age time.Duration) bool) (r *reading[V], fresh bool) {
	at := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.reads[key]; ok && trust(r, at.Sub(r.began)) {
		return r, false
	}
	makeRoom(m.reads, m.size, func(r *reading[V]) bool { return at.Sub(r.began) >= m.age })
	r = &reading[V]{began: at, mark: m.mark(), done: make(chan struct{})}
	m.reads[key] = r
	return r, true
}

func (m *memo[K, V]) fill(ctx context.Context, key K, r *reading[V], read func(context.Context) (V, error)) {
	ctx, cancel := detach(ctx)
	defer cancel()
	defer close(r.done)
	defer func() {
		if r.err != nil {
			m.drop(key, r)
		}
	}()
	r.err = errUnread // for those who wait, should read panic
	r.value, r.err = read(ctx)
}

func (m *memo[K, V]) drop(key K, r *reading[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reads[key] == r {
		delete(m.reads, key)
	}
}

// forget makes later calls read the key again.
func (m *memo[K, V]) forget(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.reads, key)
}

// makeRoom keeps a map below a size: what is dead goes first, then whatever
// comes. It removes an eighth at a time, so that a full map does not cost a
// whole walk for each new entry.
func makeRoom[K comparable, V any](m map[K]V, size int, dead func(V) bool) {
	if len(m) < size {
		return
	}
	for k, v := range m {
		if dead(v) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < size-size/8 {
			return
		}
		delete(m, k)
	}
}
