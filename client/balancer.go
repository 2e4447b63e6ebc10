package client

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/client/policy"
)

// Balancer chooses instances of a watched service, as the server does when it is
// asked to pick: fair by weight, away from instances whose calls fail. Five failures in a row, or far
// fewer successes or far longer calls than others have, eject an instance (outlier ejection) for 10 s or longer,
// at most half of them at once; it comes back slowly, as do new ones. It knows the outcomes of
// its own calls alone, so use one for all calls of a process to a service.
type Balancer struct {
	watch    *Watch
	strategy Strategy
	policies *policy.Balancer

	updating sync.Mutex
	set      atomic.Pointer[Set] // that the policies know
}

// NewBalancer returns a Balancer by a strategy, that of the service if it is empty. It
// starts nothing; the caller still closes the watch.
func NewBalancer(w *Watch, strategy Strategy) (*Balancer, error) {
	policies, err := policy.New(time.Now, policy.Config{})
	if err != nil {
		return nil, err
	}
	return &Balancer{watch: w, strategy: strategy, policies: policies}, nil
}

// Pick is an instance that was chosen for one call. One of Done and Release must
// be called, once, when the call has ended.
type Pick struct {
	Instance Instance
	pick     policy.Pick
}

// Done says how the call ended and how long it took.
func (p Pick) Done(ok bool, took time.Duration) { p.pick.Done(ok, took) }

// Release says that the call has ended, with an unknown outcome.
func (p Pick) Release() { p.pick.Release() }

// Pick chooses an instance for one call; ErrNoInstance if there is none. ConsistentHash
// gives equal keys the same instance while that is in use; others ignore the key.
func (b *Balancer) Pick(key string) (Pick, error) {
	set := b.syncSet()
	pick, err := b.policies.Pick(cmp.Or(b.strategy, set.Strategy), key)
	return toPick(pick, err)
}

// PickOther chooses an instance for a retry, among those for which tried is false;
// ErrNoInstance if there is none.
func (b *Balancer) PickOther(tried func(Instance) bool) (Pick, error) {
	b.syncSet()
	pick, err := b.policies.PickOther(func(i *policy.Instance) bool { return tried(instanceOf(i)) })
	return toPick(pick, err)
}

func toPick(pick policy.Pick, err error) (Pick, error) {
	if err != nil {
		return Pick{}, ErrNoInstance
	}
	return Pick{instanceOf(pick.Instance()), pick}, nil
}

func instanceOf(i *policy.Instance) Instance {
	v, _ := i.Value.(*Instance) // as syncSet passed it
	return *v
}

// syncSet brings the policies up to the watched set, and returns that.
func (b *Balancer) syncSet() *Set {
	set := b.watch.Set()
	if b.set.Load() == set {
		return set
	}
	b.updating.Lock()
	defer b.updating.Unlock()
	set = b.watch.Set() // another goroutine may have applied a later one
	if b.set.Load() == set {
		return set
	}
	instances := make([]policy.Instance, len(set.Instances))
	for n := range set.Instances {
		i := &set.Instances[n]
		instances[n] = policy.Instance{ID: i.ID, Name: i.InstanceID, Weight: max(1, i.Weight), Incarnation: i.Incarnation, Since: i.Since, Value: i}
	}
	b.policies.Update(instances)
	b.set.Store(set)
	return set
}
