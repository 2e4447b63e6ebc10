// Package policy does client-side load balancing among the instances of a service: weighted round
// robin, weighted random, least connections, power of two choices and consistent hashing. It
// imports only the standard library, so that clients choose as the server does.
//
// The policies do no I/O: they take instances, reported outcomes and a clock. A Balancer serves
// one service. A choice takes constant time, and with LeastConnections time logarithmic in the
// number of instances; a change of the set takes linear time.
//
// Weights count in every strategy. Outlier ejection takes an instance out for a while after
// failures in a row, or when its success rate or latency is far from the median. Slow start gives
// new and returning instances a growing part of their weight. Below the panic threshold, when too
// few instances would be left, ejections are ignored.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Strategy says how calls are spread. The values are those of the registry.
type Strategy string

// The strategies.
const (
	RoundRobin       Strategy = "ROUND_ROBIN" // also what an unknown strategy means
	Random           Strategy = "RANDOM"
	LeastConnections Strategy = "LEAST_CONNECTIONS"
	PowerOfTwo       Strategy = "POWER_OF_TWO"
	ConsistentHash   Strategy = "CONSISTENT_HASH"
)

// ErrNone says that there is no instance to choose from.
var ErrNone = errors.New("no instance can be called")

// Instance is what may be chosen. It is not changed once a Balancer has it.
type Instance struct {
	ID          string    // unique within its set
	Name        string    // by which keys are given: the same when the instance comes again under another ID
	Weight      int       // its share of the calls; 1 at least
	Incarnation int64     // which start of it this is: a new one starts without the failures of the one before
	Since       time.Time // since when it may be called
	Value       any       // the caller's own; not used here
}

// Config tunes the policies. The zero value is ready to use.
type Config struct {
	Failures     int           // in a row that eject an instance; default 5
	Interval     time.Duration // between two comparisons of instances; default 10 s
	MinOutcomes  int           // of an instance within an interval, or it is not compared; default 20
	SuccessRatio float64       // an instance whose success rate is below this part of the median is ejected; default 0.8
	SlowRatio    float64       // an instance with more than this many times the median latency is ejected; default 10
	Eject        time.Duration // for how long, times the number of its recent ejections; default 10 s
	MaxEject     time.Duration // at most; default 5 min
	MaxEjected   float64       // part of the instances that may be ejected at once; default 0.5
	Panic        float64       // if a smaller part than this is left, ejections are ignored; default 0.3
	SlowStart    time.Duration // until a new or returned instance has its whole weight; default 10 s
}

func (c Config) withDefaults() Config {
	c.Failures = cmp.Or(c.Failures, 5)
	c.Interval = cmp.Or(c.Interval, 10*time.Second)
	c.MinOutcomes = cmp.Or(c.MinOutcomes, 20)
	c.SuccessRatio = cmp.Or(c.SuccessRatio, 0.8)
	c.SlowRatio = cmp.Or(c.SlowRatio, 10)
	c.Eject = cmp.Or(c.Eject, 10*time.Second)
	c.MaxEject = cmp.Or(c.MaxEject, 5*time.Minute)
	c.MaxEjected = cmp.Or(c.MaxEjected, 0.5)
	c.Panic = cmp.Or(c.Panic, 0.3)
	c.SlowStart = cmp.Or(c.SlowStart, 10*time.Second)
	return c
}

// Check returns an error for a value out of range.
func (c Config) Check() error {
	switch {
	case c.Failures < 0 || c.MinOutcomes < 0 || c.Interval < 0 || c.Eject < 0 || c.MaxEject < 0 || c.SlowStart < 0:
		return fmt.Errorf("policy config: negative value in %+v", c)
	case c.SuccessRatio < 0 || c.SuccessRatio > 1 || c.MaxEjected < 0 || c.MaxEjected > 1 || c.Panic < 0 || c.Panic > 1:
		return fmt.Errorf("policy config: a part must be from 0 to 1 in %+v", c)
	case c.SlowRatio != 0 && c.SlowRatio < 1:
		return fmt.Errorf("policy config: SlowRatio must be at least 1, it is %v", c.SlowRatio)
	}
	return nil
}

// Balancer chooses among the instances of one service. It is safe for
// concurrent use.
type Balancer struct {
	cfg   Config
	now   func() time.Time
	began time.Time

	current   atomic.Pointer[candidates]
	turn      atomic.Uint64 // of ROUND_ROBIN
	rebuildAt atomic.Int64  // when a slow start or an ejection changes members, as nanos
	compareAt atomic.Int64  // when outcomes are compared next, as nanos
	least     leastLoaded

	mu       sync.Mutex // held to change members
	members  []*member
	byID     map[string]*member
	departed map[string]*member // that left with calls in flight, in case they return
	ring     *ringOnce
	ejected  int

	ejections atomic.Uint64

	remoteInflight map[string]int // calls of other nodes, for members that come
}

// never is a time that does not come.
const never = math.MaxInt64

// New returns a Balancer without instances, with now as its clock.
func New(now func() time.Time, cfg Config) (*Balancer, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	b := &Balancer{cfg: cfg.withDefaults(), now: now, began: now(), byID: map[string]*member{}}
	b.turn.Store(rand.Uint64()) //nolint:gosec // so that nodes do not all begin with the same instance
	b.rebuildAt.Store(never)
	b.current.Store(&candidates{ring: &ringOnce{}})
	return b, nil
}

// nanos returns a time in nanoseconds since the Balancer began: unlike Unix time it does not step with
// the wall clock.
func (b *Balancer) nanos(at time.Time) int64 { return int64(at.Sub(b.began)) }

// candidates is the set that picks choose from. It is immutable but for the state of its members.
type candidates struct {
	members []*member // that are in use; all of them, if too few would be left
	wheel   wheel     // over members, by their weights at the moment
	panic   bool      // ejections are ignored
	ring    *ringOnce // over all members, ejected or not
}

// Pick is an instance that was chosen for one call. One of Done, Release and Lost
// must be called, once, when the call has ended.
type Pick struct {
	b *Balancer
	m *member
}

// Instance returns the instance that was chosen.
func (p Pick) Instance() *Instance { return p.m.instance.Load() }

// Done reports how the call ended and how long it took.
func (p Pick) Done(ok bool, took time.Duration) {
	p.Release()
	p.b.recordOutcome(p.m, ok, took)
}

// Release says that the call has ended, with an unknown outcome.
func (p Pick) Release() {
	p.m.localInflight.Add(-1)
	p.b.least.update(p.m)
}

// Lost says that no outcome was reported in time, so the call counts as ended. It is a
// failure when instances are compared, but not one in a row: a caller that never reports makes
// all of them look alike.
func (p Pick) Lost() {
	p.Release()
	p.m.failures.Add(1)
	p.b.compareIfDue()
}

// Pick chooses an instance; ErrNone if there is none. ConsistentHash gives
// equal keys the same instance as long as it is in use.
func (b *Balancer) Pick(strategy Strategy, key string) (Pick, error) {
	if at := b.rebuildAt.Load(); at != never {
		b.rebuildIfDue(at)
	}
	c := b.current.Load()
	if len(c.members) == 0 {
		return Pick{}, ErrNone
	}
	var m *member
	switch strategy {
	case Random:
		m = c.retry(func() *member { return c.random() })
	case LeastConnections:
		if m = b.pickLeastLoaded(); m != nil {
			return Pick{b, m}, nil // counted already
		}
		m = c.random() // another goroutine is building the tournament
	case PowerOfTwo:
		m = c.retry(func() *member { return lessLoaded(c.random(), c.random()) })
	case ConsistentHash:
		m = b.pickByKey(c, key)
	case RoundRobin:
		fallthrough
	default:
		m = c.retry(func() *member { return c.members[c.wheel.turn(b.turn.Add(1))] })
	}
	m.localInflight.Add(1)
	b.least.update(m)
	return Pick{b, m}, nil
}

// maxTries is how often a pick meets an instance that was ejected a moment ago
// before it looks for any other.
const maxTries = 16

func (c *candidates) retry(choose func() *member) *member {
	var m *member
	for range maxTries {
		if m = choose(); c.panic || !m.ejected.Load() {
			return m
		}
	}
	for _, other := range c.members {
		if !other.ejected.Load() {
			return other
		}
	}
	return m
}

func (c *candidates) random() *member {
	return c.members[c.wheel.memberAt(rand.Uint64N(c.wheel.total))] //nolint:gosec // nothing to guess
}

// lessLoaded returns the one of two members that has fewer calls for its weight.
func lessLoaded(a, b *member) *member {
	if b.calls()*a.weight.Load() < a.calls()*b.weight.Load() {
		return b
	}
	return a
}

// PickOther chooses by chance, by the weights, among the instances that are not
// refused: for a call that must go elsewhere. Those that are ejected come last. ErrNone
// if all are refused. It costs a walk over the instances.
func (b *Balancer) PickOther(refused func(*Instance) bool) (Pick, error) {
	c := b.current.Load()
	m := pickRandom(c.members, func(m *member) bool { return m.ejected.Load() && !c.panic || refused(m.instance.Load()) })
	if m == nil {
		m = pickRandom(c.ring.members, func(m *member) bool { return refused(m.instance.Load()) })
	}
	if m == nil {
		return Pick{}, ErrNone
	}
	m.localInflight.Add(1)
	b.least.update(m)
	return Pick{b, m}, nil
}

// pickRandom returns one of the members that are not refused, nil if all are.
func pickRandom(members []*member, refused func(*member) bool) (m *member) {
	var total int64
	for _, o := range members {
		if refused(o) {
			continue
		}
		total += o.weight.Load()
		if m == nil || rand.Int64N(total) < o.weight.Load() { //nolint:gosec // nothing to guess
			m = o
		}
	}
	return m
}

// Ejections returns how often an instance was ejected so far.
func (b *Balancer) Ejections() uint64 { return b.ejections.Load() }
