package balance

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"backplane/internal/registry"
	"backplane/internal/uid"
)

// clock is a time that tests set.
type clock struct{ nano atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nano.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nano.Load()) }
func (c *clock) advance(d time.Duration) { c.nano.Add(int64(d)) }

// setOf returns a service with instances of the weights that have been there
// since the time.
func setOf(since time.Time, weights ...int) *registry.Set {
	s := &registry.Set{Service: &registry.Service{ID: "svc_test"}}
	for n, w := range weights {
		s.Instances = append(s.Instances, &registry.Instance{
			ID: uid.Instance(fmt.Sprintf("ins_%06d", n)), InstanceID: fmt.Sprint("i", n), Weight: w, Incarnation: 1, Status: registry.Passing, StatusSince: since,
		})
	}
	return s
}

func equal(n int) []int {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1
	}
	return weights
}

// newPool returns a pool with a fake clock.
func newPool(t testing.TB, cfg Config) (*Pool, *clock) {
	t.Helper()
	c := newClock()
	p, err := NewPool(c.now, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// picker returns a function that picks from a set, by the index of the instance.
func pick(t testing.TB, p *Pool, set *registry.Set, strategy registry.Strategy, key string) (int, Pick) {
	t.Helper()
	got, err := p.Pick(set, strategy, key)
	if err != nil {
		t.Fatal(err)
	}
	for n, i := range set.Instances {
		if i.ID == got.Instance().ID {
			return n, got
		}
	}
	t.Fatalf("picked %s, which is not of the set", got.Instance().ID)
	return 0, got
}

// spread picks n times, each call ending at once, and counts by instance.
func spread(t testing.TB, p *Pool, set *registry.Set, strategy registry.Strategy, n int) []int {
	t.Helper()
	counts := make([]int, len(set.Instances))
	for k := range n {
		i, got := pick(t, p, set, strategy, fmt.Sprint(k))
		got.Done(true, time.Millisecond)
		counts[i]++
	}
	return counts
}
