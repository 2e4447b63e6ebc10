package policy

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestPick_is_fair_by_weight(t *testing.T) {
	t.Parallel()
	const picks = 60_000
	for strategy, bound := range map[Strategy]float64{
		RoundRobin: 0.01, Random: 0.03, LeastConnections: 0.01, PowerOfTwo: 0.03, ConsistentHash: 0.15,
	} {
		p, c := newPool(t, Config{})
		all := setOf(c.now(), 1, 2, 3)
		for i, got := range spread(t, p, all, strategy, picks) {
			want := float64(picks*(i+1)) / 6
			if off := math.Abs(float64(got)-want) / want; off > bound {
				t.Errorf("%s gave weight %d %d of %d picks, %.1f %% off; at most %.0f %%", strategy, i+1, got, picks, 100*off, 100*bound)
			}
		}
	}
}

func TestRoundRobin_gives_each_its_weight_in_every_round(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		p, c := newPool(t, Config{})
		weights, total := make([]int, 1+rnd.IntN(40)), 0
		for i := range weights {
			weights[i] = 1 + rnd.IntN(1+rnd.IntN(50))
			total += weights[i]
		}
		weights[0]++ // at least once two weights without a common divisor
		all := setOf(c.now(), slices.Concat(weights, []int{1})...)
		total += 2
		for range 3 {
			got := spread(t, p, all, RoundRobin, total)
			for i, n := range got {
				if n != all.Instances[i].Weight {
					t.Fatalf("a round of %d picks over the weights %v gave %v", total, weights, got)
				}
			}
		}
	}
}

func TestRoundRobin_does_not_give_a_heavy_instance_its_turns_in_a_row(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now(), 50, 25, 25)
	row, longest, last := 0, 0, -1
	for range 1000 {
		i, got := pick(t, p, all, RoundRobin, "")
		got.Release()
		if row++; i != last {
			row = 1
		}
		last, longest = i, max(longest, row)
	}
	if longest > 3 {
		t.Errorf("an instance with half of the weight got %d turns in a row", longest)
	}
}

// TestLeastConnections_keeps_the_spread_within_one lets calls of random length
// begin and end: whenever only picks have happened since all were even, and
// always at the pick, no instance has more than one call per weight above the least.
func TestLeastConnections_keeps_the_spread_within_one(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, weights := range [][]int{{1, 2, 3}, {1, 1}, {5, 1, 1, 9}, equal(100)} {
		p, c := newPool(t, Config{})
		all := setOf(c.now(), weights...)
		under := make([][]Pick, len(weights))
		load := func(i int) float64 { return float64(len(under[i])) / float64(weights[i]) }
		least := func() float64 {
			m := math.Inf(1)
			for i := range weights {
				m = min(m, load(i))
			}
			return m
		}
		for step := range 5000 {
			if i := rnd.IntN(len(weights)); step > 1000 && rnd.IntN(2) == 0 && len(under[i]) > 0 {
				under[i][0].Done(true, time.Millisecond)
				under[i] = under[i][1:]
				continue
			}
			before := least()
			i, got := pick(t, p, all, LeastConnections, "")
			if load(i) > before {
				t.Fatalf("step %d of %v picked one with %.2f calls per weight where another has %.2f", step, weights, load(i), before)
			}
			under[i] = append(under[i], got)
			if step <= 1000 && load(i)-least() > 1 {
				t.Fatalf("step %d of %v: a spread of %.2f per weight", step, weights, load(i)-least())
			}
		}
	}
}

func TestLeastConnections_counts_the_calls_of_other_nodes(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now(), 1, 1)
	_, first := pick(t, p, all, LeastConnections, "")
	first.Release()
	p.SetRemoteInflight(map[string]int{all.Instances[0].ID: 10})
	for range 10 {
		if i, _ := pick(t, p, all, LeastConnections, ""); i != 1 {
			t.Fatal("picked the instance that is busy with calls of another node")
		}
	}
	p.SetRemoteInflight(nil)
	for range 10 {
		if i, _ := pick(t, p, all, LeastConnections, ""); i != 0 {
			t.Fatal("still avoids the instance after its calls have ended")
		}
	}
	if got := p.Inflight()[all.Instances[1].ID]; got != 10 {
		t.Errorf("Inflight = %d, want the 10 calls that were picked here", got)
	}
}

func TestPowerOfTwo_evens_out_what_is_under_way(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now(), equal(10)...)
	counts := make([]int, 10)
	for range 1000 {
		i, _ := pick(t, p, all, PowerOfTwo, "")
		counts[i]++
	}
	if least, most := slices.Min(counts), slices.Max(counts); most-least > 12 { // random alone: about 60
		t.Errorf("the calls under way are from %d to %d", least, most)
	}
}

// TestConsistentHash_moves_few_keys takes each instance away in turn: only its
// own keys move, and it had no more than 1.2 times its share.
func TestConsistentHash_moves_few_keys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 5, 10, 30} {
		keys := max(4000, 300*n)
		p, c := newPool(t, Config{})
		full := setOf(c.now(), equal(n)...)
		owners := make([]int, keys)
		for k := range keys {
			owners[k], _ = pick(t, p, full, ConsistentHash, fmt.Sprint("user-", k))
		}
		for gone := range n {
			rest := &set{Instances: slices.Delete(slices.Clone(full.Instances), gone, gone+1)}
			moved := 0
			for k := range keys {
				i, _ := pick(t, p, rest, ConsistentHash, fmt.Sprint("user-", k))
				if rest.Instances[i] == full.Instances[owners[k]] {
					continue
				}
				if moved++; owners[k] != gone {
					t.Fatalf("of %d instances, key %d moved although its own stayed", n, k)
				}
			}
			// Counting a sample has an error of its own; two of its deviations are granted.
			share := float64(keys) / float64(n)
			if limit := 1.2*share + 2*math.Sqrt(share); n > 10 && float64(moved) > limit || n <= 10 && float64(moved) > 1.2*share {
				t.Errorf("of %d instances %d left: %d of %d keys moved, %.2f times its share", n, gone, moved, keys, float64(moved)/share)
			}
		}
	}
}

func TestConsistentHash_gives_a_key_to_the_same_instance_on_every_node(t *testing.T) {
	t.Parallel()
	a, c := newPool(t, Config{})
	b, _ := newPool(t, Config{})
	all := setOf(c.now(), 1, 2, 3, 4)
	turned := &set{Instances: slices.Clone(all.Instances)}
	slices.Reverse(turned.Instances)
	for k := range 1000 {
		_, x := pick(t, a, all, ConsistentHash, fmt.Sprint(k))
		_, y := pick(t, b, turned, ConsistentHash, fmt.Sprint(k))
		if x.Instance().ID != y.Instance().ID {
			t.Fatalf("key %d is with %s here and with %s there", k, x.Instance().Name, y.Instance().Name)
		}
	}
}

func TestPick_without_instances_is_an_error(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	for _, s := range strategies {
		if _, err := p.Pick(setOf(c.now()), s, "k"); !errors.Is(err, ErrNone) {
			t.Errorf("%s gave %v, want ErrNone", s, err)
		}
	}
}

// TestPick_is_safe_under_concurrency picks, ends, fails and changes the set at
// the same time; then nothing must be under way any more.
func TestPick_is_safe_under_concurrency(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{Failures: 3})
	sets := []*set{setOf(c.now(), 1, 2, 3, 4, 5), setOf(c.now(), 1, 2, 3), setOf(c.now(), equal(20)...)}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for k := range 3000 {
				strategy := strategies[rnd.IntN(5)]
				got, err := p.Pick(sets[k/1000], strategy, fmt.Sprint(k))
				if err != nil {
					t.Error(err)
					return
				}
				got.Done(rnd.IntN(3) > 0, time.Millisecond)
				c.advance(time.Millisecond)
			}
		})
	}
	wg.Wait()
	if left := p.Inflight(); len(left) > 0 {
		t.Errorf("after the last call %v are under way", left)
	}
}

func TestSetRemoteInflight_counts_for_instances_that_come_later(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now(), 1, 1)
	p.SetRemoteInflight(map[string]int{all.Instances[0].ID: 5})
	for range 5 {
		if i, _ := pick(t, p, all, LeastConnections, ""); i != 1 {
			t.Fatal("picked the instance that was busy before this node knew of it")
		}
	}
}

func TestPickOther_goes_elsewhere_and_to_ejected_ones_last(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	all := setOf(c.now().Add(-time.Hour), 1, 2, 3, 1)
	fail(t, p, all, is(3), 100)
	if n := p.Ejections(); n != 1 {
		t.Errorf("%d ejections are counted, want 1", n)
	}
	other := func(not func(*Instance) bool) string {
		got, err := p.PickOther(not)
		if err != nil {
			return "none"
		}
		defer got.Release()
		return got.Instance().Name
	}
	counts := map[string]int{}
	for range 3000 {
		counts[other(func(i *Instance) bool { return i.Name == "i0" })]++
	}
	if counts["i0"]+counts["i3"] != 0 || counts["i1"] < 1050 || counts["i1"] > 1350 {
		t.Errorf("3000 picks of others than i0 went to %v, want 2:3 to i1 and i2", counts)
	}
	if got := other(func(i *Instance) bool { return i.Name != "i3" }); got != "i3" {
		t.Errorf("with all others refused: %s, want the ejected one", got)
	}
	if got := other(func(*Instance) bool { return true }); got != "none" {
		t.Errorf("with all refused: %s", got)
	}
	if calls := p.Inflight(); len(calls) != 0 {
		t.Errorf("places are still taken: %v", calls)
	}
}

func TestLeastConnections_remembers_the_calls_of_who_was_away(t *testing.T) {
	t.Parallel()
	p, c := newPool(t, Config{})
	both := setOf(c.now().Add(-time.Hour), 1, 1)
	open := []int{0, 0}
	call := func(n int) {
		for range n {
			i, _ := pick(t, p, both, LeastConnections, "")
			open[i]++
		}
	}
	call(200) // which go on
	p.of(&set{Instances: both.Instances[1:]})
	if got := p.Inflight(); got[both.Instances[0].ID] != open[0] {
		t.Errorf("of an instance that left %d calls are in flight, want %d", got[both.Instances[0].ID], open[0])
	}
	call(100)
	if d := open[0] - open[1]; d < -1 || d > 1 {
		t.Errorf("after one was away %v calls are under way, want as many at each", open)
	}
}
