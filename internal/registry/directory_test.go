package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// stored is a Store of what Load is to return; it keeps nothing.
type stored struct {
	Store
	haveServices  []*Service
	haveInstances []*Instance
	err           error
	during        func() // what happens during a load; may be nil
}

func (s *stored) Load(context.Context) ([]*Service, []*Instance, error) {
	if s.during != nil {
		s.during()
	}
	return s.haveServices, s.haveInstances, s.err
}

// world is a Directory with a time and a lag that the test sets.
type world struct {
	*Directory
	kept stored
	time time.Time
	lag  time.Duration
	head event.Cursor

	position event.Position // of the last event that was delivered
}

// Lag and Head implement Reader.
func (w *world) Lag() time.Duration { return w.lag }
func (w *world) Head() event.Cursor { return w.head }

func newWorld() *world {
	w := &world{time: at}
	w.Directory = NewDirectory(&w.kept, w, func() time.Time { return w.time }, slog.New(slog.DiscardHandler))
	return w
}

// append delivers the events as the log has them: numbered one after the other.
func (w *world) append(events ...event.Event) {
	all := make([]*event.Event, len(events))
	for n, e := range events {
		w.position++
		e.ID, e.Cursor.Position = uid.NewEvent(at), w.position
		all[n] = &e
	}
	w.Deliver(all, false)
}

func TestDirectory_follows_the_log_by_what_events_carry(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), givenService(t)
	s.Metadata, s.HealthCheck = map[string]string{"k": "v"}, &HealthCheck{"/h", time.Second, time.Second, 1, 2}
	s.Apply(ServiceChange{}, at) //nolint:errcheck // it changes nothing
	i, err := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1", Weight: 7, TTL: time.Minute}, at)
	if err != nil {
		t.Fatal(err)
	}
	i.Late(after(time.Second))
	w.append(append(s.TakeEvents(), i.TakeEvents()...)...)
	got := w.Instance("echo", "a")
	if got == nil || got.Status != Critical || got.LateSince == nil || !got.StatusSince.Equal(after(time.Second)) || got.Weight != 7 || got.TTL != time.Minute || got.Version != 2 {
		t.Fatalf("the instance is %+v, want it as it was", got)
	}
	i.Remove(at)
	w.append(i.TakeEvents()...)
	if w.Instance("echo", "a") != nil || w.InstanceByID(i.ID) != nil || len(w.Set("echo").Instances) != 0 {
		t.Error("a removed instance is still there")
	}
	s.Deregister(at)
	w.append(s.TakeEvents()...)
	if w.Service("echo") != nil || w.ServiceByID(s.ID) != nil || len(w.Services()) != 0 {
		t.Error("a deregistered service is still there")
	}
}

// TestDirectory_tells_old_news_from_new takes changes at once, as a node does with its own, and
// hears of them later.
func TestDirectory_tells_old_news_from_new(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), givenService(t)
	i, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	events := append(s.TakeEvents(), i.TakeEvents()...)
	early := *i
	i.Drain("x", at) //nolint:errcheck // the reason is short
	events = append(events, i.TakeEvents()...)
	w.TakeService(s)
	w.TakeInstance(i)
	w.TakeInstance(&early)
	if got := w.Instance("echo", "a"); got.Status != Draining {
		t.Errorf("older news made it %s", got.Status)
	}
	gone := *i
	gone.Remove(at)
	w.TakeInstance(&gone)
	w.append(events...)
	if got := w.InstanceByID(i.ID); got != nil {
		t.Errorf("old news brought a removed instance back: %+v", got)
	}
}

func TestDirectory_loads_anew_and_forgets_what_is_not_there(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), givenService(t)
	a, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	b, _ := NewInstance(s.ID, InstanceInput{InstanceID: "b", URL: "http://127.0.0.1:1"}, at)
	w.kept.haveServices, w.kept.haveInstances = []*Service{s}, []*Instance{b, a}
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.kept.haveInstances = []*Instance{b}
	if err := w.Load(t.Context()); err != nil || len(w.Instances(s.ID)) != 1 || w.InstanceByID(a.ID) != nil {
		t.Errorf("after a load without it the instance is still there: %v, %v", w.Instances(s.ID), err)
	}
	w.kept.err = errors.New("the database is gone")
	if err := w.Load(t.Context()); err == nil || len(w.Instances(s.ID)) != 1 {
		t.Errorf("a load that failed gave %v and left %v", err, w.Instances(s.ID))
	}
	w.Deliver(nil, true)
	select {
	case <-w.reload:
	default:
		t.Error("a gap in the log does not load the registry anew")
	}
}

func TestDirectory_keeps_what_it_hears_of_during_a_load(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), givenService(t)
	a, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	w.kept.during = func() { w.append(s.TakeEvents()...) } // registered after the rows were read
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.append(a.TakeEvents()...)
	if got := w.Set(s.Name); got == nil || len(got.Instances) != 1 {
		t.Errorf("Set(%s) = %+v, want the service with the instance that came later", s.Name, got)
	}
}

func TestDirectory_Place_is_one_that_it_has_reached(t *testing.T) {
	t.Parallel()
	w := newWorld()
	if got := w.Place(); got != nil {
		t.Errorf("before the log is read Place = %v, want none", got)
	}
	w.head = event.Cursor{Timeline: "a", Position: 7}
	if got := w.Place(); got == nil || *got != w.head {
		t.Errorf("Place = %v, want where the log is read to", got)
	}
	w.Deliver(nil, true)
	if got := w.Place(); got != nil {
		t.Errorf("with a gap Place = %v, want none", got)
	}
	w.kept.err = errors.New("the database is gone")
	if err := w.Load(t.Context()); err == nil || w.Place() != nil {
		t.Errorf("after a load that failed (%v) Place = %v, want none", err, w.Place())
	}
	w.kept.err = nil
	w.kept.during = func() { w.Deliver(nil, true) }
	if err := w.Load(t.Context()); err != nil || w.Place() != nil {
		t.Errorf("with another gap during the load (%v) Place = %v, want none", err, w.Place())
	}
	w.kept.during = nil
	if err := w.Load(t.Context()); err != nil || w.Place() == nil {
		t.Errorf("after a load (%v) Place = %v, want one", err, w.Place())
	}
}

func TestDirectory_Health(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), givenService(t)
	w.kept.haveServices = []*Service{s}
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
	check("without instances", Unhealthy, "")
	i, _ := NewInstance(s.ID, InstanceInput{InstanceID: "a", URL: "http://127.0.0.1:1"}, at)
	w.TakeInstance(i)
	check("with one that passes", Healthy, "")
	w.lag = time.Hour
	check("just loaded, the log not read yet", Healthy, "")
	w.time = after(10 * time.Second)
	check("without the log for ten seconds", Impaired, Stale)
	if set := w.Set("echo"); len(set.Instances) != 1 {
		t.Errorf("then %d instances are in use, want the last known one", len(set.Instances))
	}
	w.lag = 0
	late, doubted := *i, *s
	late.Late(at)
	doubted.Doubt(at, at)
	w.TakeInstance(&late)
	w.TakeService(&doubted)
	check("in doubt", Impaired, MassFailure)
	if set := w.Set("echo"); len(set.Instances) != 1 {
		t.Errorf("in doubt %d instances are in use, want the one that was well", len(set.Instances))
	}
}

func TestDirectory_gives_the_same_set_until_something_changes(t *testing.T) {
	t.Parallel()
	w, s := newWorld(), givenService(t)
	w.TakeService(s)
	one := w.Set("echo")
	if w.Set("echo") != one {
		t.Error("another set although nothing has changed")
	}
	for n := range many + 1 {
		i, _ := NewInstance(s.ID, InstanceInput{InstanceID: fmt.Sprint(n), URL: "http://127.0.0.1:1"}, at)
		w.TakeInstance(i)
	}
	w.time = after(time.Hour)
	all := w.Set("echo")
	if len(all.Instances) != many+1 {
		t.Fatalf("the set has %d instances, want %d", len(all.Instances), many+1)
	}
	i := *all.Instances[0]
	i.Drain("", at) //nolint:errcheck // without a reason
	w.TakeInstance(&i)
	if w.Set("echo") != all {
		t.Error("of very many instances the set was made anew at once")
	}
	w.time = after(2 * time.Hour)
	if n := len(w.Set("echo").Instances); n != many {
		t.Errorf("a moment later the set has %d instances, want %d", n, many)
	}
}

// chosen chooses always the same, and notes how calls end.
type chosen struct {
	Chooser
	i      *Instance
	ended  []string
	others map[uid.Instance]int
}

func (c *chosen) Choose(*Set, Strategy, string) (Choice, error) { return c, nil }
func (c *chosen) Instance() *Instance                           { return c.i }
func (c *chosen) Done(ok bool, took time.Duration) {
	c.ended = append(c.ended, fmt.Sprintf("%v %v", ok, took))
}
func (c *chosen) Release()                                { c.ended = append(c.ended, "over") }
func (c *chosen) Lost()                                   { c.ended = append(c.ended, "lost") }
func (c *chosen) Inflight() map[uid.Instance]int          { return nil }
func (c *chosen) SetElsewhere(calls map[uid.Instance]int) { c.others = calls }
func (w *world) desk(c *chosen, x Exchange, cfg DeskConfig) *Desk {
	return NewDesk(w.Directory, c, x, []byte("secret"), func() time.Time { return w.time }, slog.New(slog.DiscardHandler), cfg)
}

// box is an Exchange between desks: it carries what one hands over to the other.
type box struct {
	out []Outcome
	err error
}

func (b *box) Trade(_ context.Context, node string, _ time.Duration, _ map[uid.Instance]int, out []Outcome) (map[uid.Instance]int, []Outcome, error) {
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
	w := newWorld()
	w.TakeService(givenService(t))
	c, x := &chosen{i: givenInstance(t, 1)}, &box{}
	here, there := w.desk(c, x, DeskConfig{}), w.desk(&chosen{}, x, DeskConfig{})
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
		if !fault.Is(again, fault.PickLeaseInvalid) {
			t.Errorf("report %d of a used lease gave %v", n, again)
		}
	}
	x.err = errors.New("gone")
	if there.trade(t.Context()) == nil || len(there.out) != 1 {
		t.Error("an outcome was lost with a trade that failed")
	}
	x.err = nil
	for _, k := range []*Desk{there, here, there, here} {
		if err := k.trade(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.ended) != 2 || c.ended[1] != "false 0s" || c.others["ins_x"] != 3 {
		t.Errorf("after the trade ended %v with %v elsewhere", c.ended, c.others)
	}
}

func TestDesk_ends_calls_that_nobody_reports(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.TakeService(givenService(t))
	c := &chosen{i: givenInstance(t, 1)}
	k := w.desk(c, nil, DeskConfig{Open: 3})
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
	w.time = after(time.Minute)
	k.tidy()
	if fmt.Sprint(c.ended) != "[over lost lost lost]" || len(k.open) != 0 || len(k.queue) != 0 || len(k.each) != 0 {
		t.Errorf("after a minute %v ended, %d are open of %v", c.ended, len(k.open), k.each)
	}
	if err := k.Report(robot, leases[3], true, 0); !fault.Is(err, fault.PickLeaseInvalid) {
		t.Errorf("a report after a minute gave %v", err)
	}
}

func TestDesk_lets_nobody_have_all_picks(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.TakeService(givenService(t))
	c := &chosen{i: givenInstance(t, 1)}
	k := w.desk(c, nil, DeskConfig{Each: 2})
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
		t.Errorf("somebody else's pick gave %v", err)
	}
	if err := k.Report(robot, lease, true, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Pick(robot, "echo", "", ""); err != nil {
		t.Errorf("after a report the next pick gave %v", err)
	}
	w.time = after(time.Minute)
	k.tidy()
	if _, _, err := k.Pick(robot, "echo", "", ""); err != nil || len(k.each) != 1 {
		t.Errorf("after a minute the next pick gave %v, with %v", err, k.each)
	}
}

func TestSentence(t *testing.T) {
	t.Parallel()
	guard := Guard{Window: time.Minute, Hold: time.Hour}
	s, all := givenService(t), []*Instance{givenInstance(t, 0), givenInstance(t, 1), givenInstance(t, 2), givenInstance(t, 3), givenInstance(t, 4)}
	leases := map[uid.Instance]Verdict{}
	for _, i := range all {
		leases[i.ID] = Verdict{Held: true}
	}
	leases[all[0].ID] = Verdict{Over: true}
	failures := map[uid.Instance]verdict{all[1].ID: {all[1].Incarnation, "status 500"}, all[2].ID: {all[2].Incarnation - 1, "of a former start"}}
	sentence(s, all, leases, failures, guard, after(time.Second))
	for n, want := range []Status{Critical, Critical, Passing, Passing, Passing} {
		if all[n].Status != want {
			t.Errorf("instance %d is %s, want %s", n, all[n].Status, want)
		}
	}
	if s.DoubtedSince != nil {
		t.Error("two of five are no mass failure")
	}
	leases[all[0].ID] = Verdict{Over: true, Expired: true}
	sentence(s, all, leases, nil, guard, after(2*time.Second))
	if !all[0].Removed || all[1].Removed {
		t.Error("who is late for long was not removed, or who only fails its checks was")
	}
	for _, i := range all[1:] {
		leases[i.ID] = Verdict{Over: true, Expired: true}
	}
	sentence(s, all[1:], leases, nil, guard, after(3*time.Second))
	for n, i := range all[1:] {
		if i.Removed || !s.InUse(i) {
			t.Errorf("in a mass failure instance %d was removed, or is not in use any more", n+1)
		}
	}
}
