package policy

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkPick measures a pick and its end, beside what textbooks do: walk over
// all instances under a lock.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1 + i%3
		}
		for _, threads := range []int{1, 2} {
			for _, s := range strategies {
				b.Run(fmt.Sprintf("%s/instances=%d/threads=%d", s, n, threads), func(b *testing.B) {
					p, err := New(time.Now, Config{})
					if err != nil {
						b.Fatal(err)
					}
					(&pool{Balancer: p}).of(setOf(time.Now().Add(-time.Hour), weights...))
					measure(b, threads, func(key string) {
						got, err := p.Pick(s, key)
						if err != nil {
							b.Error(err)
							return
						}
						got.Release()
					})
				})
			}
			for name, choose := range map[string]func(*naive) int{"NAIVE_ROUND_ROBIN": (*naive).roundRobin, "NAIVE_RANDOM": (*naive).random, "NAIVE_LEAST_CONNECTIONS": (*naive).least} {
				b.Run(fmt.Sprintf("%s/instances=%d/threads=%d", name, n, threads), func(b *testing.B) {
					x := newNaive(weights)
					measure(b, threads, func(string) { x.end(choose(x)) })
				})
			}
		}
	}
}

// measure runs picks on so many goroutines, each with keys of its own.
func measure(b *testing.B, threads int, pick func(key string)) {
	b.Helper()
	var keys [64]string
	for i := range keys {
		keys[i] = fmt.Sprint("user-", i)
	}
	pick("warm") // makes what is made once
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for k := 0; left.Add(-64) > -64; k++ {
				for i := range 64 {
					pick(keys[i])
				}
			}
		})
	}
	wg.Wait()
}

// naive is the textbook's balancer.
type naive struct {
	mu      sync.Mutex
	weights []int
	current []int
	calls   []int
	total   int
}

func newNaive(weights []int) *naive {
	x := &naive{weights: weights, current: make([]int, len(weights)), calls: make([]int, len(weights))}
	for _, w := range weights {
		x.total += w
	}
	return x
}

// roundRobin is the smooth weighted round robin of nginx.
func (x *naive) roundRobin() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	best := 0
	for i, w := range x.weights {
		if x.current[i] += w; x.current[i] > x.current[best] {
			best = i
		}
	}
	x.current[best] -= x.total
	x.calls[best]++
	return best
}

func (x *naive) random() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	slot, i := rand.IntN(x.total), 0
	for ; slot >= x.weights[i]; i++ {
		slot -= x.weights[i]
	}
	x.calls[i]++
	return i
}

func (x *naive) least() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	best := 0
	for i, w := range x.weights {
		if x.calls[i]*x.weights[best] < x.calls[best]*w {
			best = i
		}
	}
	x.calls[best]++
	return best
}

func (x *naive) end(i int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.calls[i]--
}
