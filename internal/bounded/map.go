// Package bounded keeps maps below a size.
//
// A cache with an admission policy (otter) does not fit here: it may turn a new
// entry away, and expires by its own clock, whereas credentials expire by that of
// the service, and the newest sign-in must not be the one that is verified again
// and again.
package bounded

import (
	"sync"
	"time"
)

// Map is a map of bounded size whose entries expire. It is safe for concurrent
// use.
type Map[K comparable, V any] struct {
	size    int
	mu      sync.RWMutex
	entries map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

// NewMap returns an empty Map of at most size entries.
func NewMap[K comparable, V any](size int) *Map[K, V] {
	return &Map[K, V]{size: size, entries: map[K]entry[V]{}}
}

// Get returns the value of a key and when it expires, zero values if there is
// none. It does not check the expiry.
func (m *Map[K, V]) Get(key K) (value V, until time.Time) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e := m.entries[key]
	return e.value, e.until
}

// Put stores a value until a time. A new key in a full map evicts others: those that have
// expired at the given time, then any.
func (m *Map[K, V]) Put(key K, value V, until, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.entries[key]; !known {
		MakeRoom(m.entries, m.size, func(e entry[V]) bool { return !at.Before(e.until) })
	}
	m.entries[key] = entry[V]{value, until}
}

// Delete removes a key.
func (m *Map[K, V]) Delete(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
}

// Clear removes every key.
func (m *Map[K, V]) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.entries)
}

// Len returns the number of entries, expired ones too.
func (m *Map[K, V]) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.entries)
}

// MakeRoom keeps a map below a size: expired values go first, then any. It
// removes an eighth at a time, so that a full map does not cost a whole walk for
// each new entry.
func MakeRoom[K comparable, V any](m map[K]V, size int, expired func(V) bool) {
	if len(m) < size {
		return
	}
	for k, v := range m {
		if expired(v) {
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
