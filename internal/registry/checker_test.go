package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
)

// fakeProber answers at once, but for instances whose URL contains "mute", which never answer, or
// "refuses", which refuse connections.
type fakeProber struct {
	mu      sync.Mutex
	probes  map[string]int // by host
	running int
	most    int
}

func (p *fakeProber) Probe(ctx context.Context, url string, timeout time.Duration) (output string, err error) {
	p.mu.Lock()
	p.probes[url]++
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
	}()
	switch {
	case strings.Contains(url, "refuses"):
		return "", ErrRefused
	case !strings.Contains(url, "mute"):
		return "status 200: fine\n", nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	<-ctx.Done()
	return "", errors.New("no answer")
}

// checkerTest is a checker that runs a round a second.
type checkerTest struct {
	t         *testing.T
	directory *Directory
	checker   *checker
	prober    *fakeProber
}

func newCheckerTest(t *testing.T) *checkerTest {
	t.Helper()
	p := &fakeProber{probes: map[string]int{}}
	d := newTestDirectory().Directory
	return &checkerTest{t, d, newChecker(d, p, time.Now), p}
}

// addService adds a service whose instances have the host and a number each.
func (w *checkerTest) addService(name string, h HealthCheck, hosts map[string]int) {
	w.t.Helper()
	s, err := NewService(ServiceInput{Name: name, HealthCheck: &h}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	w.directory.ApplyService(s)
	for host, n := range hosts {
		for k := range n {
			id := fmt.Sprint(host, k)
			i, err := NewInstance(s.ID, InstanceInput{InstanceID: id, URL: "http://" + name + "." + id}, time.Now())
			if err != nil {
				w.t.Fatal(err)
			}
			w.directory.ApplyInstance(i)
		}
	}
}

// run runs the checker for that long, and returns how often the instance that was probed the least
// often was probed, among those of the host.
func (w *checkerTest) run(span time.Duration, host string, instances int) int {
	for range int(span / time.Second) {
		w.checker.collectFailures(w.t.Context())
		time.Sleep(time.Second)
	}
	synctest.Wait()
	w.prober.mu.Lock()
	defer w.prober.mu.Unlock()
	least := 1 << 30
	for k := range instances {
		least = min(least, w.prober.probes[fmt.Sprint("http://", host, k, "/h")])
	}
	return least
}

func TestChecker_probes_services_whatever_the_others_answer(t *testing.T) {
	t.Parallel()
	slow, quick := HealthCheck{"/h", 30 * time.Second, 30 * time.Second, 1, 1}, HealthCheck{"/h", 2 * time.Second, time.Second, 1, 1}
	for name, add := range map[string]func(*checkerTest){
		"300 instances of one service never answer": func(w *checkerTest) { w.addService("evil", slow, map[string]int{"mute": 300}) },
		"those of all services of a key never answer": func(w *checkerTest) {
			for n := range 20 {
				w.addService(fmt.Sprint("evil", n), slow, map[string]int{"mute": 100})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newCheckerTest(t)
				defer func() {
					w.checker.stop()
					synctest.Wait()
					if w.checker.running != 0 || len(w.checker.services) != 0 && w.prober.running != 0 {
						t.Errorf("after the stop %d probes are running", w.checker.running)
					}
				}()
				add(w)
				w.run(40*time.Second, "", 0)
				w.addService("well", quick, map[string]int{"good": 50})
				before := w.run(3*time.Second, "well.good", 50) // each is probed within an interval for the first time
				if least := w.run(60*time.Second, "well.good", 50); before < 1 || least < 20 {
					t.Errorf("an instance was probed %d times in the first 3 s, and %d times within a minute, want 1 and about 24", before, least)
				}
				if w.prober.most > maxProbes {
					t.Errorf("%d probes ran at the same time", w.prober.most)
				}
			})
		})
	}
}

func TestChecker_probes_instances_whatever_others_of_the_service_answer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCheckerTest(t)
		defer w.checker.stop()
		w.addService("mixed", HealthCheck{"/h", 10 * time.Second, 10 * time.Second, 1, 1}, map[string]int{"mute": 100, "good": 400})
		w.run(3*time.Minute, "", 0) // each mute instance must have been slow once
		before := w.run(time.Second, "mixed.good", 400)
		if least := w.run(time.Minute, "mixed.good", 400) - before; least < 4 {
			t.Errorf("an instance was probed %d times within a minute, want about 6", least)
		}
	})
}

func TestRegistrar_bounds_the_instances_of_one_service(t *testing.T) {
	t.Parallel()
	w := newCheckerTest(t)
	w.addService("evil", HealthCheck{Path: "/h"}, map[string]int{"mute": maxServiceInstances})
	r := &Registrar{directory: w.directory, now: time.Now}
	ctx := auth.With(t.Context(), &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential("ses_1")})
	if _, err := r.RegisterInstance(ctx, claim.None, "evil", InstanceInput{InstanceID: "more", URL: "http://x"}); !fault.Is(err, fault.LimitReached) {
		t.Errorf("RegisterInstance beyond the limit = %v, want LIMIT_REACHED", err)
	}
}

func TestChecker_reports_the_last_check_of_each_instance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCheckerTest(t)
		w.addService("echo", HealthCheck{"/h", time.Second, 500 * time.Millisecond, 1, 1}, map[string]int{"good": 1, "mute": 1})
		reports := func(span time.Duration) map[string][]CheckReport {
			found := map[string][]CheckReport{}
			for range int(span / time.Second) {
				w.checker.collectFailures(t.Context())
				time.Sleep(time.Second)
				for start, r := range w.checker.reportsToStore() {
					i := w.directory.InstanceByID(start.Instance)
					if start.Incarnation != i.Incarnation {
						t.Errorf("a report is of the start %d, want %d", start.Incarnation, i.Incarnation)
					}
					found[i.InstanceID] = append(found[i.InstanceID], r)
				}
			}
			return found
		}
		first := reports(5 * time.Second)
		if len(first["good0"]) != 1 || len(first["mute0"]) != 1 {
			t.Fatalf("the checks of 5 s gave the reports %+v, want one of each instance, as they say the same", first)
		}
		if r := first["good0"][0]; !r.Passed || r.Output != "status 200: fine" {
			t.Errorf("a check that passes is reported as %+v", r)
		}
		if r := first["mute0"][0]; r.Passed || r.Output != "no answer" || r.LatencyMs() != 500 {
			t.Errorf("a check without an answer is reported as %+v", r)
		}
		if later := reports(24 * time.Second); len(later["good0"]) != 2 {
			t.Errorf("the next 24 s gave %d equal reports, want one each %v", len(later["good0"]), sameCheckPause)
		}
		w.checker.stop()
		synctest.Wait()
	})
}

func TestCheckReport_is_one_short_line(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{
		"":                             "",
		"  fine \n":                    "fine",
		"a\tb\r\n\x1b[31mc\x00\u202ed": "a b [31mc d",
		"\xff\xfebroken":               "broken",
		strings.Repeat("é ", 300):      strings.Repeat("é ", 99) + "é…",
	} {
		if r := newCheckReport(time.Time{}, true, -1, output); r.Output != want || r.Took != 0 || len([]rune(r.Output)) > maxCheckOutput {
			t.Errorf("the output %q is reported as %q, want %q", output, r.Output, want)
		}
	}
}
