package cache

import (
	"sync"
	"sync/atomic"
)

const (
	minimumShards      = 64
	maxMinimumVersions = 1 << 17 // some 16 MiB
)

// key names a row: the entity and its id.
type key struct{ entity, id string }

// minimumVersions holds the newest known version of rows whose values process memory does not hold,
// so that no older value of Redis is accepted. A version must be held only until the log names it and
// is applied to Redis up to there, see takeCheckpoint: from then on Redis holds nothing older.
//
// A cache library does not fit, since none of the versions may be evicted unnoticed.
type minimumVersions struct {
	shards       [minimumShards]minimumShard
	n            atomic.Int64
	overflowedAt atomic.Int64 // when one was last dropped for lack of room, as monotime.Nanos
}

type minimumShard struct {
	mu       sync.Mutex
	versions map[key]knownVersion
}

type knownVersion struct {
	version int
	at      int64 // when it became known, as monotime.Nanos
}

func newMinimumVersions() *minimumVersions {
	m := &minimumVersions{}
	for i := range m.shards {
		m.shards[i].versions = make(map[key]knownVersion)
	}
	return m
}

// get returns the minimum version of the row; 0 if there is none.
func (m *minimumVersions) get(e *invalidationEpochs, k key) int {
	s := m.shard(e, k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions[k].version
}

// raise raises the minimum version of the row. It reports whether it was lower before.
func (m *minimumVersions) raise(e *invalidationEpochs, k key, version int, at int64) bool {
	s := m.shard(e, k)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.versions[k]
	if ok && old.version >= version {
		return false
	}
	if !ok {
		if m.n.Load() >= maxMinimumVersions {
			m.overflowedAt.Store(at)
			return true
		}
		m.n.Add(1)
	}
	s.versions[k] = knownVersion{version, at}
	return true
}

// dropUntil drops the versions that became known up to a time.
func (m *minimumVersions) dropUntil(at int64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for k, v := range s.versions {
			if v.at <= at {
				delete(s.versions, k)
				m.n.Add(-1)
			}
		}
		s.mu.Unlock()
	}
}

func (m *minimumVersions) shard(e *invalidationEpochs, k key) *minimumShard {
	return &m.shards[e.slot(k)%minimumShards]
}
