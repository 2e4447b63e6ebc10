package cache

import (
	"context"
	"errors"
	"maps"
	"sync"
)

// trip is how keys are read that nobody else is reading.
type trip[K comparable, V any] interface {
	// take returns a token for reads that begin after it.
	take() token
	// isCurrent reports whether nothing of the key was voided since the token.
	isCurrent(id K, taken token) bool
	// fetch reads the keys, with Redis if live, and returns those that exist.
	fetch(ctx context.Context, ids []K, live bool, taken token) (map[K]V, error)
}

// flights makes equal reads that run at the same time one. A read is joined only
// if it began after the last change of the key that is known here.
type flights[K comparable, V any] struct {
	mu    sync.Mutex
	under map[K]*flight[V]
}

// flight is a read of one key; all but done is written before done is closed.
type flight[V any] struct {
	taken token
	live  bool // it may be answered by Redis
	done  chan struct{}
	value V
	found bool
	err   error
}

func newFlights[K comparable, V any]() flights[K, V] {
	return flights[K, V]{under: make(map[K]*flight[V])}
}

// fetch puts what exists of the keys into found. It waits for reads of others
// that it may join, and reads the rest itself in one go.
func (f *flights[K, V]) fetch(ctx context.Context, ids []K, live bool, found map[K]V, t trip[K, V]) error {
	for len(ids) > 0 {
		own, joined := f.join(ids, live, t)
		if err := f.lead(ctx, own, found, t); err != nil {
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
			case isEnded(other.err): // whoever read it gave up; we have not
				again = append(again, id)
			case other.err != nil:
				return other.err
			}
		}
		ids = again
	}
	return nil
}

func isEnded(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// flown are reads that begin together.
type flown[K comparable, V any] struct {
	ids   []K
	each  map[K]*flight[V]
	live  bool
	taken token
}

// join returns the reads to begin, and those of others to wait for.
func (f *flights[K, V]) join(ids []K, live bool, t trip[K, V]) (own flown[K, V], joined map[K]*flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own = flown[K, V]{each: make(map[K]*flight[V], len(ids)), live: live, taken: t.take()}
	joined = make(map[K]*flight[V])
	for _, id := range ids {
		if _, twice := own.each[id]; twice {
			continue
		}
		if other := f.under[id]; other != nil && other.live == live && t.isCurrent(id, other.taken) {
			joined[id] = other
			continue
		}
		mine := &flight[V]{taken: own.taken, live: live, done: make(chan struct{})}
		f.under[id], own.each[id] = mine, mine
		own.ids = append(own.ids, id)
	}
	return own, joined
}

// lead reads the keys and tells whoever has joined.
func (f *flights[K, V]) lead(ctx context.Context, own flown[K, V], found map[K]V, t trip[K, V]) error {
	if len(own.ids) == 0 {
		return nil
	}
	err := errPanicked
	var read map[K]V
	defer func() { // also if fetch panics
		f.mu.Lock()
		defer f.mu.Unlock()
		for id, mine := range own.each {
			mine.value, mine.found = read[id]
			mine.err = err
			if f.under[id] == mine {
				delete(f.under, id)
			}
			close(mine.done)
		}
	}()
	read, err = t.fetch(ctx, own.ids, own.live, own.taken)
	maps.Copy(found, read)
	return err
}

var errPanicked = errors.New("reading for others ended in a panic")
