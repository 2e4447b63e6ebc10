package cache

import (
	"context"
	"errors"
	"maps"
	"sync"
)

// batchReader reads the keys that no other goroutine is reading.
type batchReader[K comparable, V any] interface {
	// newToken returns a token for reads that begin after it.
	newToken() fillToken
	// isCurrent reports whether the key was not invalidated since the token.
	isCurrent(id K, token fillToken) bool
	// readBatch reads the keys, with Redis if live, and returns those that exist.
	readBatch(ctx context.Context, ids []K, live bool, token fillToken) (map[K]V, error)
}

// singleflight merges concurrent reads of the same key into one. A read joins another only if that one
// began after the last known change of the key.
//
// It is not x/sync/singleflight: one batch reads many keys, and each key has its own waiters.
type singleflight[K comparable, V any] struct {
	mu       sync.Mutex
	inFlight map[K]*keyRead[V]
}

// keyRead is a read of one key under way; all fields but done are written before done is closed.
type keyRead[V any] struct {
	token fillToken
	live  bool // Redis may answer it
	done  chan struct{}
	value V
	found bool
	err   error
}

func newSingleflight[K comparable, V any]() singleflight[K, V] {
	return singleflight[K, V]{inFlight: make(map[K]*keyRead[V])}
}

// readKeys adds the keys that exist to found. It waits for reads that it may join, and reads the other
// keys itself in one batch.
func (s *singleflight[K, V]) readKeys(ctx context.Context, ids []K, live bool, found map[K]V, r batchReader[K, V]) error {
	for len(ids) > 0 {
		own, joined := s.joinReads(ids, live, r)
		if err := s.readBatch(ctx, own, found, r); err != nil {
			return err
		}
		var again []K
		for id, other := range joined {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-other.done:
			}
			switch {
			case other.err == nil && other.found:
				found[id] = other.value
			case isCancellation(other.err): // of the other caller, not of this one
				again = append(again, id)
			case other.err != nil:
				return other.err
			}
		}
		ids = again
	}
	return nil
}

func isCancellation(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// batch is the reads that one caller begins together.
type batch[K comparable, V any] struct {
	ids   []K
	reads map[K]*keyRead[V]
	live  bool
	token fillToken
}

// joinReads returns the batch to read, and the reads of other callers to wait for.
func (s *singleflight[K, V]) joinReads(ids []K, live bool, r batchReader[K, V]) (own batch[K, V], joined map[K]*keyRead[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own = batch[K, V]{reads: make(map[K]*keyRead[V], len(ids)), live: live, token: r.newToken()}
	joined = make(map[K]*keyRead[V])
	for _, id := range ids {
		if _, duplicate := own.reads[id]; duplicate {
			continue
		}
		if other := s.inFlight[id]; other != nil && other.live == live && r.isCurrent(id, other.token) {
			joined[id] = other
			continue
		}
		mine := &keyRead[V]{token: own.token, live: live, done: make(chan struct{})}
		s.inFlight[id], own.reads[id] = mine, mine
		own.ids = append(own.ids, id)
	}
	return own, joined
}

// readBatch reads the batch and passes its results to the callers that have joined.
func (s *singleflight[K, V]) readBatch(ctx context.Context, own batch[K, V], found map[K]V, r batchReader[K, V]) error {
	if len(own.ids) == 0 {
		return nil
	}
	err := errPanicked
	var values map[K]V
	defer func() { // also if the reader panics
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, mine := range own.reads {
			mine.value, mine.found = values[id]
			mine.err = err
			if s.inFlight[id] == mine {
				delete(s.inFlight, id)
			}
			close(mine.done)
		}
	}()
	values, err = r.readBatch(ctx, own.ids, own.live, own.token)
	maps.Copy(found, values)
	return err
}

var errPanicked = errors.New("the goroutine that read for this caller panicked")
