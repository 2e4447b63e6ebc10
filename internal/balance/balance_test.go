package balance

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// setOf returns a service with so many instances.
func setOf(service uid.Service, n int) *registry.Set {
	s := &registry.Set{Service: &registry.Service{ID: service}}
	for k := range n {
		s.Instances = append(s.Instances, &registry.Instance{
			ID: uid.Instance(fmt.Sprint(service, k)), InstanceID: fmt.Sprint("i", k), Weight: 1 + k, Incarnation: 1, Status: registry.Passing, StatusSince: time.Now(),
		})
	}
	return s
}

func newPool(t *testing.T) *Pool {
	t.Helper()
	p, err := NewPool(time.Now, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPool_follows_the_set_that_it_is_given(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	for _, set := range []*registry.Set{setOf("a", 3), setOf("b", 2), setOf("a", 2)} {
		counts := map[*registry.Instance]int{}
		for range 60 {
			pick, err := p.Pick(set, registry.RoundRobin, "")
			if err != nil {
				t.Fatal(err)
			}
			counts[pick.Instance()]++
			pick.Done(true, time.Millisecond)
		}
		for n, i := range set.Instances {
			if want := 60 * (n + 1) / (len(set.Instances) * (len(set.Instances) + 1) / 2); counts[i] != want {
				t.Errorf("of %d instances of %s, number %d got %d of 60 picks, want %d", len(set.Instances), set.Service.ID, n, counts[i], want)
			}
		}
	}
}

func TestPool_has_a_code_for_nothing_to_pick(t *testing.T) {
	t.Parallel()
	if _, err := newPool(t).Choose(setOf("a", 0), registry.Random, ""); !fault.Is(err, registry.CodeNoInstance) {
		t.Errorf("a pick from an empty set gave %v, want NO_INSTANCE", err)
	}
}

func TestPool_PickOther_takes_none_that_is_refused(t *testing.T) {
	t.Parallel()
	p, set := newPool(t), setOf("a", 2)
	pick, err := p.PickOther(set, func(i *registry.Instance) bool { return i == set.Instances[0] })
	if err != nil || pick.Instance() != set.Instances[1] {
		t.Errorf("with the first refused it is %v, %v", pick, err)
	}
	if _, err := p.PickOther(set, func(*registry.Instance) bool { return true }); !fault.Is(err, registry.CodeNoInstance) {
		t.Errorf("with all refused it is %v, want NO_INSTANCE", err)
	}
}

func TestPool_counts_calls_here_and_elsewhere_also_of_services_that_come_later(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	set := setOf("a", 1)
	set.Instances = append(set.Instances, &registry.Instance{ID: "busy", InstanceID: "busy", Weight: 1, Incarnation: 1})
	p.SetRemoteInflight(map[uid.Instance]int{"busy": 9})
	for range 5 {
		if pick, err := p.Pick(set, registry.LeastConnections, ""); err != nil || pick.Instance().ID == "busy" {
			t.Fatalf("picked %v, %v: it is busy with calls of other nodes", pick.Instance(), err)
		}
	}
	if got := p.Inflight(); len(got) != 1 || got[set.Instances[0].ID] != 5 {
		t.Errorf("under way are %v, want the 5 calls", got)
	}
}

func TestPool_is_safe_under_concurrency(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	sets := []*registry.Set{setOf("a", 5), setOf("a", 3), setOf("b", 4)}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for k := range 1000 {
				pick, err := p.Pick(sets[k%3], registry.Strategies()[k%5], fmt.Sprint(k))
				if err != nil {
					t.Error(err)
					return
				}
				pick.Done(k%7 > 0, time.Millisecond)
			}
		})
	}
	wg.Wait()
	if left := p.Inflight(); len(left) > 0 {
		t.Errorf("after the last call %v are under way", left)
	}
}

func TestNewPool_refuses_what_makes_no_sense(t *testing.T) {
	t.Parallel()
	if _, err := NewPool(time.Now, Config{Failures: -1}); err == nil {
		t.Error("NewPool takes negative failures")
	}
}
