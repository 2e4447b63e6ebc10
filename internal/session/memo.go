package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errUnread = errors.New("read broke off")

// memo remembers what a read returned for a short time, and lets equal reads
// that overlap be one. An age counts from before the read began: what get
// returns is never older than age at the moment get was called, however slow the
// read. Errors are not remembered.
type memo[K comparable, V any] struct {
	age  time.Duration
	size int
	now  func() time.Time

	mu    sync.Mutex
	reads map[K]*reading[V]
}

// reading is a read, under way until done is closed.
type reading[V any] struct {
	began time.Time
	done  chan struct{}
	value V
	err   error
}

func newMemo[K comparable, V any](age time.Duration, size int, now func() time.Time) *memo[K, V] {
	return &memo[K, V]{age: age, size: size, now: now, reads: map[K]*reading[V]{}}
}

// get returns the value of the key, by read unless it is remembered. A read that
// others may wait for goes on if the caller that began it leaves.
func (m *memo[K, V]) get(ctx context.Context, key K, read func(context.Context) (V, error)) (V, error) {
	r, fresh := m.claim(key)
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

// claim returns the reading of the key that is young enough, or a fresh one that
// the caller must fill.
func (m *memo[K, V]) claim(key K) (r *reading[V], fresh bool) {
	at := m.now()
	old := func(r *reading[V]) bool { return at.Sub(r.began) >= m.age }
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.reads[key]; ok && !old(r) {
		return r, false
	}
	makeRoom(m.reads, m.size, old)
	r = &reading[V]{began: at, done: make(chan struct{})}
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
