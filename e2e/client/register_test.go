package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/client"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// till is a service whose instances are missed soon.
var till = client.Service{Name: "till"}

func tillInstance(id string) client.Registration {
	return client.Registration{Service: "till", Instance: id, URL: "http://127.0.0.1:9/" + id, TTL: 2 * time.Second, Drain: -1}
}

func TestRegister_is_seen_by_discovery_and_by_picks(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(client.Service{Name: "till", Description: "d", Tags: []string{"a"}, Strategy: client.LeastConnections, HealthCheck: &client.HealthCheck{Path: "/healthz", Interval: time.Minute}})
	w := watch(t, c, "till")
	if set := w.Set(); set.Strategy != client.LeastConnections || len(set.Instances) != 0 {
		t.Errorf("a service without instances is watched as %+v", *set)
	}
	reg := tillInstance("till-1")
	reg.Weight, reg.Metadata = 7, map[string]string{"zone": "x"}
	var inflight atomic.Int64
	inflight.Store(3)
	reg.Inflight = func() int { return int(inflight.Load()) }
	kept := register(t, c, reg)
	set := until(t, w, "the instance is there", func(s *client.Set) bool { return len(s.Instances) == 1 })
	if i := set.Instances[0]; i.URL != reg.URL || i.Weight != 7 || i.Metadata["zone"] != "x" || i.Incarnation != kept.State().Incarnation || i.Since.IsZero() {
		t.Errorf("discovery shows %+v", i)
	}
	picked := r.do(`mutation { pickInstance(input: {service: "till"}) { instance { instanceId } userErrors { code } } }`, nil)
	if got := find[string](picked, "pickInstance", "instance", "instanceId"); got != "till-1" {
		t.Errorf("a pick gave %v", picked)
	}
	testenv.Eventually(t, "a heartbeat reports the calls in flight", func() bool {
		data := r.do(`{ service(name: "till") { instances { nodes { inflight } } } }`, nil)
		nodes := find[[]any](data, "service", "instances", "nodes")
		return len(nodes) == 1 && find[float64](nodes[0], "inflight") == 3
	})
	first := kept.State().Seen
	testenv.Eventually(t, "heartbeats go on", func() bool { return kept.State().Seen.Sub(first) > 2*reg.TTL })
	if got := r.status("till", "till-1"); got != "PASSING" {
		t.Errorf("after two times its time to live it is %q", got)
	}
}

func TestRegister_says_at_once_what_is_refused(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	for want, reg := range map[string]client.Registration{
		client.CodeForbidden: {Service: "other", Instance: "a", URL: "http://127.0.0.1:9"},
		"INSTANCE_INVALID":   {Service: "till", Instance: "a", URL: "ftp://127.0.0.1"},
	} {
		if _, err := c.Register(t.Context(), reg); client.Code(err) != want {
			t.Errorf("registering %+v gave %v, want %s", reg, err, want)
		}
	}
	unknown := r.client(client.Config{URLs: []string{r.BaseURL}, Token: "bpk_nothing"})
	if _, err := unknown.Register(t.Context(), tillInstance("a")); client.Code(err) != client.CodeUnauthenticated {
		t.Errorf("with a wrong key: %v", err)
	}
	all := r.client(client.Config{URLs: []string{r.BaseURL}, Token: r.key("service:none")})
	if _, err := all.Register(t.Context(), client.Registration{Service: "none", Instance: "a", URL: "http://127.0.0.1:9"}); client.Code(err) != client.CodeServiceNotFound {
		t.Errorf("of a service that is not defined: %v", err)
	}
	if _, err := c.Register(t.Context(), client.Registration{Service: "till"}); err == nil {
		t.Error("a registration without id and URL is taken")
	}
}

// TestRegister_and_Watch_survive_the_end_of_the_server end the server in some way, let
// instance and watcher be without it for a while, and start it again.
func TestRegister_and_Watch_survive_the_end_of_the_server(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*registry){"it is killed": func(r *registry) { r.Kill() }, "it drains and stops": func(r *registry) { r.Stop() }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			survive(t, end)
		})
	}
}

func survive(t *testing.T, end func(*registry)) {
	t.Helper()
	r := startRegistry(t)
	c := r.define(till)
	kept := register(t, c, tillInstance("till-1"))
	w := watch(t, c, "till")
	until(t, w, "the instance is there", func(s *client.Set) bool { return ids(s) == "till-1" })
	before := time.Now()
	end(r)
	set := until(t, w, "the set is stale", func(s *client.Set) bool { return !s.Stale.IsZero() })
	if ids(set) != "till-1" || set.Trouble == nil || set.Stale.After(time.Now()) || time.Since(set.Stale) > time.Since(before)+time.Minute {
		t.Errorf("without the server the set is %+v", *set)
	}
	testenv.Eventually(t, "the instance notices", func() bool { return kept.State().Trouble != nil })
	if kept.Err() != nil {
		t.Fatalf("it gave up: %v", kept.Err())
	}
	r.Start()
	until(t, w, "the registry is reachable again", func(s *client.Set) bool { return s.Stale.IsZero() && ids(s) == "till-1" })
	testenv.Eventually(t, "heartbeats are taken again", func() bool { return kept.State().Trouble == nil })
	r.signIn()
	if got := r.status("till", "till-1"); got != "PASSING" {
		t.Errorf("after the restart it is %q", got)
	}
	// Later changes are received.
	register(t, c, tillInstance("till-2"))
	until(t, w, "another instance is received", func(s *client.Set) bool { return ids(s) == "till-1 till-2" })
}

func TestRegister_waits_for_a_server_that_is_not_there_yet(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	r.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Register(ctx, tillInstance("till-1")); err == nil || ctx.Err() == nil {
		t.Fatalf("without a server Register gave %v before its context was over", err)
	}
	if _, err := c.Watch(ctx, "till"); err == nil {
		t.Fatal("without a server Watch gave a set")
	}
	done := make(chan error, 1)
	go func() {
		kept, err := c.Register(t.Context(), tillInstance("till-1"))
		if err == nil {
			err = kept.Close(t.Context())
		}
		done <- err
	}()
	r.Start()
	if err := <-done; err != nil {
		t.Errorf("once there is a server: %v", err)
	}
}

// TestRegister_comes_back_after_its_removal removes the instance behind its back, as the
// registry does with one that is gone for long.
func TestRegister_comes_back_after_its_removal(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	kept := register(t, c, tillInstance("till-1"))
	incarnation := kept.State().Incarnation
	if err := kept.Drain(t.Context(), "for a test"); err != nil {
		t.Fatal(err)
	}
	r.do(`mutation { deregisterInstance(input: {service: "till", instanceId: "till-1"}) { userErrors { code } } }`, nil)
	testenv.Eventually(t, "it is back, and still drains", func() bool { return r.status("till", "till-1") == "DRAINING for a test" })
	if got := kept.State().Incarnation; got != incarnation {
		t.Errorf("it came back as incarnation %d, was %d: the same start", got, incarnation)
	}
}

// TestRegister_comes_back_after_a_freeze stops the instance's process for longer
// than its time to live.
func TestRegister_comes_back_after_a_freeze(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	register(t, c, tillInstance("till-0")) // so that one that vanishes is not most of them
	register(t, c, tillInstance("till-2"))
	w := watch(t, c, "till")
	frozen := spawn(t, order{[]string{r.BaseURL}, r.key("service:till"), tillInstance("till-1")})
	if line := frozen.says(); !strings.HasPrefix(line, "registered ") {
		t.Fatalf("the process says %q", line)
	}
	until(t, w, "all are there", func(s *client.Set) bool { return ids(s) == "till-0 till-1 till-2" })
	frozen.send(syscall.SIGSTOP)
	until(t, w, "the frozen one is not", func(s *client.Set) bool { return ids(s) == "till-0 till-2" })
	if got := r.status("till", "till-1"); got != "CRITICAL its lease was not renewed" {
		t.Errorf("the frozen instance is %q", got)
	}
	frozen.send(syscall.SIGCONT)
	until(t, w, "it is back", func(s *client.Set) bool { return ids(s) == "till-0 till-1 till-2" })
	if err := frozen.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if line := frozen.says(); line != "ended " {
		t.Errorf("at its end the process says %q", line)
	}
	until(t, w, "it has left", func(s *client.Set) bool { return ids(s) == "till-0 till-2" })
}

// TestRegister_ends_for_one_of_two_processes_with_one_id starts a second process
// under the id of the first, which stops for good; the second stays.
func TestRegister_ends_for_one_of_two_processes_with_one_id(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	o := order{[]string{r.BaseURL}, r.key("service:till"), tillInstance("till-1")}
	a := spawn(t, o)
	if line := a.says(); !strings.HasPrefix(line, "registered ") {
		t.Fatalf("the first says %q", line)
	}
	w := watch(t, c, "till")
	b := spawn(t, o)
	registered := b.says()
	if !strings.HasPrefix(registered, "registered ") {
		t.Fatalf("the second says %q", registered)
	}
	if line := a.says(); line != "ended STALE_INCARNATION" {
		t.Errorf("then the first says %q", line)
	}
	set := until(t, w, "the second is there", func(s *client.Set) bool {
		return len(s.Instances) == 1 && registered == fmt.Sprint("registered ", s.Instances[0].Incarnation)
	})
	_ = b.stdin.Close()
	if line := b.says(); line != "ended " {
		t.Errorf("at its end the second logged %q, want no conflict", line)
	}
	until(t, w, "it has left", func(s *client.Set) bool { return s != set && len(s.Instances) == 0 })
}

func TestRegister_starts_anew_on_a_machine_whose_clock_is_behind(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	future := time.Now().Add(time.Hour).UnixMicro()
	r.do(`mutation($i: Long!) { registerInstance(input: {service: "till", instanceId: "till-1", url: "http://127.0.0.1:9", incarnation: $i}) { userErrors { code } } }`, map[string]any{"i": future})
	if kept := register(t, c, tillInstance("till-1")); kept.State().Incarnation <= future {
		t.Errorf("it registered as %d, want more than %d", kept.State().Incarnation, future)
	}
}

func TestRegister_and_Watch_stop_when_their_key_is_revoked(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	kept := register(t, c, tillInstance("till-1"))
	w := watch(t, c, "till")
	until(t, w, "the instance is there", func(s *client.Set) bool { return ids(s) == "till-1" })
	r.revoke()
	ended(t, "the heartbeats end", kept.Done())
	if client.Code(kept.Err()) != client.CodeUnauthenticated {
		t.Errorf("the registration ended by %v", kept.Err())
	}
	ended(t, "the watch ends", w.Done())
	if client.Code(w.Err()) != client.CodeUnauthenticated {
		t.Errorf("the watch ended by %v", w.Err())
	}
	if set := w.Set(); ids(set) != "till-1" || set.Stale.IsZero() || set.Trouble == nil {
		t.Errorf("the set became %+v", *set)
	}
	if _, err := w.Next(t.Context(), w.Set()); client.Code(err) != client.CodeUnauthenticated {
		t.Errorf("Next of a watch that has ended gave %v", err)
	}
	if err := kept.Close(t.Context()); err != nil {
		t.Errorf("closing what has ended gave %v", err)
	}
}

func TestClose_drains_before_it_leaves(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	w := watch(t, c, "till")
	reg := tillInstance("till-1")
	reg.Drain = time.Second
	kept := register(t, c, reg)
	until(t, w, "the instance is there", func(s *client.Set) bool { return ids(s) == "till-1" })
	closed := make(chan error, 2)
	go func() { closed <- kept.Close(t.Context()) }()
	until(t, w, "callers see that it drains", func(s *client.Set) bool { return len(s.Instances) == 0 })
	if got := r.status("till", "till-1"); got != "DRAINING stopping" {
		t.Errorf("while it drains it is %q", got)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close = %v", err)
	}
	if got := r.status("till", "till-1"); got != "" {
		t.Errorf("after Close it is %q", got)
	}
	if err := kept.Close(t.Context()); err != nil {
		t.Errorf("the second Close = %v", err)
	}
	ended(t, "nothing is left", kept.Done())
}

func TestClose_is_bounded_while_the_server_is_away(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	kept := register(t, c, tillInstance("till-1"))
	r.Freeze()
	defer r.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := kept.Close(ctx); err == nil {
		t.Error("Close returned no error, but the registry did not receive it")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v with half a second to go", took)
	}
	ended(t, "nothing is left", kept.Done())
}

// TestRegister_and_Watch_go_on_at_another_node has two nodes on one database, and kills
// the one that is used.
func TestRegister_and_Watch_go_on_at_another_node(t *testing.T) {
	t.Parallel()
	database := "BACKPLANE_DATABASE_URL=" + testenv.Postgres(t)
	a := startRegistry(t, database)
	b := startRegistry(t, database)
	a.define(till)
	var logs syncLog
	c := a.client(client.Config{URLs: []string{a.BaseURL, b.BaseURL}, Token: a.key("service:till,services:read"), Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	kept := register(t, c, tillInstance("till-1"))
	w := watch(t, c, "till")
	until(t, w, "the instance is there", func(s *client.Set) bool { return ids(s) == "till-1" && s.Stale.IsZero() })
	a.Freeze() // worse than dead: it takes calls and does not answer
	seen := kept.State().Seen
	testenv.Eventually(t, "the other node takes heartbeats", func() bool { return kept.State().Seen.After(seen.Add(3 * time.Second)) })
	a.Kill()
	until(t, w, "the other node is connected", func(s *client.Set) bool { return s.Stale.IsZero() })
	other := b.client(client.Config{URLs: []string{b.BaseURL}, Token: b.key("service:till")})
	register(t, other, tillInstance("till-2"))
	until(t, w, "changes of the other node are received", func(s *client.Set) bool { return ids(s) == "till-1 till-2" })
	if got := b.status("till", "till-1"); got != "PASSING" {
		t.Errorf("the instance is %q", got)
	}
	if strings.Contains(logs.String(), "bpk_") {
		t.Errorf("the log contains the key:\n%s", logs.String())
	}
}
