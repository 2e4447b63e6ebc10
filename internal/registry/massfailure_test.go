package registry

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// deployment is a service whose instances come and go, evaluated once a second.
type deployment struct {
	service *Service
	all     []*Instance
	alive   map[uid.Instance]bool
	now     time.Duration // since at
}

func newDeployment(t *testing.T, instances int) *deployment {
	t.Helper()
	d := &deployment{service: givenService(t), alive: map[uid.Instance]bool{}}
	d.start(t, instances)
	return d
}

// start adds instances under new names.
func (d *deployment) start(t *testing.T, n int) {
	t.Helper()
	for range n {
		i := givenInstance(t, len(d.all))
		i.CreatedAt, i.StatusSince = atPlus(d.now), atPlus(d.now)
		d.all, d.alive[i.ID] = append(d.all, i), true
	}
}

// kill ends instances without a word, the oldest first.
func (d *deployment) kill(n int) {
	for _, i := range d.all {
		if n > 0 && d.alive[i.ID] {
			d.alive[i.ID] = false
			n--
		}
	}
}

// run evaluates the service for a while, with a failure for each instance that is gone for sure.
func (d *deployment) run(span time.Duration, gone bool) {
	for end := d.now + span; d.now < end; {
		d.now += time.Second
		leases, failures := map[uid.Instance]LeaseState{}, map[uid.Instance]checkResult{}
		for _, i := range d.all {
			leases[i.ID] = LeaseState{Overdue: !d.alive[i.ID], Current: d.alive[i.ID]}
			if gone && !d.alive[i.ID] {
				failures[i.ID] = checkResult{i.Incarnation, "", true}
			}
		}
		evaluateInstances(d.service, d.all, leases, failures, MassFailureGuard{time.Minute, time.Hour}, atPlus(d.now))
		var left []*Instance
		for _, i := range d.all {
			if !i.Removed {
				left = append(left, i)
			}
		}
		d.all = left
	}
}

func (d *deployment) dead() (n int) {
	for _, i := range d.all {
		if d.service.InUse(i) && !d.alive[i.ID] {
			n++
		}
	}
	return n
}

func TestMassFailureGuard_ends_when_as_many_pass_as_before(t *testing.T) {
	t.Parallel()
	for name, redeploy := range map[string]func(*testing.T, *deployment){
		"rolling": func(t *testing.T, d *deployment) {
			for range 4 {
				d.start(t, 1)
				d.kill(1)
				d.run(10*time.Second, false)
			}
		},
		"rolling, the new ones late": func(t *testing.T, d *deployment) {
			for range 4 {
				d.kill(1)
				d.run(10*time.Second, false)
				d.start(t, 1)
				d.run(10*time.Second, false)
			}
		},
		"recreate": func(t *testing.T, d *deployment) {
			d.kill(4)
			d.run(30*time.Second, false)
			d.start(t, 4)
		},
		"recreate, the new ones at once": func(t *testing.T, d *deployment) {
			d.kill(4)
			d.start(t, 3)
			d.run(30*time.Second, false)
			d.start(t, 1)
		},
		"scale up": func(t *testing.T, d *deployment) {
			d.kill(4)
			d.run(5*time.Second, false)
			for range 8 {
				d.start(t, 1)
				d.run(5*time.Second, false)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeployment(t, 4)
			d.run(5*time.Minute, false)
			redeploy(t, d)
			d.run(2*time.Second, false)
			if n := d.dead(); n != 0 || d.service.DegradedSince != nil || countInUse(d.service, d.all) < 4 {
				t.Errorf("degraded since %v with %d in use, %d of them dead; want the new ones alone", d.service.DegradedSince, countInUse(d.service, d.all), n)
			}
		})
	}
}

func TestMassFailureGuard_lets_go_of_instances_that_refuse_connections(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, 4)
	d.kill(4)
	d.run(30*time.Second, false)
	d.start(t, 1) // fewer than before
	d.run(10*time.Second, false)
	if d.dead() != 4 || d.service.DegradedSince == nil {
		t.Errorf("with one of four back the service is degraded since %v with %d dead ones in use, want all four", d.service.DegradedSince, d.dead())
	}
	d.run(time.Second, true)
	if d.dead() != 0 || d.service.DegradedSince != nil || len(d.all) != 1 {
		t.Errorf("when they refuse connections the service is degraded since %v with %d dead ones in use, %d in all; want one alone", d.service.DegradedSince, d.dead(), len(d.all))
	}
}

func TestChecker_probes_kept_instances_that_may_be_gone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCheckerTest(t)
		defer w.checker.stop()
		s, err := NewService(ServiceInput{Name: "echo"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s.EnterDegraded(time.Now(), time.Now())
		w.directory.ApplyService(s)
		ids := map[uid.Instance]string{}
		for _, host := range []string{"refuses", "mute", "good"} {
			i, err := NewInstance(s.ID, InstanceInput{InstanceID: host, URL: "http://" + host}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			i.ExpireLease(time.Now())
			w.directory.ApplyInstance(i)
			ids[i.ID] = host
		}
		for second := range 60 {
			for _, found := range w.checker.collectFailures(t.Context()) {
				for id, r := range found {
					if ids[id] != "refuses" || !r.gone || second < 20 {
						t.Errorf("after %d s the result of %s is %+v", second, ids[id], r)
					}
				}
				ids["gone"] = fmt.Sprint(second)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if ids["gone"] == "" || !strings.Contains(fmt.Sprint(w.prober.probes), "http://mute") {
			t.Errorf("gone: %q, probes %v; want the one that refuses, and probes of all", ids["gone"], w.prober.probes)
		}
	})
}
