package registry

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Prober asks an instance whether it is well; package gateway implements it.
type Prober interface {
	// Probe requests the URL and returns nil if the answer is well. The error's text is
	// short and may be shown to who may see the instance.
	Probe(ctx context.Context, url string, timeout time.Duration) error
}

// maxProbes bounds the probes at the same time.
const maxProbes = 64

// checkResult is what the checks of one start of an instance have come to.
type checkResult struct {
	incarnation int64
	failure     string // empty if they pass
}

// checker probes instances of services that have a health check, each at a
// moment of its own within the interval. Only the node whose Keeper leads does.
type checker struct {
	directory *Directory
	prober    Prober
	now       func() time.Time

	mu     sync.Mutex
	life   context.Context // of the probes under way; nil while it does nothing
	end    context.CancelFunc
	states map[uid.Instance]*checkState
	slots  chan struct{}
}

type checkState struct {
	incarnation int64
	due         time.Time
	running     bool
	streak      int  // results alike
	passing     bool // what they were
	failure     string
}

func newChecker(d *Directory, p Prober, now func() time.Time) *checker {
	return &checker{directory: d, prober: p, now: now, states: map[uid.Instance]*checkState{}, slots: make(chan struct{}, maxProbes)}
}

// collectFailures starts the probes that are due, and returns what earlier ones say and
// the directory does not know yet.
func (c *checker) collectFailures(ctx context.Context) map[uid.Service]map[uid.Instance]checkResult {
	if c.prober == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life == nil {
		c.life, c.end = context.WithCancel(context.WithoutCancel(ctx))
	}
	news := map[uid.Service]map[uid.Instance]checkResult{}
	seen := make(map[uid.Instance]bool, len(c.states))
	now := c.now()
	for _, s := range c.directory.Services() {
		for _, i := range c.directory.Instances(s.ID) {
			if s.HealthCheck == nil && i.CheckFailure == "" {
				continue
			}
			seen[i.ID] = true
			if failure, ok := c.checkInstance(s, i, now); ok && failure != i.CheckFailure {
				if news[s.ID] == nil {
					news[s.ID] = map[uid.Instance]checkResult{}
				}
				news[s.ID][i.ID] = checkResult{i.Incarnation, failure}
			}
		}
	}
	for id := range c.states {
		if !seen[id] {
			delete(c.states, id)
		}
	}
	return news
}

// checkInstance starts a probe if one is due, and returns what the checks have come to;
// ok is false while they have come to nothing.
func (c *checker) checkInstance(s *Service, i *Instance, now time.Time) (failure string, ok bool) {
	if s.HealthCheck == nil {
		return "", true // it has none any more
	}
	st := c.states[i.ID]
	if st == nil || st.incarnation != i.Incarnation {
		st = &checkState{incarnation: i.Incarnation, due: now.Add(rand.N(s.HealthCheck.Interval))} //nolint:gosec // to spread them
		c.states[i.ID] = st
	}
	if !st.running && !now.Before(st.due) {
		c.startProbe(*s.HealthCheck, i, st, now)
	}
	switch {
	case st.streak > 0 && st.passing && st.streak >= s.HealthCheck.Healthy:
		return "", true
	case st.streak > 0 && !st.passing && st.streak >= s.HealthCheck.Unhealthy:
		return st.failure, true
	}
	return "", false
}

// startProbe probes in the background, if there is a slot; else the next round does.
// The caller holds the lock.
func (c *checker) startProbe(h HealthCheck, i *Instance, st *checkState, now time.Time) {
	select {
	case c.slots <- struct{}{}:
	default:
		return
	}
	jitter := time.Duration(0.9*float64(h.Interval)) + rand.N(h.Interval/5) //nolint:gosec // to spread them
	st.running, st.due = true, now.Add(jitter)
	life := c.life
	go func() {
		defer func() { <-c.slots }()
		err := c.prober.Probe(life, i.URL+h.Path, h.Timeout)
		c.mu.Lock()
		defer c.mu.Unlock()
		if st.running = false; life.Err() == nil {
			st.recordProbe(err)
		}
	}()
}

func (st *checkState) recordProbe(err error) {
	if passing := err == nil; st.streak == 0 || passing != st.passing {
		st.streak, st.passing = 0, passing
	}
	st.streak++
	if err != nil && st.streak == 1 {
		st.failure = "its check failed: " + err.Error()
	}
}

// stop ends the probes and forgets what they said: the next Keeper begins anew.
func (c *checker) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life != nil {
		c.end()
		c.life = nil
		clear(c.states)
	}
}
