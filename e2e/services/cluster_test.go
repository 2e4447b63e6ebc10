package services

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// databaseLink is a proxy in front of the database, which a test may cut.
type databaseLink struct {
	target string
	ln     net.Listener
	mu     sync.Mutex
	conns  map[net.Conn]bool
	isCut  bool
}

// newDatabaseLink returns the URL of the database through a link that can be cut.
func newDatabaseLink(t *testing.T, database string) (string, *databaseLink) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &databaseLink{target: u.Host, ln: ln, conns: map[net.Conn]bool{}}
	u.Host = ln.Addr().String()
	go l.serve()
	t.Cleanup(func() { ln.Close(); l.cut() })
	return u.String(), l
}

func (l *databaseLink) serve() {
	for {
		near, err := l.ln.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil || !l.track(near, far) {
			near.Close()
			continue
		}
		go func() { _, _ = io.Copy(far, near); near.Close(); far.Close() }()
		go func() { _, _ = io.Copy(near, far); near.Close(); far.Close() }()
	}
}

func (l *databaseLink) track(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.conns[c] = true
		if l.isCut {
			c.Close()
		}
	}
	return !l.isCut
}

func (l *databaseLink) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	for c := range l.conns {
		c.Close()
	}
	clear(l.conns)
}

func (l *databaseLink) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = false
}

// heartbeats renews the leases of instances until their contexts end.
type heartbeats struct {
	t     *testing.T
	nodes []harness.Caller
	name  string
	mu    sync.Mutex
	stop  map[string]context.CancelFunc
	wg    sync.WaitGroup
}

func newHeartbeats(t *testing.T, name string, nodes ...harness.Caller) *heartbeats {
	b := &heartbeats{t: t, nodes: nodes, name: name, stop: map[string]context.CancelFunc{}}
	t.Cleanup(func() { b.stopFirst(1000); b.wg.Wait() })
	return b
}

func (b *heartbeats) start(id string, incarnation int, every time.Duration) {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.mu.Lock()
	b.stop[id] = cancel
	b.mu.Unlock()
	b.wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			_, _ = b.nodes[n%len(b.nodes)].Send(ctx, harness.RenewInstance, harness.Input(harness.Fields{"service": b.name, "instanceId": id, "incarnation": incarnation, "inflight": 1}))
			harness.Pause(ctx, every)
		}
	})
}

// stopFirst ends the heartbeats of n instances.
func (b *heartbeats) stopFirst(n int) (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, stop := range b.stop {
		if len(ids) == n {
			break
		}
		stop()
		delete(b.stop, id)
		ids = append(ids, id)
	}
	return ids
}

// startCluster starts nodes on one PostgreSQL and returns ADMIN at each.
func startCluster(t *testing.T, database string, n int) (nodes []*testenv.Process, roots []harness.Caller) {
	t.Helper()
	harness.RunCommand(t, database, "migrate")
	for range n {
		nodes = append(nodes, testenv.Server(t, harness.Settings(database)...))
		roots = append(roots, harness.SignInAdmin(t, nodes[len(nodes)-1]))
	}
	return nodes, roots
}

// awaitAllNodes waits until a service reads like that on every node.
func awaitAllNodes(t *testing.T, roots []harness.Caller, name, what string, is func(service any) bool) {
	t.Helper()
	for n, root := range roots {
		harness.Eventually(t, fmt.Sprintf("node %d says that %s", n, what), func() bool {
			return is(harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": name}), "service"))
		})
	}
}

func TestCluster_picks_fairly_through_changing_nodes(t *testing.T) {
	t.Parallel()
	_, roots := startCluster(t, testenv.Postgres(t), 3)
	harness.CreateService(t, roots[0], "echo", "10m", 1, 2, 3)
	awaitAllNodes(t, roots, "echo", "all three are there", func(s any) bool { return harness.Number(s, "instances", "totalCount") == 3 })
	picks := harness.Size(6000, 60_000)
	bounds := map[string]float64{"ROUND_ROBIN": 0.01, "RANDOM": 0.03}
	if picks < 60_000 {
		bounds["RANDOM"] = 0.12 // four deviations of so few; 60,000 keep within 3 %
	}
	for strategy, bound := range bounds {
		counts := pickConcurrently(t, roots, picks, strategy)
		for n, weight := range []int{1, 2, 3} {
			got, want := counts[fmt.Sprint("i", n)], float64(picks*weight)/6
			if off := math.Abs(float64(got)-want) / want; off > bound {
				t.Errorf("%s: the weight %d got %d of %d picks, %.1f %% off; at most %.0f %%", strategy, weight, got, picks, 100*off, 100*bound)
			}
		}
	}
}

// pickConcurrently picks through the nodes in turn, many at a time, and reports each.
func pickConcurrently(t *testing.T, roots []harness.Caller, picks int, strategy string) map[string]int {
	t.Helper()
	const batch = 10
	query := "mutation($in: PickInstanceInput!) {"
	for n := range batch {
		query += fmt.Sprintf(" p%d: pickInstance(input: $in) { instance { instanceId } lease }", n)
	}
	counts, mu, next := map[string]int{}, sync.Mutex{}, atomic.Int64{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := next.Add(1); int(n) <= picks/batch; n = next.Add(1) {
				a, err := roots[int(n)%len(roots)].Send(t.Context(), query+"}", harness.Input(harness.Fields{"service": "echo", "strategy": strategy}))
				if err != nil || len(a.Errors) > 0 {
					t.Errorf("picking: %v %+v", err, a)
					return
				}
				mu.Lock()
				for _, p := range a.Data {
					counts[harness.Text(p, "instance", "instanceId")]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return counts
}

// TestCluster_counts_the_calls_of_all_nodes picks by least connections at three
// nodes and reports nothing. Each node receives the others' calls within the
// exchange delay of two seconds: after that the spread per weight is at most one for each node.
func TestCluster_counts_the_calls_of_all_nodes(t *testing.T) {
	t.Parallel()
	_, roots := startCluster(t, testenv.Postgres(t), 3)
	harness.CreateService(t, roots[0], "echo", "10m", 1, 1, 1)
	awaitAllNodes(t, roots, "echo", "all three are there", func(s any) bool { return harness.Number(s, "instances", "totalCount") == 3 })
	counts, leases := map[string]int{}, []string{}
	for _, root := range roots {
		for range 7 {
			p := harness.At(root.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo", "strategy": "LEAST_CONNECTIONS"})), "pickInstance")
			counts[harness.Text(p, "instance", "instanceId")]++
			leases = append(leases, harness.Text(p, "lease"))
		}
		harness.Pause(t.Context(), 3*time.Second) // longer than the exchange delay
	}
	for id, n := range counts {
		if n < 6 || n > 8 {
			t.Errorf("%s has %d of 21 calls under way at three nodes, want 7 give or take one: %v", id, n, counts)
		}
	}
	// Outcomes reported to another node than the one that picked count there, once.
	for _, lease := range leases {
		report := func(c harness.Caller) string {
			return harness.Text(c.Do(t, harness.ReportOutcome, harness.Input(harness.Fields{"lease": lease, "ok": true})), "reportOutcome", "userErrors", 0, "code")
		}
		if got := report(roots[2]); got != "" {
			t.Errorf("reporting to another node gave %s", got)
		}
		if got := report(roots[2]); got != "PICK_LEASE_INVALID" {
			t.Errorf("reporting to it twice gave %q", got)
		}
	}
}

// TestCluster_keeps_the_last_good_set_when_most_heartbeats_are_lost cuts 80 % of them.
func TestCluster_keeps_the_last_good_set_when_most_heartbeats_are_lost(t *testing.T) {
	t.Parallel()
	_, roots := startCluster(t, testenv.Postgres(t), 3)
	id := harness.CreateService(t, roots[0], "echo", "2s")
	b := newHeartbeats(t, "echo", roots...)
	incarnations := map[string]int{}
	for n := range 10 {
		name := fmt.Sprint("i", n)
		incarnations[name] = harness.CreateInstance(t, roots[n%3], "echo", name, harness.Fields{"ttl": "2s"})
		b.start(name, incarnations[name], 500*time.Millisecond)
	}
	awaitAllNodes(t, roots, "echo", "all ten are there", func(s any) bool { return harness.Number(s, "instances", "totalCount") == 10 })
	after := roots[1].LogHead(t)
	cut := b.stopFirst(8)
	awaitAllNodes(t, roots, "echo", "it is degraded", func(s any) bool {
		return harness.Text(s, "health") == "DEGRADED" && harness.Text(s, "degraded", "reason") == "MASS_FAILURE" && harness.Number(s, "degraded", "realHealthy") == 2
	})
	for n, root := range roots {
		seen := map[string]bool{}
		for range 40 {
			seen[harness.Text(root.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})), "pickInstance", "instance", "instanceId")] = true
		}
		if len(seen) != 10 {
			t.Errorf("node %d picks %d of the ten, want the last good set", n, len(seen))
		}
	}
	for _, name := range cut {
		b.start(name, incarnations[name], 500*time.Millisecond)
	}
	awaitAllNodes(t, roots, "echo", "the truth is back", func(s any) bool {
		return harness.Text(s, "health") == "HEALTHY" && harness.At(s, "degraded") == nil
	})
	passing := `query { service(name: "echo") { instances(status: PASSING) { totalCount } } }`
	for n, root := range roots {
		harness.Eventually(t, fmt.Sprintf("node %d sees all ten pass", n), func() bool {
			return harness.Number(root.Do(t, passing, nil), "service", "instances", "totalCount") == 10
		})
	}
	types, _ := roots[2].Events(t, 2, harness.Fields{"after": after, "types": []any{"SERVICE_UPDATED"}, "subject": id})
	if len(types) != 2 {
		t.Errorf("degradation began and ended with %d events, want 2", len(types))
	}
}

// TestCluster_goes_on_without_the_database cuts the connections to it.
func TestCluster_goes_on_without_the_database(t *testing.T) {
	t.Parallel()
	database, way := newDatabaseLink(t, testenv.Postgres(t))
	_, roots := startCluster(t, database, 2)
	harness.CreateService(t, roots[0], "echo", "2s")
	b := newHeartbeats(t, "echo", roots...)
	for n := range 3 {
		name := fmt.Sprint("i", n)
		b.start(name, harness.CreateInstance(t, roots[0], "echo", name, harness.Fields{"ttl": "2s"}), 300*time.Millisecond)
	}
	awaitAllNodes(t, roots, "echo", "all are there", func(s any) bool { return harness.Number(s, "instances", "totalCount") == 3 })
	key := harness.WithAPIKey(t, roots[0], harness.AdminName, "services:read")
	key.Do(t, harness.ReadService, harness.Fields{"name": "echo"})

	way.cut()
	over := time.Now().Add(time.Duration(harness.Size(6, 30)) * time.Second)
	sawStale, refused := false, false
	for time.Now().Before(over) {
		for n, c := range append([]harness.Caller{key}, roots...) {
			p := c.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"}))
			lease := harness.Text(p, "pickInstance", "lease")
			if lease == "" {
				t.Fatalf("caller %d picked %v without the database", n, p)
			}
			c.Do(t, harness.ReportOutcome, harness.Input(harness.Fields{"lease": lease, "ok": true}))
			s := harness.At(c.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service")
			if harness.Number(s, "instances", "totalCount") != 3 {
				t.Fatalf("caller %d reads %v without the database", n, s)
			}
			sawStale = sawStale || harness.Text(s, "degraded", "reason") == "STALE"
		}
		for _, call := range []string{`{ viewer { user { id } } }`, `{ products { totalCount } }`, `{ orders { totalCount } }`} {
			if got := roots[0].RefusalCode(t, call, nil); sawStale && got != "UNAVAILABLE" {
				t.Fatalf("without the database %s gave %q, want UNAVAILABLE", call, got)
			}
		}
		got := roots[0].RefusalCode(t, harness.RegisterInstance, harness.Input(harness.Fields{"service": "echo", "instanceId": "late", "url": "http://127.0.0.1:9"}))
		refused = refused || got == "UNAVAILABLE"
		harness.Pause(t.Context(), 200*time.Millisecond)
	}
	if !sawStale || !refused {
		t.Errorf("without the database: marked as stale %v, registering refused %v; want both", sawStale, refused)
	}
	way.restore()
	awaitAllNodes(t, roots, "echo", "all is well", func(s any) bool { return harness.Text(s, "health") == "HEALTHY" && harness.At(s, "degraded") == nil })
	critical := harness.Number(roots[0].Do(t, `{ events(types: [INSTANCE_STATUS_CHANGED, INSTANCE_DEREGISTERED]) { totalCount } }`, nil), "events", "totalCount")
	if critical != 0 {
		t.Errorf("%d changes of status: instances that went on renewing lost their lease although no node could write renewals", critical)
	}
	harness.CreateInstance(t, roots[1], "echo", "late", nil)
}

// TestServer_keeps_instances_with_short_leases_over_a_restart restarts the only
// node: no instance could renew meanwhile.
func TestServer_keeps_instances_with_short_leases_over_a_restart(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		harness.CreateService(t, root, "echo", "2s")
		b := newHeartbeats(t, "echo", root)
		for n := range 3 {
			name := fmt.Sprint("i", n)
			b.start(name, harness.CreateInstance(t, root, "echo", name, harness.Fields{"ttl": "2s"}), 300*time.Millisecond)
		}
		for _, end := range []func(){p.Stop, p.Kill} {
			end()
			harness.Pause(t.Context(), 5*time.Second) // every lease ends
			p.Start()
			for range 10 {
				s := harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service")
				if harness.Text(s, "health") != "HEALTHY" || harness.Number(s, "instances", "totalCount") != 3 {
					t.Fatalf("after a restart the service reads %v", s)
				}
				harness.Pause(t.Context(), 500*time.Millisecond)
			}
		}
		if n := harness.Number(root.Do(t, `{ events(types: [INSTANCE_STATUS_CHANGED]) { totalCount } }`, nil), "events", "totalCount"); n != 0 {
			t.Errorf("%d changes of status around restarts", n)
		}
	})
}

// TestServer_removes_instances_without_heartbeats lets one of three instances stop without deregistering.
func TestServer_removes_instances_without_heartbeats(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		harness.CreateService(t, root, "echo", "10m", 1, 1)
		root.Events(t, 2, harness.Fields{"types": []any{"INSTANCE_REGISTERED"}})
		after := root.LogHead(t)
		incarnation := harness.CreateInstance(t, root, "echo", "gone", harness.Fields{"ttl": "2s"})
		l := harness.Subscribe(t, "event stream", root, `subscription($after: Cursor) { serviceEvents(service: "echo", after: $after) { cursor type data } }`, harness.Fields{"after": after})
		for _, want := range []string{"INSTANCE_REGISTERED PASSING", "INSTANCE_STATUS_CHANGED CRITICAL", "INSTANCE_DEREGISTERED CRITICAL"} {
			m := harness.MustNext(t, l)
			if got := strings.Join([]string{harness.Text(m.Event, "type"), harness.Text(m.Event, "data", "status")}, " "); got != want {
				t.Errorf("received %s, want %s", got, want)
			}
		}
		got := root.Do(t, harness.RenewInstance, harness.Input(harness.Fields{"service": "echo", "instanceId": "gone", "incarnation": incarnation}))
		if code := harness.Text(got, "renewInstance", "userErrors", 0, "code"); code != "INSTANCE_NOT_FOUND" {
			t.Errorf("a late renewal gave %q, want INSTANCE_NOT_FOUND", code)
		}
		if next := harness.CreateInstance(t, root, "echo", "gone", nil); next <= incarnation {
			t.Errorf("it comes back as incarnation %d, was %d", next, incarnation)
		}
	})
}

// TestServer_notifies_all_watchers_of_a_change has many clients
// follow one service, each on a connection of its own.
func TestServer_notifies_all_watchers_of_a_change(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	harness.CreateService(t, root, "echo", "10m", 1)
	const each = 2400 // below the limit of connections of a user
	watchers := harness.Size(300, 10_000)
	after := root.LogHead(t)
	var watching sync.WaitGroup
	var lost atomic.Int64
	for n := 0; n < watchers; n += each {
		staff := harness.CreateUserWithRole(t, p, root, fmt.Sprint("staff", n), "STAFF")
		for range min(each, watchers-n) {
			l := harness.Subscribe(t, "event stream", staff, `subscription($after: Cursor) { serviceEvents(service: "echo", after: $after) { cursor type subject { id } } }`, harness.Fields{"after": after})
			watching.Go(func() {
				m, err := l.Next()
				for err == nil && m.Event == nil && m.End+m.Code == "" { // a keep-alive with a cursor
					m, err = l.Next()
				}
				if err != nil || harness.Text(m.Event, "type") != "INSTANCE_STATUS_CHANGED" || harness.Text(m.Event, "subject", "id") == "" {
					lost.Add(1)
				}
			})
		}
	}
	began := time.Now()
	root.Do(t, `mutation { drainInstance(input: {service: "echo", instanceId: "i0"}) { userErrors { code } } }`, nil)
	watching.Wait()
	took := time.Since(began)
	t.Logf("%d watchers received a change within %v", watchers, took)
	if lost.Load() > 0 || testenv.Soak() && took > time.Second {
		t.Errorf("%d of %d watchers received a change after %v, want all within a second", int64(watchers)-lost.Load(), watchers, took)
	}
}
