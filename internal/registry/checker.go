package registry

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Prober probes an instance for a health check; package gateway implements it.
type Prober interface {
	// Probe requests the URL and returns nil if the status is below 400. The error's text is
	// short and may be shown to callers that may see the instance. It is ErrRefused if nothing
	// listens at the address. The output is the status and the start of the body, if that is text; it is
	// empty without a response.
	Probe(ctx context.Context, url string, timeout time.Duration) (output string, err error)
}

// The probes that run at the same time. A key manages at most maxServiceScopes services (20, package
// session), which together leave permits to others.
const (
	maxProbes        = 320
	maxServiceProbes = 12
	maxSlowProbes    = 6 // of one service, to instances whose last probe was slow: so that they hold up no others
)

// slowProbe is how long a probe takes that is slow: one that times out, for the most part.
const slowProbe = 500 * time.Millisecond

// ErrRefused means that the host of an instance is there, and refuses connections. Its text is that of
// any other failed connection: details could reveal the network.
var ErrRefused = errors.New("no connection or no answer")

// refusedTime is how long an instance whose lease is over must refuse connections to count as gone,
// whatever the mass-failure guard keeps: it may be starting again.
const refusedTime = 20 * time.Second

// reachCheck shows whether an instance that the mass-failure guard keeps in use refuses connections,
// if its service has no health check.
var reachCheck = HealthCheck{Path: "", Interval: refusedTime / 2, Timeout: 2 * time.Second, Healthy: 1, Unhealthy: 1}

// checkResult is the result of the health checks of one incarnation of an instance.
type checkResult struct {
	incarnation int64
	failure     string // empty if they pass
	gone        bool   // it has refused connections for refusedTime
}

// checker probes instances of services that have a health check, each at a
// random moment within the interval. Only the node that runs the reconcile loop does.
// Services share the permits for probes: the next one goes to the service with the fewest.
type checker struct {
	directory *Directory
	prober    Prober
	now       func() time.Time

	mu       sync.Mutex
	life     context.Context // of the probes in flight; nil while the checker is stopped
	end      context.CancelFunc
	states   map[uid.Instance]*checkState
	services map[uid.Service]*serviceProbes
	running  int                           // probes
	full     bool                          // a probe has waited for one of another service to end
	reports  map[InstanceStart]CheckReport // of checks that are not stored yet
}

// serviceProbes are the probes of one service.
type serviceProbes struct {
	running, slow int
	due           []dueProbe // not started, the longest overdue first
}

// dueProbe is a probe that waits for a permit.
type dueProbe struct {
	check    HealthCheck
	instance *Instance
	state    *checkState
}

type checkState struct {
	incarnation int64
	due         time.Time
	running     bool
	slow        bool // the last probe was
	streak      int  // equal results in a row
	passing     bool // whether these were successes
	failure     string
	refusedAt   time.Time   // since when it refuses connections; zero if it did not the last time
	stored      CheckReport // that was last given to be stored
}

// gone reports whether the instance has refused connections for long enough. Without a state it has
// not.
func (st *checkState) gone(now time.Time) bool {
	return st != nil && !st.refusedAt.IsZero() && now.Sub(st.refusedAt) >= refusedTime
}

func newChecker(d *Directory, p Prober, now func() time.Time) *checker {
	return &checker{directory: d, prober: p, now: now, states: map[uid.Instance]*checkState{}, services: map[uid.Service]*serviceProbes{}, reports: map[InstanceStart]CheckReport{}}
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
	c.forgetIdle()
	for _, s := range c.directory.Services() {
		if found := c.collectFailuresOf(s, now, seen); len(found) > 0 {
			results[s.ID] = found
		}
	}
	maps.DeleteFunc(c.states, func(id uid.Instance, _ *checkState) bool { return !seen[id] })
	for _, p := range c.services {
		slices.SortFunc(p.due, func(a, b dueProbe) int { return a.state.due.Compare(b.state.due) })
	}
	c.startAll()
	return results
}

// collectFailuresOf is collectFailures for the instances of a service. It adds those that it checks to
// seen.
func (c *checker) collectFailuresOf(s *Service, now time.Time, seen map[uid.Instance]bool) map[uid.Instance]checkResult {
	results := map[uid.Instance]checkResult{}
	for _, i := range c.directory.Instances(s.ID) {
		if s.HealthCheck == nil && i.CheckFailure == "" && !s.keeps(i) {
			continue
		}
		seen[i.ID] = true
		failure, ok := c.checkInstance(s, i, now)
		if !ok {
			failure = i.CheckFailure
		}
		if gone := c.states[i.ID].gone(now) && s.keeps(i); gone || failure != i.CheckFailure {
			results[i.ID] = checkResult{i.Incarnation, failure, gone}
		}
	}
	return results
}

// forgetIdle drops what was due in the last round, and the services without a probe.
func (c *checker) forgetIdle() {
	for id, p := range c.services {
		if p.due = nil; p.running == 0 {
			delete(c.services, id)
		}
	}
}

func (c *checker) probesOf(id uid.Service) *serviceProbes {
	p := c.services[id]
	if p == nil {
		p = &serviceProbes{}
		c.services[id] = p
	}
	return p
}

// checkInstance adds the probe to those that are due, if it is, and returns the result of the checks;
// ok is false while neither threshold is reached.
func (c *checker) checkInstance(s *Service, i *Instance, now time.Time) (failure string, ok bool) {
	check := s.HealthCheck
	if check == nil && s.keeps(i) {
		check = &reachCheck
	}
	if check == nil {
		return "", true // the check was removed
	}
	st := c.states[i.ID]
	if st == nil || st.incarnation != i.Incarnation {
		st = &checkState{incarnation: i.Incarnation, due: now.Add(rand.N(check.Interval))} //nolint:gosec // to spread them
		c.states[i.ID] = st
	}
	if !st.running && !dbclock.Live(st.due, 2*check.Interval, now) {
		p := c.probesOf(s.ID)
		p.due = append(p.due, dueProbe{*check, i, st})
	}
	switch {
	case s.HealthCheck == nil:
		return "", true // only whether it refuses connections counts
	case st.streak > 0 && st.passing && st.streak >= s.HealthCheck.Healthy:
		return "", true
	case st.streak > 0 && !st.passing && st.streak >= s.HealthCheck.Unhealthy:
		return st.failure, true
	}
	return "", false
}

// startAll starts the probes that are due and for which there are permits, in turn by service, those
// with the fewest first. The caller holds the lock.
func (c *checker) startAll() {
	c.full = false
	var waiting []*serviceProbes
	for _, p := range c.services {
		if len(p.due) > 0 {
			waiting = append(waiting, p)
		}
	}
	for len(waiting) > 0 {
		slices.SortStableFunc(waiting, func(a, b *serviceProbes) int { return a.running - b.running })
		waiting = slices.DeleteFunc(waiting, func(p *serviceProbes) bool { return !c.startNext(p) })
	}
}

// startNext starts the first probe of the service that may run; it reports false if there is none.
func (c *checker) startNext(p *serviceProbes) bool {
	if p.running >= maxServiceProbes {
		return false
	}
	n := slices.IndexFunc(p.due, func(d dueProbe) bool { return !d.state.slow || p.slow < maxSlowProbes })
	if n < 0 {
		return false
	}
	if c.running >= maxProbes {
		c.full = true
		return false
	}
	d := p.due[n]
	p.due = slices.Delete(p.due, n, n+1)
	c.startProbe(p, d)
	return true
}

// startProbe probes in the background. The caller holds the lock.
func (c *checker) startProbe(p *serviceProbes, d dueProbe) {
	st, slow, life := d.state, d.state.slow, c.life
	jitter := time.Duration(0.9*float64(d.check.Interval)) + rand.N(d.check.Interval/5) //nolint:gosec // to spread them
	st.running, st.due = true, c.now().Add(jitter)
	c.count(p, slow, 1)
	go func() {
		begin := time.Now()
		output, err := c.prober.Probe(life, d.instance.URL+d.check.Path, d.check.Timeout)
		took := time.Since(begin)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.count(p, slow, -1)
		if st.running = false; life.Err() != nil {
			return
		}
		st.slow = took >= slowProbe
		at := c.now()
		st.recordProbe(err, at)
		if err != nil && output == "" {
			output = err.Error()
		}
		if d.check != reachCheck {
			c.keepReport(d.instance.ID, st, newCheckReport(at, err == nil, took, output))
		}
		if c.full {
			c.startAll()
			return
		}
		c.startNext(p)
	}()
}

// count adds n running probes to those of the service.
func (c *checker) count(p *serviceProbes, slow bool, n int) {
	c.running += n
	p.running += n
	if slow {
		p.slow += n
	}
}

func (st *checkState) recordProbe(err error, at time.Time) {
	switch refused := errors.Is(err, ErrRefused); {
	case !refused:
		st.refusedAt = time.Time{}
	case st.refusedAt.IsZero():
		st.refusedAt = at
	}
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
		clear(c.reports)
		c.forgetIdle()
	}
}
