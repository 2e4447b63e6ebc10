package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func atPlus(d time.Duration) time.Time { return at.Add(d) }

func numberedNames(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func givenService(t *testing.T) *Service {
	t.Helper()
	s, err := NewService(ServiceInput{Name: "echo"}, at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func givenInstance(t *testing.T, n int) *Instance {
	t.Helper()
	i, err := NewInstance("svc_1", InstanceInput{InstanceID: fmt.Sprint("i", n), URL: "http://127.0.0.1:80"}, at)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func typesOf(events []event.Event) (all []event.Type) {
	for _, e := range events {
		all = append(all, e.Type)
	}
	return all
}

func TestService_refuses_what_is_not_as_it_must_be(t *testing.T) {
	t.Parallel()
	good := func() ServiceInput {
		return ServiceInput{Name: "payment-service.v2", Tags: []string{"b", "a", "b"}, Metadata: map[string]string{"k": "v"}, HealthCheck: &HealthCheck{Path: "/healthz"}}
	}
	s, err := NewService(good(), at)
	if err != nil || !cmp.Equal(s.Tags, []string{"a", "b"}) || s.Strategy != RoundRobin ||
		*s.HealthCheck != (HealthCheck{"/healthz", 10 * time.Second, 2 * time.Second, 2, 3}) {
		t.Fatalf("NewService = %+v, %v", s, err)
	}
	for name, spoil := range map[string]func(*ServiceInput){
		"no name":            func(in *ServiceInput) { in.Name = "" },
		"capitals":           func(in *ServiceInput) { in.Name = "Echo" },
		"a slash":            func(in *ServiceInput) { in.Name = "a/b" },
		"a dash at the end":  func(in *ServiceInput) { in.Name = "a-" },
		"a long name":        func(in *ServiceInput) { in.Name = strings.Repeat("a", 64) },
		"a tag with a space": func(in *ServiceInput) { in.Tags = []string{"a b"} },
		"many tags": func(in *ServiceInput) {
			in.Tags = numberedNames(33)
		},
		"a long value":        func(in *ServiceInput) { in.Metadata["k"] = strings.Repeat("v", 513) },
		"an empty key":        func(in *ServiceInput) { in.Metadata[""] = "v" },
		"another strategy":    func(in *ServiceInput) { in.Strategy = "BEST" },
		"a relative check":    func(in *ServiceInput) { in.HealthCheck.Path = "healthz" },
		"a check of a host":   func(in *ServiceInput) { in.HealthCheck.Path = "@evil.example/" },
		"a check too often":   func(in *ServiceInput) { in.HealthCheck.Interval = time.Millisecond },
		"a timeout too long":  func(in *ServiceInput) { in.HealthCheck.Timeout = 11 * time.Second },
		"a threshold too big": func(in *ServiceInput) { in.HealthCheck.Unhealthy = 100 },
		"a long description":  func(in *ServiceInput) { in.Description = strings.Repeat("d", 2001) },
	} {
		in := good()
		spoil(&in)
		if _, err := NewService(in, at); err == nil || fault.From(err).Kind() != fault.KindInvalid {
			t.Errorf("%s: %v, want an Invalid error", name, err)
		}
	}
}

func TestService_changes_only_when_something_changes(t *testing.T) {
	t.Parallel()
	s := givenService(t)
	s.TakeEvents()
	steps := []struct {
		name string
		do   func() error
		want []event.Type
	}{
		{"the same again", func() error { return s.Register(ServiceInput{Name: "echo"}, at) }, nil},
		{"a description", func() error { return s.Apply(ServiceChange{Description: validate.Of("d")}, at) }, []event.Type{EventServiceUpdated}},
		{"trust", func() error {
			return s.Apply(ServiceChange{Trusted: validate.Of(true), TrustedAddresses: validate.Of([]string{"10.0.0.1"})}, at)
		}, []event.Type{EventServiceUpdated}},
		{"trust elsewhere", func() error {
			return s.Apply(ServiceChange{TrustedAddresses: validate.Of([]string{"10.0.0.0/8"})}, at)
		}, []event.Type{EventServiceUpdated}},
		{"trust at the same network", func() error {
			return s.Apply(ServiceChange{TrustedAddresses: validate.Of([]string{"10.1.2.3/8", "10.0.0.0/8"})}, at)
		}, nil},
		{"openness", func() error { return s.Apply(ServiceChange{Public: validate.Of(true)}, at) }, []event.Type{EventServiceUpdated}},
		{"payments", func() error { return s.Apply(ServiceChange{PaymentProvider: validate.Of(true)}, at) }, []event.Type{EventServiceUpdated}},
		{"the end", func() error { s.Deregister(at); return nil }, []event.Type{EventServiceDeregistered}},
		{"the end again", func() error { s.Deregister(at); return nil }, nil},
		{"a return", func() error { return s.Register(ServiceInput{Name: "echo"}, at) }, []event.Type{EventServiceRegistered}},
	}
	version := s.Version
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got := typesOf(s.TakeEvents())
		if version += len(got); !cmp.Equal(got, step.want) || s.Version != version {
			t.Errorf("%s recorded %v at version %d, want %v", step.name, got, s.Version, step.want)
		}
	}
	if s.Trusted || s.TrustedAddresses != nil || s.Public || s.PaymentProvider {
		t.Error("a service that came back kept the trust, the openness or the payments of the one before")
	}
}

func TestInstance_refuses_what_is_not_as_it_must_be(t *testing.T) {
	t.Parallel()
	good := InstanceInput{InstanceID: "a-1", URL: "https://[::1]:8443/base/"}
	if i, err := NewInstance("svc_1", good, at); err != nil || i.URL != "https://[::1]:8443/base" || i.Weight != 1 || i.TTL != 30*time.Second {
		t.Fatalf("NewInstance = %+v, %v", i, err)
	}
	for name, spoil := range map[string]func(*InstanceInput){
		"no id":               func(in *InstanceInput) { in.InstanceID = "" },
		"an id with a space":  func(in *InstanceInput) { in.InstanceID = "a b" },
		"another scheme":      func(in *InstanceInput) { in.URL = "file:///etc/passwd" },
		"no host":             func(in *InstanceInput) { in.URL = "http:///x" },
		"a user":              func(in *InstanceInput) { in.URL = "http://u:p@h/" },
		"a query":             func(in *InstanceInput) { in.URL = "http://h/?q" },
		"a fragment":          func(in *InstanceInput) { in.URL = "http://h/#f" },
		"a line break":        func(in *InstanceInput) { in.URL = "http://h/\r\n" },
		"no weight":           func(in *InstanceInput) { in.Weight = -1 },
		"too much weight":     func(in *InstanceInput) { in.Weight = 1001 },
		"a short lease":       func(in *InstanceInput) { in.TTL = time.Second },
		"a long lease":        func(in *InstanceInput) { in.TTL = time.Hour },
		"a large incarnation": func(in *InstanceInput) { in.Incarnation = 1 << 53 },
		"a line in metadata":  func(in *InstanceInput) { in.Metadata = map[string]string{"k": "a\nb"} },
	} {
		in := good
		spoil(&in)
		if _, err := NewInstance("svc_1", in, at); err == nil || fault.From(err).Kind() != fault.KindInvalid {
			t.Errorf("%s: %v, want an Invalid error", name, err)
		}
	}
}

func TestInstance_incarnations(t *testing.T) {
	t.Parallel()
	i := givenInstance(t, 1)
	first := i.Incarnation
	if first != at.UnixMilli() {
		t.Errorf("the first incarnation is %d, want the time %d", first, at.UnixMilli())
	}
	again := func(incarnation int64) error {
		return i.Register(InstanceInput{InstanceID: "i1", URL: "http://127.0.0.1:81", Incarnation: incarnation}, at)
	}
	if err := again(0); err != nil || i.Incarnation != first+1 {
		t.Errorf("another start gave %d, %v, want the next incarnation", i.Incarnation, err)
	}
	if err := again(first); !fault.Is(err, CodeStaleIncarnation) {
		t.Errorf("the first start registering late gave %v, want STALE_INCARNATION", err)
	}
	version := i.Version
	if err := again(first + 1); err != nil || i.Version != version {
		t.Errorf("the same start again gave version %d, %v, want no change", i.Version, err)
	}
	if err := again(first + 100); err != nil || i.Incarnation != first+100 {
		t.Errorf("a start with a number of its own gave %d, %v", i.Incarnation, err)
	}
	for incarnation, stale := range map[int64]bool{0: false, first + 99: true, first + 100: false} {
		if err := i.CheckIncarnation(incarnation); fault.Is(err, CodeStaleIncarnation) != stale {
			t.Errorf("a call of incarnation %d gave %v", incarnation, err)
		}
	}
}

// TestInstance_status walks through what can happen to an instance.
func TestInstance_status(t *testing.T) {
	t.Parallel()
	restart := func(i *Instance) error { return i.Register(InstanceInput{InstanceID: "i1", URL: i.URL}, at) }
	late := func(i *Instance) error { i.ExpireLease(at); return nil }
	renewed := func(i *Instance) error { i.RenewLease(at); return nil }
	fails := func(i *Instance) error { i.SetCheckFailure("status 500", at); return nil }
	passes := func(i *Instance) error { i.SetCheckFailure("", at); return nil }
	drain := func(i *Instance) error { return i.Drain("update", at) }
	mend := func(i *Instance) error { return i.SetMaintenance(true, "disk", at) }
	mended := func(i *Instance) error { return i.SetMaintenance(false, "", at) }
	tests := []struct {
		name   string
		steps  []func(*Instance) error
		want   Status
		reason string
	}{
		{"passes at first", nil, Passing, ""},
		{"is critical once late", []func(*Instance) error{late}, Critical, "its lease was not renewed"},
		{"passes once it has renewed", []func(*Instance) error{late, renewed}, Passing, ""},
		{"is critical while its checks fail", []func(*Instance) error{fails}, Critical, "status 500"},
		{"renewing does not heal its checks", []func(*Instance) error{fails, late, renewed}, Critical, "status 500"},
		{"passes once its checks do", []func(*Instance) error{fails, passes}, Passing, ""},
		{"drains although it is late", []func(*Instance) error{drain, late}, Draining, "update"},
		{"is drained until its next start", []func(*Instance) error{drain, restart}, Passing, ""},
		{"stays in maintenance over a start", []func(*Instance) error{mend, restart}, Maintenance, "disk"},
		{"comes back from maintenance as it is", []func(*Instance) error{mend, late, mended}, Critical, "its lease was not renewed"},
		{"comes back from maintenance", []func(*Instance) error{mend, mended}, Passing, ""},
		{"starts anew after it was critical", []func(*Instance) error{late, fails, restart}, Passing, ""},
	}
	for _, tt := range tests {
		i := givenInstance(t, 1)
		for _, step := range tt.steps {
			if err := step(i); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		if i.Status != tt.want || i.StatusReason != tt.reason {
			t.Errorf("%s: it is %s, %q, want %s, %q", tt.name, i.Status, i.StatusReason, tt.want, tt.reason)
		}
	}
}

func TestInstance_changes_until_its_next_start(t *testing.T) {
	t.Parallel()
	in := InstanceInput{InstanceID: "a", URL: "http://10.0.0.1:80", Weight: 2, Metadata: map[string]string{"zone": "a"}}
	i, err := NewInstance("svc_1", in, at)
	if err != nil {
		t.Fatal(err)
	}
	incarnation := i.Incarnation
	i.TakeEvents()
	for _, step := range []struct {
		change InstanceChange
		weight int
		zone   string
		events int
		fails  bool
	}{
		{InstanceChange{}, 2, "a", 0, false},
		{InstanceChange{Weight: validate.Of(5)}, 5, "a", 1, false},
		{InstanceChange{Weight: validate.Of(5)}, 5, "a", 0, false},
		{InstanceChange{Weight: validate.Of(0)}, 5, "a", 0, true},
		{InstanceChange{Weight: validate.Of(MaxWeight + 1), Metadata: validate.Of(map[string]string{})}, 5, "a", 0, true},
		{InstanceChange{Metadata: validate.Of[map[string]string](nil)}, 5, "", 1, false},
	} {
		err := i.Apply(step.change, at)
		if (err != nil) != step.fails || i.Weight != step.weight || i.Metadata["zone"] != step.zone || len(i.TakeEvents()) != step.events || i.Incarnation != incarnation {
			t.Errorf("after %+v: %v, instance %+v", step.change, err, i)
		}
	}
	if err := i.Register(in, at.Add(time.Second)); err != nil || i.Weight != 2 || i.Metadata["zone"] != "a" {
		t.Errorf("its next start brings %+v, %v, want its own values", i, err)
	}
}

func TestInstance_records_a_status_once(t *testing.T) {
	t.Parallel()
	i := givenInstance(t, 1)
	i.ExpireLease(at)
	i.ExpireLease(atPlus(time.Second))
	i.RenewLease(at)
	i.RenewLease(at)
	i.Remove(at)
	want := []event.Type{EventInstanceRegistered, EventInstanceStatusChanged, EventInstanceStatusChanged, EventInstanceDeregistered}
	events := i.TakeEvents()
	if got := typesOf(events); !cmp.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	if last := events[3]; !last.Concerns("svc_1") || last.SubjectVersion != 4 {
		t.Errorf("the last event is about %v at version %d, want its service and version 4", last.Related, last.SubjectVersion)
	}
}

// TestService_Weigh checks for every number of instances and of those that
// vanish that the service becomes degraded with more than half, and that no list ever gets empty.
func TestService_Weigh(t *testing.T) {
	t.Parallel()
	guard := MassFailureGuard{Window: time.Minute, MaxDegraded: time.Hour}
	for n := 1; n <= 9; n++ {
		for gone := range n + 1 {
			s, all := givenService(t), make([]*Instance, n)
			for k := range all {
				all[k] = givenInstance(t, k)
				if k < gone {
					all[k].ExpireLease(atPlus(time.Duration(k) * time.Second))
				}
			}
			s.EvaluateMassFailure(all, guard, atPlus(10*time.Second))
			degraded, inUse := gone*2 > n, n-gone
			if degraded {
				inUse = n
			}
			if got := countInUse(s, all); (s.DegradedSince != nil) != degraded || got != inUse {
				t.Errorf("%d of %d vanished: degraded since %v with %d in use, want %v with %d", gone, n, s.DegradedSince, got, degraded, inUse)
			}
			for _, i := range all {
				i.RenewLease(atPlus(20 * time.Second))
			}
			if s.EvaluateMassFailure(all, guard, atPlus(21*time.Second)); s.DegradedSince != nil || countInUse(s, all) != n {
				t.Errorf("%d of %d came back and it is degraded since %v", gone, n, s.DegradedSince)
			}
		}
	}
}

func countInUse(s *Service, all []*Instance) (n int) {
	for _, i := range all {
		if s.InUse(i) {
			n++
		}
	}
	return n
}

func TestService_Weigh_over_time(t *testing.T) {
	t.Parallel()
	guard := MassFailureGuard{Window: time.Minute, MaxDegraded: time.Hour}
	s, all := givenService(t), []*Instance{givenInstance(t, 0), givenInstance(t, 1), givenInstance(t, 2), givenInstance(t, 3)}
	all[0].ExpireLease(atPlus(0)) // long before the others: it was not well then
	for k, i := range all[1:] {
		i.ExpireLease(atPlus(10*time.Minute + time.Duration(k)*time.Second))
		s.EvaluateMassFailure(all, guard, i.StatusSince)
	}
	if s.DegradedSince == nil || countInUse(s, all) != 3 || s.InUse(all[0]) {
		t.Errorf("after three vanished %d are in use, want those three and not the one that had gone before", countInUse(s, all))
	}
	if s.EvaluateMassFailure(all, guard, atPlus(80*time.Minute)); s.DegradedSince != nil || countInUse(s, all) != 0 {
		t.Errorf("after MaxDegraded it is degraded since %v with %d in use, want the healthy ones only", s.DegradedSince, countInUse(s, all))
	}
	if s.EvaluateMassFailure(all, guard, atPlus(81*time.Minute)); s.DegradedSince != nil {
		t.Error("an old failure made it degraded again")
	}
}
