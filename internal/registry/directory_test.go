package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// fakeStore is a Store of what Load is to return; it keeps nothing.
type fakeStore struct {
	Store
	haveServices  []*Service
	haveInstances []*Instance
	err           error
	during        func() // what happens during a load; may be nil
}

func (s *fakeStore) Load(context.Context) ([]*Service, []*Instance, error) {
	if s.during != nil {
		s.during()
	}
	return s.haveServices, s.haveInstances, s.err
}

// testDirectory is a Directory with a time and a lag that the test sets.
type testDirectory struct {
	*Directory
	store fakeStore
	time  time.Time
	lag   time.Duration
	head  event.Cursor

	position event.Position // of the last event that was delivered
}

// Lag and Head implement Reader.
func (w *testDirectory) Lag() time.Duration { return w.lag }
func (w *testDirectory) Head() event.Cursor { return w.head }

func newTestDirectory() *testDirectory {
	w := &testDirectory{time: at}
	w.Directory = NewDirectory(&w.store, w, func() time.Time { return w.time }, slog.New(slog.DiscardHandler))
	return w
}

// deliver delivers the events as the log has them: numbered one after the other.
func (w *testDirectory) deliver(events ...event.Event) {
	all := make([]*event.Event, len(events))
	for n, e := range events {
		w.position++
		e.ID, e.Cursor.Position = uid.NewEvent(at), w.position
		all[n] = &e
	}
	w.ApplyEvents(all, false)
}

func TestDirectory_follows_the_log_by_what_events_carry(t *testing.T) {
	t.Parallel()
	w, s := newTestDirectory(), givenService(t)
	s.Metadata, s.HealthCheck = map[string]string{"k": "v"}, &HealthCheck{"/h", time.Second, time.Second, 1, 2}
	s.Apply(ServiceChange{}, at) //nolint:errcheck // it changes nothing
	i, err := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1", Weight: 7, TTL: time.Minute}, at)
	if err != nil {
		t.Fatal(err)
	}
	i.ExpireLease(atPlus(time.Second))
	w.deliver(append(s.TakeEvents(), i.TakeEvents()...)...)
	got := w.Instance("echo", "a")
	if got == nil || got.Status != Critical || got.LateSince == nil || !got.StatusSince.Equal(atPlus(time.Second)) || got.Weight != 7 || got.TTL != time.Minute || got.Version != 2 {
		t.Fatalf("the instance is %+v, want it as it was", got)
	}
	i.Remove(at)
	w.deliver(i.TakeEvents()...)
	if w.Instance("echo", "a") != nil || w.InstanceByID(i.ID) != nil || len(w.Set("echo").Instances) != 0 {
		t.Error("a removed instance is still there")
	}
	s.Deregister(at)
	w.deliver(s.TakeEvents()...)
	if w.Service("echo") != nil || w.ServiceByID(s.ID) != nil || len(w.Services()) != 0 {
		t.Error("a deregistered service is still there")
	}
}

// TestDirectory_tells_old_news_from_new takes changes at once, as a node does with its own, and
// hears of them later.
func TestDirectory_tells_old_news_from_new(t *testing.T) {
	t.Parallel()
	w, s := newTestDirectory(), givenService(t)
	i, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	events := append(s.TakeEvents(), i.TakeEvents()...)
	early := *i
	i.Drain("x", at) //nolint:errcheck // the reason is short
	events = append(events, i.TakeEvents()...)
	w.ApplyService(s)
	w.ApplyInstance(i)
	w.ApplyInstance(&early)
	if got := w.Instance("echo", "a"); got.Status != Draining {
		t.Errorf("an older event made it %s", got.Status)
	}
	gone := *i
	gone.Remove(at)
	w.ApplyInstance(&gone)
	w.deliver(events...)
	if got := w.InstanceByID(i.ID); got != nil {
		t.Errorf("a late event brought a removed instance back: %+v", got)
	}
}

func TestDirectory_loads_anew_and_forgets_what_is_not_there(t *testing.T) {
	t.Parallel()
	w, s := newTestDirectory(), givenService(t)
	a, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	b, _ := NewInstance(s.ID, InstanceInput{InstanceID: "b", URL: "http://127.0.0.1:1"}, at)
	w.store.haveServices, w.store.haveInstances = []*Service{s}, []*Instance{b, a}
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.store.haveInstances = []*Instance{b}
	if err := w.Load(t.Context()); err != nil || len(w.Instances(s.ID)) != 1 || w.InstanceByID(a.ID) != nil {
		t.Errorf("after a load without it the instance is still there: %v, %v", w.Instances(s.ID), err)
	}
	w.store.err = errors.New("the database is gone")
	if err := w.Load(t.Context()); err == nil || len(w.Instances(s.ID)) != 1 {
		t.Errorf("a load that failed gave %v and left %v", err, w.Instances(s.ID))
	}
	w.ApplyEvents(nil, true)
	select {
	case <-w.reload:
	default:
		t.Error("a gap in the log does not load the registry anew")
	}
}

func TestDirectory_says_which_services_are_no_longer_public(t *testing.T) {
	t.Parallel()
	change := func(s *Service, public bool) *Service {
		next := *s
		if err := next.Apply(ServiceChange{Public: validate.Of(public)}, at); err != nil {
			t.Fatal(err)
		}
		return &next
	}
	closed := givenService(t)
	open := change(closed, true)
	again := change(open, false)
	removed := *open
	removed.Deregister(at)
	for name, tt := range map[string]struct {
		apply func(w *testDirectory) error
		want  []string
	}{
		"a change that keeps it public": {func(w *testDirectory) error { w.ApplyService(change(again, true)); return nil }, nil},
		"a change that closes it":       {func(w *testDirectory) error { w.ApplyService(again); return nil }, []string{"echo"}},
		"a former version":              {func(w *testDirectory) error { w.ApplyService(closed); return nil }, nil},
		"its removal":                   {func(w *testDirectory) error { w.ApplyService(&removed); return nil }, []string{"echo"}},
		"a load that finds it closed": {func(w *testDirectory) error {
			w.store.haveServices = []*Service{again}
			return w.Load(t.Context())
		}, []string{"echo"}},
		"a load that does not find it": {func(w *testDirectory) error {
			w.store.haveServices = nil
			return w.Load(t.Context())
		}, []string{"echo"}},
		"a load that finds it as it is": {func(w *testDirectory) error {
			w.store.haveServices = []*Service{open}
			return w.Load(t.Context())
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTestDirectory()
			w.ApplyService(open)
			var got []string
			w.OnServiceClosed(func(name string) { got = append(got, name) })
			if err := tt.apply(w); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("services are closed: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDirectory_keeps_what_it_hears_of_during_a_load(t *testing.T) {
	t.Parallel()
	w, s := newTestDirectory(), givenService(t)
	a, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	w.store.during = func() { w.deliver(s.TakeEvents()...) } // registered after the rows were read
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.deliver(a.TakeEvents()...)
	if got := w.Set(s.Name); got == nil || len(got.Instances) != 1 {
		t.Errorf("Set(%s) = %+v, want the service with the instance that came later", s.Name, got)
	}
}

func TestDirectory_Place_is_one_that_it_has_reached(t *testing.T) {
	t.Parallel()
	w := newTestDirectory()
	if got := w.Cursor(); got != nil {
		t.Errorf("before the log is read Place = %v, want none", got)
	}
	w.head = event.Cursor{Timeline: "a", Position: 7}
	if got := w.Cursor(); got == nil || *got != w.head {
		t.Errorf("Place = %v, want where the log is read to", got)
	}
	w.ApplyEvents(nil, true)
	if got := w.Cursor(); got != nil {
		t.Errorf("with a gap Place = %v, want none", got)
	}
	w.store.err = errors.New("the database is gone")
	if err := w.Load(t.Context()); err == nil || w.Cursor() != nil {
		t.Errorf("after a load that failed (%v) Place = %v, want none", err, w.Cursor())
	}
	w.store.err = nil
	w.store.during = func() { w.ApplyEvents(nil, true) }
	if err := w.Load(t.Context()); err != nil || w.Cursor() != nil {
		t.Errorf("with another gap during the load (%v) Place = %v, want none", err, w.Cursor())
	}
	w.store.during = nil
	if err := w.Load(t.Context()); err != nil || w.Cursor() == nil {
		t.Errorf("after a load (%v) Place = %v, want one", err, w.Cursor())
	}
}

func TestDirectory_Health(t *testing.T) {
	t.Parallel()
	w, s := newTestDirectory(), givenService(t)
	w.store.haveServices = []*Service{s}
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(what string, want Health, reason Reason) {
		t.Helper()
		got, degraded := w.Health(s.ID)
		if got != want || (degraded == nil) != (reason == "") || degraded != nil && degraded.Reason != reason {
			t.Errorf("%s: %s, %+v, want %s %s", what, got, degraded, want, reason)
		}
	}
	check("without instances", HealthDown, "")
	i, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	w.ApplyInstance(i)
	check("with one that passes", HealthHealthy, "")
	w.lag = time.Hour
	check("just loaded, the log not read yet", HealthHealthy, "")
	w.time = atPlus(10 * time.Second)
	check("without the log for ten seconds", HealthDegraded, Stale)
	if set := w.Set("echo"); len(set.Instances) != 1 {
		t.Errorf("then %d instances are in use, want the last known one", len(set.Instances))
	}
	w.lag = 0
	late, degraded := *i, *s
	late.ExpireLease(at)
	degraded.EnterDegraded(at, at)
	w.ApplyInstance(&late)
	w.ApplyService(&degraded)
	check("degraded", HealthDegraded, MassFailure)
	if set := w.Set("echo"); len(set.Instances) != 1 {
		t.Errorf("degraded: %d instances are in use, want the one that was healthy", len(set.Instances))
	}
}

func TestDirectory_gives_the_same_set_until_something_changes(t *testing.T) {
	t.Parallel()
	w, s := newTestDirectory(), givenService(t)
	w.ApplyService(s)
	one := w.Set("echo")
	if w.Set("echo") != one {
		t.Error("another set although nothing has changed")
	}
	for n := range largeSet + 1 {
		i, _ := NewInstance(s.ID, InstanceInput{InstanceID: fmt.Sprint(n), URL: "http://127.0.0.1:1"}, at)
		w.ApplyInstance(i)
	}
	w.time = atPlus(time.Hour)
	all := w.Set("echo")
	if len(all.Instances) != largeSet+1 {
		t.Fatalf("the set has %d instances, want %d", len(all.Instances), largeSet+1)
	}
	i := *all.Instances[0]
	i.Drain("", at) //nolint:errcheck // without a reason
	w.ApplyInstance(&i)
	if w.Set("echo") != all {
		t.Error("of very many instances the set was made anew at once")
	}
	w.time = atPlus(2 * time.Hour)
	if n := len(w.Set("echo").Instances); n != largeSet {
		t.Errorf("a moment later the set has %d instances, want %d", n, largeSet)
	}
}

// fakeChooser chooses always the same, and notes how calls end.
type fakeChooser struct {
	Chooser
	i      *Instance
	ended  []string
	others map[uid.Instance]int
}

func (c *fakeChooser) Choose(*Set, Strategy, string) (Choice, error) { return c, nil }
func (c *fakeChooser) Instance() *Instance                           { return c.i }
func (c *fakeChooser) Done(ok bool, took time.Duration) {
	c.ended = append(c.ended, fmt.Sprintf("%v %v", ok, took))
}
func (c *fakeChooser) Release()                                     { c.ended = append(c.ended, "over") }
func (c *fakeChooser) Lost()                                        { c.ended = append(c.ended, "lost") }
func (c *fakeChooser) Inflight() map[uid.Instance]int               { return nil }
func (c *fakeChooser) SetRemoteInflight(calls map[uid.Instance]int) { c.others = calls }
func (w *testDirectory) pickTracker(c *fakeChooser, x PeerStore, cfg PickTrackerConfig) *PickTracker {
	return NewPickTracker(w.Directory, c, x, []byte("secret"), func() time.Time { return w.time }, slog.New(slog.DiscardHandler), cfg)
}

// fakePeers is an Exchange between desks: it carries what one hands over to the other.
type fakePeers struct {
	out []Outcome
	err error
}

func (b *fakePeers) SyncPicks(_ context.Context, node string, _ time.Duration, _ map[uid.Instance]int, out []Outcome) (map[uid.Instance]int, []Outcome, error) {
	if b.err != nil {
		return nil, nil, b.err
	}
	var in []Outcome
	for _, o := range b.out {
		if o.Node == node {
			in = append(in, o)
		}
	}
	b.out = out
	return map[uid.Instance]int{"ins_x": 3}, in, nil
}

func TestDesk_counts_each_outcome_once(t *testing.T) {
	t.Parallel()
	w := newTestDirectory()
	w.ApplyService(givenService(t))
	c, x := &fakeChooser{i: givenInstance(t, 1)}, &fakePeers{}
	here, there := w.pickTracker(c, x, PickTrackerConfig{}), w.pickTracker(&fakeChooser{}, x, PickTrackerConfig{})
	robot := auth.With(t.Context(), &auth.Principal{UserID: "usr_robot", Roles: []auth.Role{auth.Service}, Credential: auth.SessionCredential("ses_1")})
	pick := func() string {
		_, lease, err := here.Pick(robot, "echo", "", "")
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	first := pick()
	if err := errors.Join(here.Report(robot, first, true, time.Second)); err != nil || len(c.ended) != 1 || c.ended[0] != "true 1s" {
		t.Errorf("the first report gave %v, ended %v", err, c.ended)
	}
	second := pick()
	if err := there.Report(robot, second, false, 0); err != nil {
		t.Errorf("a report to another node gave %v", err)
	}
	for n, again := range []error{there.Report(robot, second, false, 0), here.Report(robot, first, true, 0)} {
		if !fault.Is(again, CodePickLeaseInvalid) {
			t.Errorf("report %d of a used lease gave %v", n, again)
		}
	}
	x.err = errors.New("gone")
	if there.syncPeers(t.Context()) == nil || len(there.unsent) != 1 {
		t.Error("an outcome was lost in a failed exchange")
	}
	x.err = nil
	for _, k := range []*PickTracker{there, here, there, here} {
		if err := k.syncPeers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.ended) != 2 || c.ended[1] != "false 0s" || c.others["ins_x"] != 3 {
		t.Errorf("after the exchange ended %v with %v elsewhere", c.ended, c.others)
	}
}

func TestPickTracker_ends_calls_without_a_report(t *testing.T) {
	t.Parallel()
	w := newTestDirectory()
	w.ApplyService(givenService(t))
	c := &fakeChooser{i: givenInstance(t, 1)}
	k := w.pickTracker(c, nil, PickTrackerConfig{MaxPicks: 3})
	robot := auth.With(t.Context(), &auth.Principal{UserID: "usr_robot", Roles: []auth.Role{auth.Service}, Credential: auth.SessionCredential("ses_1")})
	var leases []string
	for range 4 {
		_, lease, err := k.Pick(robot, "echo", "", "")
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, lease)
	}
	if fmt.Sprint(c.ended) != "[over]" {
		t.Errorf("of four calls where three may be open %v ended", c.ended)
	}
	w.time = atPlus(time.Minute)
	k.expirePicks()
	if fmt.Sprint(c.ended) != "[over lost lost lost]" || len(k.pending) != 0 || len(k.queue) != 0 || len(k.pendingByCaller) != 0 {
		t.Errorf("after a minute %v ended, %d are open of %v", c.ended, len(k.pending), k.pendingByCaller)
	}
	if err := k.Report(robot, leases[3], true, 0); !fault.Is(err, CodePickLeaseInvalid) {
		t.Errorf("a report after a minute gave %v", err)
	}
}

func TestPickTracker_lets_no_caller_have_all_picks(t *testing.T) {
	t.Parallel()
	w := newTestDirectory()
	w.ApplyService(givenService(t))
	c := &fakeChooser{i: givenInstance(t, 1)}
	k := w.pickTracker(c, nil, PickTrackerConfig{MaxPicksPerCaller: 2})
	robot := auth.With(t.Context(), &auth.Principal{UserID: "usr_robot", Roles: []auth.Role{auth.Service}, Credential: auth.SessionCredential("ses_1")})
	other := auth.With(t.Context(), &auth.Principal{UserID: "usr_other", Roles: []auth.Role{auth.Service}, Credential: auth.SessionCredential("ses_1")})
	var lease string
	for range 2 {
		var err error
		if _, lease, err = k.Pick(robot, "echo", "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := k.Pick(robot, "echo", "", ""); !fault.Is(err, fault.LimitReached) || fmt.Sprint(c.ended) != "[over]" {
		t.Errorf("the third pick gave %v, ended %v; want LIMIT_REACHED and nothing held", err, c.ended)
	}
	if _, _, err := k.Pick(other, "echo", "", ""); err != nil {
		t.Errorf("a pick of another caller gave %v", err)
	}
	if err := k.Report(robot, lease, true, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Pick(robot, "echo", "", ""); err != nil {
		t.Errorf("after a report the next pick gave %v", err)
	}
	w.time = atPlus(time.Minute)
	k.expirePicks()
	if _, _, err := k.Pick(robot, "echo", "", ""); err != nil || len(k.pendingByCaller) != 1 {
		t.Errorf("after a minute the next pick gave %v, with %v", err, k.pendingByCaller)
	}
}

func TestSentence(t *testing.T) {
	t.Parallel()
	guard := MassFailureGuard{Window: time.Minute, MaxDegraded: time.Hour}
	s, all := givenService(t), []*Instance{givenInstance(t, 0), givenInstance(t, 1), givenInstance(t, 2), givenInstance(t, 3), givenInstance(t, 4)}
	leases := map[uid.Instance]LeaseState{}
	for _, i := range all {
		leases[i.ID] = LeaseState{Current: true}
	}
	leases[all[0].ID] = LeaseState{Overdue: true}
	failures := map[uid.Instance]checkResult{all[1].ID: {all[1].Incarnation, "status 500", false}, all[2].ID: {all[2].Incarnation - 1, "of a former start", false}}
	evaluateInstances(s, all, leases, failures, guard, atPlus(time.Second))
	for n, want := range []Status{Critical, Critical, Passing, Passing, Passing} {
		if all[n].Status != want {
			t.Errorf("instance %d is %s, want %s", n, all[n].Status, want)
		}
	}
	if s.DegradedSince != nil {
		t.Error("two of five are no mass failure")
	}
	leases[all[0].ID] = LeaseState{Overdue: true, RemovalDue: true}
	evaluateInstances(s, all, leases, nil, guard, atPlus(2*time.Second))
	if !all[0].Removed || all[1].Removed {
		t.Error("an instance that is late for long was not removed, or one that only fails its checks was")
	}
	for _, i := range all[1:] {
		leases[i.ID] = LeaseState{Overdue: true, RemovalDue: true}
	}
	evaluateInstances(s, all[1:], leases, nil, guard, atPlus(3*time.Second))
	for n, i := range all[1:] {
		if i.Removed || !s.InUse(i) {
			t.Errorf("in a mass failure instance %d was removed, or is not in use any more", n+1)
		}
	}
}
