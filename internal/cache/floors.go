package cache

import (
	"sync"
	"sync/atomic"
)

const (
	floorShards = 64
	maxFloors   = 1 << 17 // some 16 MiB
)

// key names a row: the entity and its id.
type key struct{ entity, id string }

// floors remembers the newest known version of rows whose values this process
// does not hold, so that an older value in Redis is not taken for news. It must
// remember a version only until the log has told of it and Redis has heard that,
// see Cache.settle: from then on Redis holds nothing older.
type floors struct {
	shards [floorShards]floorShard
	n      atomic.Int64
	blind  atomic.Int64 // when one was last forgotten for lack of room, in Unix nanoseconds
}

type floorShard struct {
	mu    sync.Mutex
	known map[key]floor
}

type floor struct {
	version int
	at      int64 // when it became known, in Unix nanoseconds
}

func newFloors() *floors {
	f := &floors{}
	for i := range f.shards {
		f.shards[i].known = make(map[key]floor)
	}
	return f
}

// get returns the newest known version of the row; 0 if none is remembered.
func (f *floors) get(c *clock, k key) int {
	s := f.shard(c, k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[k].version
}

// raise remembers a version. It reports whether that was news.
func (f *floors) raise(c *clock, k key, version int, at int64) bool {
	s := f.shard(c, k)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.known[k]
	if ok && old.version >= version {
		return false
	}
	if !ok {
		if f.n.Load() >= maxFloors {
			f.blind.Store(at)
			return true
		}
		f.n.Add(1)
	}
	s.known[k] = floor{version, at}
	return true
}

// drop forgets what became known up to a moment.
func (f *floors) drop(until int64) {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		for k, v := range s.known {
			if v.at <= until {
				delete(s.known, k)
				f.n.Add(-1)
			}
		}
		s.mu.Unlock()
	}
}

func (f *floors) shard(c *clock, k key) *floorShard { return &f.shards[c.slot(k)%floorShards] }
