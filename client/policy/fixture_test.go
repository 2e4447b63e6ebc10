package policy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

var strategies = []Strategy{RoundRobin, Random, LeastConnections, PowerOfTwo, ConsistentHash}

// set is what a pool picks from.
type set struct{ Instances []*Instance }

// pool is a Balancer that is brought up to the set whenever that is another.
type pool struct {
	*Balancer
	updating sync.Mutex
	last     *set
}

// of returns the Balancer, brought up to the set.
func (p *pool) of(all *set) *Balancer {
	p.updating.Lock()
	defer p.updating.Unlock()
	if p.last != all {
		p.last = all
		instances := make([]Instance, len(all.Instances))
		for n, i := range all.Instances {
			instances[n] = *i
		}
		p.Update(instances)
	}
	return p.Balancer
}

func (p *pool) Pick(all *set, strategy Strategy, key string) (Pick, error) {
	return p.of(all).Pick(strategy, key)
}

// setOf returns instances of the weights that have been there since the time.
func setOf(since time.Time, weights ...int) *set {
	all := &set{}
	for n, w := range weights {
		all.Instances = append(all.Instances, &Instance{ID: fmt.Sprintf("ins_%06d", n), Name: fmt.Sprint("i", n), Weight: w, Incarnation: 1, Since: since})
	}
	return all
}

func equal(n int) []int {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1
	}
	return weights
}

// newPool returns a pool with a fake clock.
func newPool(t testing.TB, cfg Config) (*pool, *clock) {
	t.Helper()
	c := newClock()
	b, err := New(c.now, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &pool{Balancer: b}, c
}

// picker returns a function that picks from a set, by the index of the instance.
func pick(t testing.TB, p *pool, all *set, strategy Strategy, key string) (int, Pick) {
	t.Helper()
	got, err := p.Pick(all, strategy, key)
	if err != nil {
		t.Fatal(err)
	}
	for n, i := range all.Instances {
		if i.ID == got.Instance().ID {
			return n, got
		}
	}
	t.Fatalf("picked %s, which is not of the set", got.Instance().ID)
	return 0, got
}

// spread picks n times, each call ending at once, and counts by instance.
func spread(t testing.TB, p *pool, all *set, strategy Strategy, n int) []int {
	t.Helper()
	counts := make([]int, len(all.Instances))
	for k := range n {
		i, got := pick(t, p, all, strategy, fmt.Sprint(k))
		got.Done(true, time.Millisecond)
		counts[i]++
	}
	return counts
}
