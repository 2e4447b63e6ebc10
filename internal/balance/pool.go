package balance

import (
	"sync"
	"sync/atomic"
	"time"

	"backplane/internal/registry"
	"backplane/internal/uid"
)

// Pool holds a Balancer for each service that was asked for. It is safe for
// concurrent use.
type Pool struct {
	cfg Config
	now func() time.Time

	ejections atomic.Uint64

	mu        sync.RWMutex
	balancers map[uid.Service]*Balancer
	elsewhere map[uid.Instance]int // as SetElsewhere last said
}

var _ registry.Chooser = (*Pool)(nil)

// NewPool returns a Pool that tells the time by now.
func NewPool(now func() time.Time, cfg Config) (*Pool, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Pool{cfg: cfg.withDefaults(), now: now, balancers: map[uid.Service]*Balancer{}}, nil
}

// Choose implements registry.Chooser.
func (p *Pool) Choose(set *registry.Set, strategy registry.Strategy, key string) (registry.Choice, error) {
	pick, err := p.Pick(set, strategy, key)
	if err != nil {
		return nil, err
	}
	return pick, nil
}

// Pick is Choose without a box around the result.
func (p *Pool) Pick(set *registry.Set, strategy registry.Strategy, key string) (Pick, error) {
	return p.of(set).Pick(strategy, key)
}

// PickOther chooses by chance, by the weights, among the set's instances that are
// not refused; NO_INSTANCE if all are. It is for a call that must go elsewhere.
func (p *Pool) PickOther(set *registry.Set, refused func(*registry.Instance) bool) (Pick, error) {
	return p.of(set).PickOther(refused)
}

// Ejections returns how often an instance was ejected so far.
func (p *Pool) Ejections() uint64 { return p.ejections.Load() }

// of returns the Balancer of the set's service, brought up to the set.
func (p *Pool) of(set *registry.Set) *Balancer {
	p.mu.RLock()
	b := p.balancers[set.Service.ID]
	p.mu.RUnlock()
	if b == nil {
		b = p.open(set.Service.ID)
	}
	if b.set.Load() != set {
		b.Update(set)
	}
	return b
}

func (p *Pool) open(id uid.Service) *Balancer {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.balancers[id]
	if b == nil {
		b = newBalancer(p.cfg, p.now, &p.ejections)
		b.elsewhere = p.elsewhere
		p.balancers[id] = b
	}
	return b
}

// Inflight implements registry.Chooser.
func (p *Pool) Inflight() map[uid.Instance]int {
	calls := map[uid.Instance]int{}
	p.each(func(m *member) {
		if n := m.here.Load(); n > 0 {
			calls[m.instance.Load().ID] = int(n)
		}
	})
	return calls
}

// SetElsewhere implements registry.Chooser.
func (p *Pool) SetElsewhere(calls map[uid.Instance]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.elsewhere = calls
	for _, b := range p.balancers {
		b.setElsewhere(calls)
	}
}

func (b *Balancer) setElsewhere(calls map[uid.Instance]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.elsewhere = calls
	for _, m := range b.members {
		if n := int64(calls[m.instance.Load().ID]); m.elsewhere.Swap(n) != n {
			b.least.moved(m)
		}
	}
}

func (p *Pool) each(fn func(*member)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, b := range p.balancers {
		b.mu.Lock()
		members := b.members
		b.mu.Unlock()
		for _, m := range members {
			fn(m)
		}
	}
}
