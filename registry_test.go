package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

const (
	registerService = `mutation($in: RegisterServiceInput!) { registerService(input: $in) {
		service { id name health strategy trusted public tags metadata version healthCheck { path interval timeout } } userErrors { code path } } }`
	registerInstance = `mutation($in: RegisterInstanceInput!) { registerInstance(input: $in) {
		instance { id instanceId url weight status incarnation metadata version leaseExpiresAt service { name } } userErrors { code path } } }`
	renewInstance = `mutation($in: RenewInstanceInput!) { renewInstance(input: $in) { instance { status inflight } userErrors { code } } }`
	pickInstance  = `mutation($in: PickInstanceInput!) { pickInstance(input: $in) { instance { instanceId url } lease userErrors { code } } }`
	reportOutcome = `mutation($in: ReportOutcomeInput!) { reportOutcome(input: $in) { accepted userErrors { code } } }`
	readService   = `query($name: String!) { service(name: $name) { id name description health tags metadata strategy trusted public version
		degraded { reason since realHealthy } instances { nodes { id instanceId url status statusReason inflight } totalCount } } }`
)

type fields = map[string]any

func in(f fields) fields { return fields{"in": f} }

// service registers a service with instances i0, i1, … of the weights, and returns its id.
func service(t *testing.T, c caller, name string, ttl string, weights ...int) string {
	t.Helper()
	data := c.do(t, registerService, in(fields{"name": name}))
	id := text(data, "registerService", "service", "id")
	if id == "" {
		t.Fatalf("registerService gave %v", data)
	}
	for n, w := range weights {
		instance(t, c, name, fmt.Sprint("i", n), fields{"weight": w, "ttl": ttl})
	}
	return id
}

// instance registers an instance and returns its incarnation.
func instance(t *testing.T, c caller, service, id string, more fields) int {
	t.Helper()
	f := fields{"service": service, "instanceId": id, "url": "http://127.0.0.1:9/" + id}
	maps.Copy(f, more)
	data := c.do(t, registerInstance, in(f))
	n := number(data, "registerInstance", "instance", "incarnation")
	if n == 0 {
		t.Fatalf("registerInstance gave %v", data)
	}
	return n
}

// withKey returns the caller with an API key of the user that admin makes.
func withKey(t *testing.T, root caller, user string, scopes ...any) caller {
	t.Helper()
	id := text(root.do(t, `query($n: String!) { userByUsername(username: $n) { id } }`, fields{"n": user}), "userByUsername", "id")
	data := root.do(t, `mutation($in: CreateApiKeyInput!) { createApiKey(input: $in) { secret userErrors { code } } }`,
		in(fields{"name": "k", "scopes": scopes, "userId": id}))
	secret := text(data, "createApiKey", "secret")
	if secret == "" {
		t.Fatalf("createApiKey gave %v", data)
	}
	return caller{root.base, secret}
}

// ofRole returns somebody signed in with the role.
func ofRole(t *testing.T, p *testenv.Process, root caller, name, role string) caller {
	t.Helper()
	data := root.do(t, `mutation($in: CreateUserInput!) { createUser(input: $in) { user { id } userErrors { code } } }`,
		in(fields{"username": name, "password": "a password of mine", "roles": []any{role}}))
	if text(data, "createUser", "user", "id") == "" {
		t.Fatalf("createUser gave %v", data)
	}
	return signIn(t, p, name, "a password of mine")
}

func TestServer_registers_and_finds_services(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root := signInAdmin(t, p)
		check := fields{"path": "/healthz", "interval": "5s", "timeout": "1s"}
		data := root.do(t, registerService, in(fields{"name": "echo", "description": "says it again", "tags": []any{"b", "a"}, "metadata": fields{"team": "red"}, "strategy": "RANDOM", "healthCheck": check}))
		s := at(data, "registerService", "service")
		if got := fmt.Sprint(text(s, "health"), text(s, "strategy"), at(s, "trusted"), at(s, "tags"), at(s, "metadata"), at(s, "healthCheck"), number(s, "version")); got != "DOWNRANDOMfalse [a b] map[team:red] map[interval:5s path:/healthz timeout:1s] 1" {
			t.Errorf("the service reads %s", got)
		}
		id := text(s, "id")
		again := root.do(t, registerService, in(fields{"name": "echo", "description": "says it again", "tags": []any{"b", "a"}, "metadata": fields{"team": "red"}, "strategy": "RANDOM", "healthCheck": check}))
		if number(again, "registerService", "service", "version") != 1 || text(again, "registerService", "service", "id") != id {
			t.Errorf("registering the same again gave %v, want no change", again)
		}
		first := instance(t, root, "echo", "a", fields{"weight": 3, "metadata": fields{"zone": "x"}})
		if second := instance(t, root, "echo", "a", nil); second <= first {
			t.Errorf("another start has the incarnation %d, the first had %d", second, first)
		}
		stale := root.do(t, renewInstance, in(fields{"service": "echo", "instanceId": "a", "incarnation": first}))
		if text(stale, "renewInstance", "userErrors", 0, "code") != "STALE_INCARNATION" {
			t.Errorf("a renewal of the first start gave %v", stale)
		}
		found := at(root.do(t, readService, fields{"name": "echo"}), "service")
		if text(found, "health") != "HEALTHY" || number(found, "instances", "totalCount") != 1 || text(found, "instances", "nodes", 0, "status") != "PASSING" {
			t.Errorf("the service reads %v", found)
		}
		ins := text(found, "instances", "nodes", 0, "id")
		for _, id := range []string{id, ins} {
			if n := at(root.do(t, `query($id: ID!) { node(id: $id) { id } }`, fields{"id": id}), "node"); text(n, "id") != id {
				t.Errorf("node(%s) = %v", id, n)
			}
		}
		maintain := `mutation($on: Boolean!) { setInstanceMaintenance(input: {service: "echo", instanceId: "a", enabled: $on, reason: "disk"}) { instance { status statusReason } userErrors { code } } }`
		if got := root.do(t, maintain, fields{"on": true}); text(got, "setInstanceMaintenance", "instance", "status") != "MAINTENANCE" || text(got, "setInstanceMaintenance", "instance", "statusReason") != "disk" {
			t.Errorf("maintenance gave %v", got)
		}
		if got := root.refusal(t, pickInstance, in(fields{"service": "echo"})); got != "NO_INSTANCE" {
			t.Errorf("a pick gave %q, want NO_INSTANCE", got)
		}
		root.do(t, maintain, fields{"on": false})
		update := `mutation($id: ID!, $v: Int) { updateService(input: {id: $id, ifVersion: $v, strategy: LEAST_CONNECTIONS, healthCheck: null}) { service { strategy version healthCheck { path } } userErrors { code } } }`
		if got := root.do(t, update, fields{"id": id, "v": 7}); text(got, "updateService", "userErrors", 0, "code") != "VERSION_CONFLICT" || number(got, "updateService", "service", "version") != 1 {
			t.Errorf("an update of another version gave %v", got)
		}
		if got := root.do(t, update, fields{"id": id, "v": 1}); text(got, "updateService", "service", "strategy") != "LEAST_CONNECTIONS" || at(got, "updateService", "service", "healthCheck") != nil {
			t.Errorf("the update gave %v", got)
		}
		types, _ := root.events(t, 6, fields{"types": []any{"SERVICE_REGISTERED", "SERVICE_UPDATED", "INSTANCE_REGISTERED", "INSTANCE_STATUS_CHANGED"}})
		if want := "SERVICE_REGISTERED INSTANCE_REGISTERED INSTANCE_REGISTERED INSTANCE_STATUS_CHANGED INSTANCE_STATUS_CHANGED SERVICE_UPDATED"; strings.Join(types, " ") != want {
			t.Errorf("the log has %v, want %s", types, want)
		}
		end := `mutation($id: ID!) { deregisterService(input: {id: $id}) { service { id } userErrors { code } } }`
		root.do(t, end, fields{"id": id})
		if got := at(root.do(t, readService, fields{"name": "echo"}), "service"); got != nil {
			t.Errorf("after its end the service reads %v", got)
		}
		if got := root.do(t, registerInstance, in(fields{"service": "echo", "instanceId": "a", "url": "http://127.0.0.1:9"})); text(got, "registerInstance", "userErrors", 0, "code") != "SERVICE_NOT_FOUND" {
			t.Errorf("an instance of it gave %v", got)
		}
		if back := service(t, root, "echo", "30s"); back != id {
			t.Errorf("when it comes back it has the id %s, had %s", back, id)
		}
	})
}

// TestServer_keeps_the_registry_s_rules tries to break each of them.
func TestServer_keeps_the_registry_s_rules(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root := signInAdmin(t, p)
		id := service(t, root, "echo", "30s", 1, 1)
		service(t, root, "other", "30s", 1)
		customer, staff, robot := signUp(t, p, "carol"), ofRole(t, p, root, "stan", "STAFF"), ofRole(t, p, root, "robot", "SERVICE")
		own, foreign := withKey(t, root, "robot", "service:echo"), withKey(t, root, "robot", "service:other")
		reader, shopper := withKey(t, root, "robot", "services:read"), withKey(t, root, "stan", "orders:read")

		seen := at(customer.do(t, readService, fields{"name": "echo"}), "service")
		if text(seen, "name") != "echo" || text(seen, "health") != "HEALTHY" {
			t.Errorf("a customer reads %v, want name and health", seen)
		}
		for _, field := range []string{"tags", "metadata", "strategy", "trusted", "public", "degraded", "instances"} {
			if v := at(seen, field); v != nil {
				t.Errorf("a customer reads %s: %v", field, v)
			}
		}
		ins := text(root.do(t, readService, fields{"name": "echo"}), "service", "instances", "nodes", 0, "id")
		node := `query($id: ID!) { node(id: $id) { ... on ServiceInstance { url } } }`
		if n := at(customer.do(t, node, fields{"id": ins}), "node"); n != nil {
			t.Errorf("a customer reads the instance by its id: %v", n)
		}
		if s := at(stranger(p).do(t, readService, fields{"name": "echo"}), "service"); s != nil {
			t.Errorf("a stranger reads %v", s)
		}
		for who, c := range map[string]caller{"staff": staff, "a service": robot, "a service's key": own, "a key of another service": foreign, "a reader's key": reader} {
			if got := at(c.do(t, readService, fields{"name": "echo"}), "service"); number(got, "instances", "totalCount") != 2 || text(got, "instances", "nodes", 0, "url") == "" {
				t.Errorf("%s reads %v, want the instances", who, got)
			}
			if picked := c.do(t, pickInstance, in(fields{"service": "echo"})); text(picked, "pickInstance", "lease") == "" {
				t.Errorf("%s picks %v", who, picked)
			}
		}
		for who, c := range map[string]caller{"a customer": customer, "a key for orders": shopper} {
			for call, vars := range map[string]fields{
				pickInstance: in(fields{"service": "echo"}), reportOutcome: in(fields{"lease": "x", "ok": true}),
			} {
				if got := c.refusal(t, call, vars); got != "FORBIDDEN" {
					t.Errorf("%s calls %.60s: %q, want FORBIDDEN", who, call, got)
				}
			}
		}
		manage := map[string]fields{
			registerService:  in(fields{"name": "echo", "description": "mine now"}),
			registerInstance: in(fields{"service": "echo", "instanceId": "evil", "url": "http://evil.example"}),
			renewInstance:    in(fields{"service": "echo", "instanceId": "i0", "incarnation": 1 << 50}),
			`mutation($in: UpdateServiceInput!) { updateService(input: $in) { userErrors { code } } }`:                   in(fields{"id": id, "description": "d"}),
			`mutation($in: DeregisterServiceInput!) { deregisterService(input: $in) { userErrors { code } } }`:           in(fields{"id": id}),
			`mutation($in: DeregisterInstanceInput!) { deregisterInstance(input: $in) { userErrors { code } } }`:         in(fields{"service": "echo", "instanceId": "i0"}),
			`mutation($in: DrainInstanceInput!) { drainInstance(input: $in) { userErrors { code } } }`:                   in(fields{"service": "echo", "instanceId": "i0"}),
			`mutation($in: SetInstanceMaintenanceInput!) { setInstanceMaintenance(input: $in) { userErrors { code } } }`: in(fields{"service": "echo", "instanceId": "i0"}),
		}
		for who, c := range map[string]caller{"a customer": customer, "staff": staff, "a service": robot, "a key of another service": foreign, "a reader's key": reader} {
			for call, vars := range manage {
				if got := c.refusal(t, call, vars); got != "FORBIDDEN" {
					t.Errorf("%s calls %.70s: %q, want FORBIDDEN", who, call, got)
				}
			}
		}
		for call, vars := range manage {
			if got := stranger(p).refusal(t, call, vars); got != "UNAUTHENTICATED" {
				t.Errorf("a stranger calls %.70s: %q, want UNAUTHENTICATED", call, got)
			}
		}
		instance(t, own, "echo", "mine", nil)
		trust := `mutation($id: ID!) { updateService(input: {id: $id, trusted: true}) { service { trusted } userErrors { code } } }`
		if got := own.refusal(t, trust, fields{"id": id}); got != "FORBIDDEN" {
			t.Errorf("a service's key trusts itself: %q, want FORBIDDEN", got)
		}
		if got := root.do(t, trust, fields{"id": id}); at(got, "updateService", "service", "trusted") != true {
			t.Errorf("ADMIN trusts it: %v", got)
		}
		open := `mutation($id: ID!) { updateService(input: {id: $id, public: true}) { service { public } userErrors { code } } }`
		if got := own.refusal(t, open, fields{"id": id}); got != "FORBIDDEN" {
			t.Errorf("a service's key opens it to strangers: %q, want FORBIDDEN", got)
		}
		if got := root.do(t, open, fields{"id": id}); at(got, "updateService", "service", "public") != true {
			t.Errorf("ADMIN opens it: %v", got)
		}
		mint := `mutation { createApiKey(input: {name: "k", scopes: ["service:echo"]}) { userErrors { code } } }`
		for who, c := range map[string]caller{"a customer": customer, "staff": staff, "a service": robot} {
			if got := c.refusal(t, mint, nil); got != "FORBIDDEN" {
				t.Errorf("%s makes itself a key of the service: %q, want FORBIDDEN", who, got)
			}
		}
		hidden := `query { events(types: [SERVICE_REGISTERED, INSTANCE_REGISTERED]) { totalCount } }`
		for who, c := range map[string]caller{"a customer": customer, "a key for orders": shopper} {
			if n := number(c.do(t, hidden, nil), "events", "totalCount"); n != 0 {
				t.Errorf("%s sees %d events of the registry", who, n)
			}
		}
		robot.events(t, 6, fields{"types": []any{"SERVICE_REGISTERED", "SERVICE_UPDATED", "INSTANCE_REGISTERED"}})
	})
}

func TestServer_takes_each_lease_of_a_pick_once_and_from_its_picker(t *testing.T) {
	t.Parallel()
	p := start(t, databases["SQLite"](t))
	root := signInAdmin(t, p)
	service(t, root, "echo", "30s", 1)
	robot, other := ofRole(t, p, root, "robot", "SERVICE"), ofRole(t, p, root, "other", "SERVICE")
	key := withKey(t, root, "robot", "services:read")
	pick := func() string {
		return text(robot.do(t, pickInstance, in(fields{"service": "echo"})), "pickInstance", "lease")
	}
	report := func(c caller, lease string) string {
		return text(c.do(t, reportOutcome, in(fields{"lease": lease, "ok": true, "latencyMs": 12})), "reportOutcome", "userErrors", 0, "code")
	}
	lease := pick()
	for who, c := range map[string]caller{"another service": other, "the picker's own key": key, "ADMIN": root} {
		if got := report(c, lease); got != "PICK_LEASE_INVALID" {
			t.Errorf("%s reports with it: %q", who, got)
		}
	}
	for name, forged := range map[string]string{"another last letter": lease[:len(lease)-2] + "AA", "nothing": "", "a longer one": lease + "AAAA", "half": lease[:20]} {
		if got := report(robot, forged); got != "PICK_LEASE_INVALID" {
			t.Errorf("%s gave %q", name, got)
		}
	}
	if got := report(robot, lease); got != "" {
		t.Errorf("the picker itself reports: %q", got)
	}
	if got := report(robot, lease); got != "PICK_LEASE_INVALID" {
		t.Errorf("the second time: %q, want PICK_LEASE_INVALID", got)
	}
	if got := text(robot.do(t, pickInstance, in(fields{"service": "echo", "strategy": "CONSISTENT_HASH"})), "pickInstance", "userErrors", 0, "code"); got != "BAD_INPUT" {
		t.Errorf("CONSISTENT_HASH without a key gave %q, want BAD_INPUT", got)
	}
	if got := text(robot.do(t, pickInstance, in(fields{"service": "none"})), "pickInstance", "userErrors", 0, "code"); got != "SERVICE_NOT_FOUND" {
		t.Errorf("an unknown service gave %q", got)
	}
}

func TestServer_ejects_an_instance_whose_calls_fail(t *testing.T) {
	t.Parallel()
	p := start(t, databases["SQLite"](t))
	root := signInAdmin(t, p)
	service(t, root, "echo", "30s", 1, 1, 1)
	counts := map[string]int{}
	for range 60 {
		picked := at(root.do(t, pickInstance, in(fields{"service": "echo"})), "pickInstance")
		id := text(picked, "instance", "instanceId")
		counts[id]++
		root.do(t, reportOutcome, in(fields{"lease": text(picked, "lease"), "ok": id != "i1"}))
	}
	if counts["i1"] > 6 || counts["i0"] < 20 {
		t.Errorf("60 picks gave %v, want i1 ejected after 5 failures", counts)
	}
}

func TestServer_demo_has_services_with_live_instances(t *testing.T) {
	t.Parallel()
	database := databases["SQLite"](t)
	p := testenv.ServerWith(t, []string{"--demo"}, settings(database)...)
	var words []string // behind the first ADMIN: its name and its password
	eventually(t, "the server says how to sign in", func() bool {
		_, login, _ := strings.Cut(p.Logs(), "ADMIN")
		words = strings.Fields(login)
		return len(words) > 3 // and the next line has begun
	})
	root := signIn(t, p, words[0], words[1])
	for name, n := range map[string]int{"echo": 3, "mirror": 2} {
		eventually(t, name+" has its instances", func() bool {
			s := at(root.do(t, readService, fields{"name": name}), "service")
			return text(s, "health") == "HEALTHY" && number(s, "instances", "totalCount") == n
		})
	}
	url := text(root.do(t, pickInstance, in(fields{"service": "echo"})), "pickInstance", "instance", "url")
	resp, err := http.Get(url + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), `"path":"/hello"`) {
		t.Errorf("the picked instance says %s", body)
	}
	if out := runCommand(t, database, "services"); !strings.Contains(out, "echo") || !strings.Contains(out, "HEALTHY") {
		t.Errorf("backplane services prints\n%s", out)
	}
	if out := runCommand(t, database, "services", "echo"); strings.Count(out, "PASSING") != 3 {
		t.Errorf("backplane services echo prints\n%s", out)
	}
	if out := runCommand(t, database, "pick", "--n=6", "echo"); strings.Count(out, "http://127.0.0.1:") != 6 {
		t.Errorf("backplane pick --n=6 echo prints\n%s", out)
	}
	p.Stop()
	if out := runCommand(t, database, "services", "echo"); strings.Contains(out, "PASSING") {
		t.Errorf("after the end of the server its instances are still there\n%s", out)
	}
}

// TestServer_checks_instances registers one that answers its checks and one
// that stops answering them, although both renew their leases.
func TestServer_checks_instances(t *testing.T) {
	t.Parallel()
	p := start(t, databases["SQLite"](t))
	root := signInAdmin(t, p)
	var broken atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/b/healthz" && broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	check := fields{"path": "/healthz", "interval": "1s", "timeout": "500ms", "healthyThreshold": 1, "unhealthyThreshold": 2}
	root.do(t, registerService, in(fields{"name": "echo", "healthCheck": check}))
	for _, id := range []string{"a", "b", "c"} {
		instance(t, root, "echo", id, fields{"url": s.URL + "/" + id})
	}
	instance(t, root, "echo", "own", fields{"url": p.BaseURL}) // our own listener is never called
	status := func(id string) string {
		nodes, _ := at(root.do(t, readService, fields{"name": "echo"}), "service", "instances", "nodes").([]any)
		for _, n := range nodes {
			if text(n, "instanceId") == id {
				return strings.TrimSpace(text(n, "status") + " " + text(n, "statusReason"))
			}
		}
		return ""
	}
	broken.Store(true)
	eventually(t, "b is critical", func() bool { return status("b") == "CRITICAL its check failed: status 500" })
	eventually(t, "our own listener is refused", func() bool { return status("own") == "CRITICAL its check failed: this address may not be called" })
	if got := status("a"); got != "PASSING" {
		t.Errorf("a is %s", got)
	}
	broken.Store(false)
	eventually(t, "b passes", func() bool { return status("b") == "PASSING" })
}
