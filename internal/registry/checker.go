package registry

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Prober probes an instance for a health check; package gateway implements it.
type Prober interface {
	// Probe requests the URL and returns nil if the status is below 400. The error's text is
	// short and may be shown to callers that may see the instance.
	Probe(ctx context.Context, url string, timeout time.Duration) error
}

// maxProbes bounds the probes at the same time.
const maxProbes = 64

// checkResult is the result of the health checks of one incarnation of an instance.
type checkResult struct {
	incarnation int64
	failure     string // empty if they pass
}

// checker probes instances of services that have a health check, each at a
// random moment within the interval. Only the node that runs the reconcile loop does.
type checker struct {
	directory *Directory
	prober    Prober
	now       func() time.Time

	mu     sync.Mutex
	life   context.Context // of the probes in flight; nil while the checker is stopped
	end    context.CancelFunc
	states map[uid.Instance]*checkState
	slots  *semaphore.Weighted // a permit for each running probe
}

type checkState struct {
	incarnation int64
	due         time.Time
	running     bool
	streak      int  // equal results in a row
	passing     bool // whether these were successes
	failure     string
}

func newChecker(d *Directory, p Prober, now func() time.Time) *checker {
	return &checker{directory: d, prober: p, now: now, states: map[uid.Instance]*checkState{}, slots: semaphore.NewWeighted(maxProbes)}
}

// collectFailures starts the probes that are due, and returns the results of earlier
// ones that the directory does not have yet.
func (c *checker) collectFailures(ctx context.Context) map[uid.Service]map[uid.Instance]checkResult {
	if c.prober == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life == nil {
		c.life, c.end = context.WithCancel(context.WithoutCancel(ctx))
	}
	results := map[uid.Service]map[uid.Instance]checkResult{}
	seen := make(map[uid.Instance]bool, len(c.states))
	now := c.now()
	for _, s := range c.directory.Services() {
		for _, i := range c.directory.Instances(s.ID) {
			if s.HealthCheck == nil && i.CheckFailure == "" {
				continue
			}
			seen[i.ID] = true
			if failure, ok := c.checkInstance(s, i, now); ok && failure != i.CheckFailure {
				if results[s.ID] == nil {
					results[s.ID] = map[uid.Instance]checkResult{}
				}
				results[s.ID][i.ID] = checkResult{i.Incarnation, failure}
			}
		}
	}
	for id := range c.states {
		if !seen[id] {
			delete(c.states, id)
		}
	}
	return results
}

// checkInstance starts a probe if one is due, and returns the result of the checks;
// ok is false while neither threshold is reached.
func (c *checker) checkInstance(s *Service, i *Instance, now time.Time) (failure string, ok bool) {
	if s.HealthCheck == nil {
		return "", true // the check was removed
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
	if !c.slots.TryAcquire(1) {
		return
	}
	jitter := time.Duration(0.9*float64(h.Interval)) + rand.N(h.Interval/5) //nolint:gosec // to spread them
	st.running, st.due = true, now.Add(jitter)
	life := c.life
	go func() {
		defer c.slots.Release(1)
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

// stop cancels the probes and drops their results: the next node to run the loop begins anew.
func (c *checker) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life != nil {
		c.end()
		c.life = nil
		clear(c.states)
	}
}
