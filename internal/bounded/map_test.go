package bounded_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/bounded"
)

var at = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestMap_keeps_below_its_size_and_returns_what_was_put compares a full map with a model: an
// entry may be missing, but a value is always the last that was put, and a new entry is there.
func TestMap_keeps_below_its_size_and_returns_what_was_put(t *testing.T) {
	t.Parallel()
	const size = 32
	m, model := bounded.NewMap[int, int](size), map[int]int{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for step := range 20_000 {
		key := rnd.IntN(4 * size)
		if rnd.IntN(8) == 0 {
			m.Delete(key)
			delete(model, key)
		} else {
			m.Put(key, step, at.Add(time.Duration(step)), at)
			model[key] = step
			if v, until := m.Get(key); v != step || !until.Equal(at.Add(time.Duration(step))) {
				t.Fatalf("Get(%d) = %d until %v right after Put(%d)", key, v, until, step)
			}
		}
		other := rnd.IntN(4 * size)
		if v, until := m.Get(other); !until.IsZero() && v != model[other] {
			t.Fatalf("step %d: Get(%d) = %d, want %d or none", step, other, v, model[other])
		}
		if n := m.Len(); n > size {
			t.Fatalf("step %d: %d entries, want at most %d", step, n, size)
		}
	}
	m.Clear()
	if m.Len() != 0 {
		t.Errorf("%d entries after Clear", m.Len())
	}
}

func TestMap_evicts_expired_entries_first(t *testing.T) {
	t.Parallel()
	m := bounded.NewMap[int, string](8)
	for i := range 8 {
		m.Put(i, "valid", at.Add(time.Minute), at)
	}
	m.Put(3, "expires", at.Add(time.Second), at) // a known key evicts no other
	m.Put(5, "expires", at.Add(time.Second), at)
	m.Put(8, "new", at.Add(time.Minute), at.Add(time.Second))
	for i := range 9 {
		if v, _ := m.Get(i); (v == "") != (i == 3 || i == 5) {
			t.Errorf("Get(%d) = %q, want only the expired entries evicted", i, v)
		}
	}
}
