package executor

import (
	"container/list"
	"sync"
)

// lru is a least-recently-used cache bounded by bytes, which the caller states for each
// value. It is safe for concurrent use. It is not otter, which package cache uses,
// since otter's admission policy may reject a new entry: a persisted query just
// registered must be found by the client's next request, and one document must not
// evict more than an eighth of the others.
type lru[V any] struct {
	mu    sync.Mutex
	limit int64
	size  int64
	order *list.List // of *entry[V], the most recently used in front
	items map[string]*list.Element
}

type entry[V any] struct {
	key   string
	value V
	size  int64
}

// entryBytes estimates the memory of an entry without its value.
const entryBytes = 200

func newLRU[V any](limit int64) *lru[V] {
	return &lru[V]{limit: limit, order: list.New(), items: map[string]*list.Element{}}
}

func (c *lru[V]) get(key string) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*entry[V]).value, true
}

// put stores the value unless it is larger than an eighth of the cache, so that no
// single value empties it. It never replaces the value of a key.
func (c *lru[V]) put(key string, v V, size int64) {
	size += entryBytes
	if size > c.limit/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok {
		return
	}
	c.items[key] = c.order.PushFront(&entry[V]{key, v, size})
	for c.size += size; c.size > c.limit; {
		last := c.order.Remove(c.order.Back()).(*entry[V])
		delete(c.items, last.key)
		c.size -= last.size
	}
}
