// Package balance does the load balancing of the server: it chooses an instance of a service for
// each call. Package policy holds the strategies, outlier ejection and slow start; a Pool holds a
// policy.Balancer for each service, and adds the calls in flight of other nodes.
package balance

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/client/policy"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Config tunes the policies. The zero value is ready to use.
type Config = policy.Config

// Pool holds a Balancer for each service that was asked for. It is safe for
// concurrent use.
type Pool struct {
	cfg Config
	now func() time.Time

	mu             sync.RWMutex
	balancers      map[uid.Service]*balancer
	remoteInflight map[string]int // as SetRemoteInflight last set it
}

var _ registry.Chooser = (*Pool)(nil)

// balancer is a policy.Balancer with the set that it was last given.
type balancer struct {
	*policy.Balancer
	updating sync.Mutex
	set      atomic.Pointer[registry.Set]
}

// NewPool returns a Pool that tells the time by now.
func NewPool(now func() time.Time, cfg Config) (*Pool, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return &Pool{cfg: cfg, now: now, balancers: map[uid.Service]*balancer{}}, nil
}

// Pick is an instance that was chosen for one call.
type Pick struct{ policy.Pick }

var _ registry.Choice = Pick{}

// Instance returns the instance that was chosen.
func (p Pick) Instance() *registry.Instance { return instanceOf(p.Pick.Instance()) }

func instanceOf(i *policy.Instance) *registry.Instance {
	v, _ := i.Value.(*registry.Instance) // as update gave it
	return v
}

// Choose implements registry.Chooser.
func (p *Pool) Choose(set *registry.Set, strategy registry.Strategy, key string) (registry.Choice, error) {
	pick, err := p.Pick(set, strategy, key)
	if err != nil {
		return nil, err
	}
	return pick, nil
}

// Pick is Choose without boxing the result in an interface.
func (p *Pool) Pick(set *registry.Set, strategy registry.Strategy, key string) (Pick, error) {
	b, err := p.balancerFor(set)
	if err != nil {
		return Pick{}, err
	}
	return toPick(b.Pick(policy.Strategy(strategy), key))
}

func toPick(pick policy.Pick, err error) (Pick, error) {
	if err != nil {
		return Pick{}, fault.New(registry.CodeNoInstance, "No instance of this service can be called at the moment.")
	}
	return Pick{pick}, nil
}

// PickOther chooses by chance, by the weights, among the set's instances that are
// not refused; NO_INSTANCE if all are. It is for a call that must go elsewhere.
func (p *Pool) PickOther(set *registry.Set, refused func(*registry.Instance) bool) (Pick, error) {
	b, err := p.balancerFor(set)
	if err != nil {
		return Pick{}, err
	}
	return toPick(b.PickOther(func(i *policy.Instance) bool { return refused(instanceOf(i)) }))
}

// Ejections returns how often an instance was ejected so far.
func (p *Pool) Ejections() (n uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, b := range p.balancers {
		n += b.Ejections()
	}
	return n
}

// balancerFor returns the Balancer of the set's service, updated to the set.
func (p *Pool) balancerFor(set *registry.Set) (*balancer, error) {
	p.mu.RLock()
	b := p.balancers[set.Service.ID]
	p.mu.RUnlock()
	if b == nil {
		var err error
		if b, err = p.createBalancer(set.Service.ID); err != nil {
			return nil, err
		}
	}
	if b.set.Load() != set {
		b.updateSet(set)
	}
	return b, nil
}

func (p *Pool) createBalancer(id uid.Service) (*balancer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.balancers[id]; b != nil {
		return b, nil
	}
	chooser, err := policy.New(p.now, p.cfg)
	if err != nil {
		return nil, err
	}
	chooser.SetRemoteInflight(p.remoteInflight)
	b := &balancer{Balancer: chooser}
	p.balancers[id] = b
	return b, nil
}

func (b *balancer) updateSet(set *registry.Set) {
	b.updating.Lock()
	defer b.updating.Unlock()
	if b.set.Load() == set {
		return
	}
	instances := make([]policy.Instance, len(set.Instances))
	for n, i := range set.Instances {
		instances[n] = policy.Instance{ID: string(i.ID), Name: i.InstanceID, Weight: i.Weight, Incarnation: i.Incarnation, Since: i.StatusSince, Value: i}
	}
	b.Update(instances)
	b.set.Store(set)
}

// Inflight implements registry.Chooser.
func (p *Pool) Inflight() map[uid.Instance]int {
	calls := map[uid.Instance]int{}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, b := range p.balancers {
		for id, n := range b.Inflight() {
			calls[uid.Instance(id)] = n
		}
	}
	return calls
}

// SetRemoteInflight implements registry.Chooser.
func (p *Pool) SetRemoteInflight(calls map[uid.Instance]int) {
	remote := make(map[string]int, len(calls))
	for id, n := range calls {
		remote[string(id)] = n
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remoteInflight = remote
	for _, b := range p.balancers {
		b.SetRemoteInflight(remote)
	}
}
