package services

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestServer_registers_and_finds_services(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		check := harness.Fields{"path": "/healthz", "interval": "5s", "timeout": "1s"}
		data := root.Do(t, harness.RegisterService, harness.Input(harness.Fields{"name": "echo", "description": "says it again", "tags": []any{"b", "a"}, "metadata": harness.Fields{"team": "red"}, "strategy": "RANDOM", "healthCheck": check}))
		s := harness.At(data, "registerService", "service")
		if got := fmt.Sprint(harness.Text(s, "health"), harness.Text(s, "strategy"), harness.At(s, "trusted"), harness.At(s, "tags"), harness.At(s, "metadata"), harness.At(s, "healthCheck"), harness.Number(s, "version")); got != "DOWNRANDOMfalse [a b] map[team:red] map[interval:5s path:/healthz timeout:1s] 1" {
			t.Errorf("the service reads %s", got)
		}
		id := harness.Text(s, "id")
		again := root.Do(t, harness.RegisterService, harness.Input(harness.Fields{"name": "echo", "description": "says it again", "tags": []any{"b", "a"}, "metadata": harness.Fields{"team": "red"}, "strategy": "RANDOM", "healthCheck": check}))
		if harness.Number(again, "registerService", "service", "version") != 1 || harness.Text(again, "registerService", "service", "id") != id {
			t.Errorf("registering the same again gave %v, want no change", again)
		}
		first := harness.CreateInstance(t, root, "echo", "a", harness.Fields{"weight": 3, "metadata": harness.Fields{"zone": "x"}})
		if second := harness.CreateInstance(t, root, "echo", "a", nil); second <= first {
			t.Errorf("another start has the incarnation %d, the first had %d", second, first)
		}
		stale := root.Do(t, harness.RenewInstance, harness.Input(harness.Fields{"service": "echo", "instanceId": "a", "incarnation": first}))
		if harness.Text(stale, "renewInstance", "userErrors", 0, "code") != "STALE_INCARNATION" {
			t.Errorf("a renewal of the first start gave %v", stale)
		}
		found := harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service")
		if harness.Text(found, "health") != "HEALTHY" || harness.Number(found, "instances", "totalCount") != 1 || harness.Text(found, "instances", "nodes", 0, "status") != "PASSING" {
			t.Errorf("the service reads %v", found)
		}
		ins := harness.Text(found, "instances", "nodes", 0, "id")
		for _, id := range []string{id, ins} {
			if n := harness.At(root.Do(t, `query($id: ID!) { node(id: $id) { id } }`, harness.Fields{"id": id}), "node"); harness.Text(n, "id") != id {
				t.Errorf("node(%s) = %v", id, n)
			}
		}
		maintain := `mutation($on: Boolean!) { setInstanceMaintenance(input: {service: "echo", instanceId: "a", enabled: $on, reason: "disk"}) { instance { status statusReason } userErrors { code } } }`
		if got := root.Do(t, maintain, harness.Fields{"on": true}); harness.Text(got, "setInstanceMaintenance", "instance", "status") != "MAINTENANCE" || harness.Text(got, "setInstanceMaintenance", "instance", "statusReason") != "disk" {
			t.Errorf("maintenance gave %v", got)
		}
		if got := root.RefusalCode(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})); got != "NO_INSTANCE" {
			t.Errorf("a pick gave %q, want NO_INSTANCE", got)
		}
		root.Do(t, maintain, harness.Fields{"on": false})
		update := `mutation($id: ID!, $v: Int) { updateService(input: {id: $id, ifVersion: $v, strategy: LEAST_CONNECTIONS, healthCheck: null}) { service { strategy version healthCheck { path } } userErrors { code } } }`
		if got := root.Do(t, update, harness.Fields{"id": id, "v": 7}); harness.Text(got, "updateService", "userErrors", 0, "code") != "VERSION_CONFLICT" || harness.Number(got, "updateService", "service", "version") != 1 {
			t.Errorf("an update of another version gave %v", got)
		}
		if got := root.Do(t, update, harness.Fields{"id": id, "v": 1}); harness.Text(got, "updateService", "service", "strategy") != "LEAST_CONNECTIONS" || harness.At(got, "updateService", "service", "healthCheck") != nil {
			t.Errorf("the update gave %v", got)
		}
		types, _ := root.Events(t, 6, harness.Fields{"types": []any{"SERVICE_REGISTERED", "SERVICE_UPDATED", "INSTANCE_REGISTERED", "INSTANCE_STATUS_CHANGED"}})
		if want := "SERVICE_REGISTERED INSTANCE_REGISTERED INSTANCE_REGISTERED INSTANCE_STATUS_CHANGED INSTANCE_STATUS_CHANGED SERVICE_UPDATED"; strings.Join(types, " ") != want {
			t.Errorf("the log has %v, want %s", types, want)
		}
		end := `mutation($id: ID!) { deregisterService(input: {id: $id}) { service { id } userErrors { code } } }`
		root.Do(t, end, harness.Fields{"id": id})
		if got := harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service"); got != nil {
			t.Errorf("after its end the service reads %v", got)
		}
		if got := root.Do(t, harness.RegisterInstance, harness.Input(harness.Fields{"service": "echo", "instanceId": "a", "url": "http://127.0.0.1:9"})); harness.Text(got, "registerInstance", "userErrors", 0, "code") != "SERVICE_NOT_FOUND" {
			t.Errorf("an instance of it gave %v", got)
		}
		if back := harness.CreateService(t, root, "echo", "30s"); back != id {
			t.Errorf("when it comes back it has the id %s, had %s", back, id)
		}
	})
}

// refuseAll checks that each of the callers is refused each of the calls.
func refuseAll(t *testing.T, calls map[string]harness.Fields, want string, callers map[string]harness.Caller) {
	t.Helper()
	for caller, c := range callers {
		for call, vars := range calls {
			if got := c.RefusalCode(t, call, vars); got != want {
				t.Errorf("%s calls %.70s: %q, want %s", caller, call, got, want)
			}
		}
	}
}

// TestServer_keeps_the_registry_s_rules tries to break each rule.
func TestServer_keeps_the_registry_s_rules(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		id := harness.CreateService(t, root, "echo", "30s", 1, 1)
		harness.CreateService(t, root, "other", "30s", 1)
		customer, staff, robot := harness.SignUp(t, p, "carol"), harness.CreateUserWithRole(t, p, root, "stan", "STAFF"), harness.CreateUserWithRole(t, p, root, "robot", "SERVICE")
		own, foreign := harness.WithAPIKey(t, root, "robot", "service:echo"), harness.WithAPIKey(t, root, "robot", "service:other")
		reader, shopper := harness.WithAPIKey(t, root, "robot", "services:read"), harness.WithAPIKey(t, root, "stan", "orders:read")

		seen := harness.At(customer.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service")
		if harness.Text(seen, "name") != "echo" || harness.Text(seen, "health") != "HEALTHY" {
			t.Errorf("a customer reads %v, want name and health", seen)
		}
		for _, field := range []string{"tags", "metadata", "strategy", "trusted", "public", "paymentProvider", "degraded", "instances"} {
			if v := harness.At(seen, field); v != nil {
				t.Errorf("a customer reads %s: %v", field, v)
			}
		}
		ins := harness.Text(root.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service", "instances", "nodes", 0, "id")
		node := `query($id: ID!) { node(id: $id) { ... on ServiceInstance { url } } }`
		if n := harness.At(customer.Do(t, node, harness.Fields{"id": ins}), "node"); n != nil {
			t.Errorf("a customer reads the instance by its id: %v", n)
		}
		if s := harness.At(harness.Anonymous(p).Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service"); s != nil {
			t.Errorf("an anonymous caller reads %v", s)
		}
		for caller, c := range map[string]harness.Caller{"staff": staff, "a service": robot, "a service's key": own, "a key of another service": foreign, "a reader's key": reader} {
			if got := harness.At(c.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service"); harness.Number(got, "instances", "totalCount") != 2 || harness.Text(got, "instances", "nodes", 0, "url") == "" {
				t.Errorf("%s reads %v, want the instances", caller, got)
			}
			if picked := c.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})); harness.Text(picked, "pickInstance", "lease") == "" {
				t.Errorf("%s picks %v", caller, picked)
			}
		}
		for caller, c := range map[string]harness.Caller{"a customer": customer, "a key for orders": shopper} {
			for call, vars := range map[string]harness.Fields{
				harness.PickInstance: harness.Input(harness.Fields{"service": "echo"}), harness.ReportOutcome: harness.Input(harness.Fields{"lease": "x", "ok": true}),
			} {
				if got := c.RefusalCode(t, call, vars); got != "FORBIDDEN" {
					t.Errorf("%s calls %.60s: %q, want FORBIDDEN", caller, call, got)
				}
			}
		}
		manage := map[string]harness.Fields{
			harness.RegisterService:  harness.Input(harness.Fields{"name": "echo", "description": "mine now"}),
			harness.RegisterInstance: harness.Input(harness.Fields{"service": "echo", "instanceId": "evil", "url": "http://evil.example"}),
			harness.RenewInstance:    harness.Input(harness.Fields{"service": "echo", "instanceId": "i0", "incarnation": 1 << 50}),
			`mutation($in: UpdateServiceInput!) { updateService(input: $in) { userErrors { code } } }`:                   harness.Input(harness.Fields{"id": id, "description": "d"}),
			`mutation($in: DeregisterServiceInput!) { deregisterService(input: $in) { userErrors { code } } }`:           harness.Input(harness.Fields{"id": id}),
			`mutation($in: DeregisterInstanceInput!) { deregisterInstance(input: $in) { userErrors { code } } }`:         harness.Input(harness.Fields{"service": "echo", "instanceId": "i0"}),
			`mutation($in: DrainInstanceInput!) { drainInstance(input: $in) { userErrors { code } } }`:                   harness.Input(harness.Fields{"service": "echo", "instanceId": "i0"}),
			`mutation($in: SetInstanceMaintenanceInput!) { setInstanceMaintenance(input: $in) { userErrors { code } } }`: harness.Input(harness.Fields{"service": "echo", "instanceId": "i0"}),
		}
		refuseAll(t, manage, "FORBIDDEN", map[string]harness.Caller{"a customer": customer, "staff": staff, "a service": robot, "a key of another service": foreign, "a reader's key": reader})
		refuseAll(t, manage, "UNAUTHENTICATED", map[string]harness.Caller{"an anonymous caller": harness.Anonymous(p)})
		harness.CreateInstance(t, own, "echo", "mine", nil)
		trust := `mutation($id: ID!) { updateService(input: {id: $id, trusted: true, trustedAddresses: ["10.0.0.0/8"]}) { service { trusted trustedAddresses } userErrors { code } } }`
		move := `mutation($id: ID!) { updateService(input: {id: $id, trustedAddresses: ["0.0.0.0/1"]}) { service { trusted } userErrors { code } } }`
		for _, call := range []string{move, trust} {
			if got := own.RefusalCode(t, call, harness.Fields{"id": id}); got != "FORBIDDEN" {
				t.Errorf("a service's key calls %.70s: %q, want FORBIDDEN", call, got)
			}
		}
		nowhere := `mutation($id: ID!) { updateService(input: {id: $id, trusted: true}) { service { trusted } userErrors { code } } }`
		if got := root.Do(t, nowhere, harness.Fields{"id": id}); harness.Text(got, "updateService", "userErrors", 0, "code") != "SERVICE_INVALID" {
			t.Errorf("ADMIN trusts it nowhere: %v, want SERVICE_INVALID", got)
		}
		if got := root.Do(t, trust, harness.Fields{"id": id}); harness.At(got, "updateService", "service", "trusted") != true || harness.Text(got, "updateService", "service", "trustedAddresses", 0) != "10.0.0.0/8" {
			t.Errorf("ADMIN trusts it: %v", got)
		}
		for _, field := range []string{"public", "paymentProvider"} {
			grant := `mutation($id: ID!) { updateService(input: {id: $id, ` + field + `: true}) { service { ` + field + ` } userErrors { code } } }`
			if got := own.RefusalCode(t, grant, harness.Fields{"id": id}); got != "FORBIDDEN" {
				t.Errorf("a service's key sets %s: %q, want FORBIDDEN", field, got)
			}
			if got := root.Do(t, grant, harness.Fields{"id": id}); harness.At(got, "updateService", "service", field) != true {
				t.Errorf("ADMIN sets %s: %v", field, got)
			}
		}
		mint := `mutation { createApiKey(input: {name: "k", scopes: ["service:echo"]}) { userErrors { code } } }`
		for caller, c := range map[string]harness.Caller{"a customer": customer, "staff": staff, "a service": robot} {
			if got := c.RefusalCode(t, mint, nil); got != "FORBIDDEN" {
				t.Errorf("%s makes itself a key of the service: %q, want FORBIDDEN", caller, got)
			}
		}
		hidden := `query { events(types: [SERVICE_REGISTERED, INSTANCE_REGISTERED]) { totalCount } }`
		for caller, c := range map[string]harness.Caller{"a customer": customer, "a key for orders": shopper} {
			if n := harness.Number(c.Do(t, hidden, nil), "events", "totalCount"); n != 0 {
				t.Errorf("%s sees %d events of the registry", caller, n)
			}
		}
		robot.Events(t, 6, harness.Fields{"types": []any{"SERVICE_REGISTERED", "SERVICE_UPDATED", "INSTANCE_REGISTERED"}})
	})
}

func TestServer_takes_each_lease_of_a_pick_once_and_from_its_picker(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	harness.CreateService(t, root, "echo", "30s", 1)
	robot, other := harness.CreateUserWithRole(t, p, root, "robot", "SERVICE"), harness.CreateUserWithRole(t, p, root, "other", "SERVICE")
	key := harness.WithAPIKey(t, root, "robot", "services:read")
	pick := func() string {
		return harness.Text(robot.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})), "pickInstance", "lease")
	}
	report := func(c harness.Caller, lease string) string {
		return harness.Text(c.Do(t, harness.ReportOutcome, harness.Input(harness.Fields{"lease": lease, "ok": true, "latencyMs": 12})), "reportOutcome", "userErrors", 0, "code")
	}
	lease := pick()
	for caller, c := range map[string]harness.Caller{"another service": other, "the picker's own key": key, "ADMIN": root} {
		if got := report(c, lease); got != "PICK_LEASE_INVALID" {
			t.Errorf("%s reports with it: %q", caller, got)
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
	if got := harness.Text(robot.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo", "strategy": "CONSISTENT_HASH"})), "pickInstance", "userErrors", 0, "code"); got != "BAD_INPUT" {
		t.Errorf("CONSISTENT_HASH without a key gave %q, want BAD_INPUT", got)
	}
	if got := harness.Text(robot.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "none"})), "pickInstance", "userErrors", 0, "code"); got != "SERVICE_NOT_FOUND" {
		t.Errorf("an unknown service gave %q", got)
	}
}

func TestServer_ejects_an_instance_whose_calls_fail(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	harness.CreateService(t, root, "echo", "30s", 1, 1, 1)
	counts := map[string]int{}
	for range 60 {
		picked := harness.At(root.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})), "pickInstance")
		id := harness.Text(picked, "instance", "instanceId")
		counts[id]++
		root.Do(t, harness.ReportOutcome, harness.Input(harness.Fields{"lease": harness.Text(picked, "lease"), "ok": id != "i1"}))
	}
	if counts["i1"] > 6 || counts["i0"] < 20 {
		t.Errorf("60 picks gave %v, want i1 ejected after 5 failures", counts)
	}
}

func TestServer_demo_has_services_with_live_instances(t *testing.T) {
	t.Parallel()
	database := harness.Databases["SQLite"](t)
	p := testenv.ServerWith(t, []string{"--demo"}, harness.Settings(database)...)
	var words []string // after the first ADMIN: its name and its password
	harness.Eventually(t, "the server says how to sign in", func() bool {
		_, login, _ := strings.Cut(p.Logs(), "\n  ADMIN ")
		words = strings.Fields(login)
		return len(words) > 3 // and the next line has begun
	})
	root := harness.SignIn(t, p, words[0], words[1])
	for name, n := range map[string]int{"echo": 3, "mirror": 2} {
		harness.Eventually(t, name+" has its instances", func() bool {
			s := harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": name}), "service")
			return harness.Text(s, "health") == "HEALTHY" && harness.Number(s, "instances", "totalCount") == n
		})
	}
	url := harness.Text(root.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})), "pickInstance", "instance", "url")
	resp, err := http.Get(url + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), `"path":"/hello"`) {
		t.Errorf("the picked instance says %s", body)
	}
	if out := harness.RunCommand(t, database, "services"); !strings.Contains(out, "echo") || !strings.Contains(out, "HEALTHY") {
		t.Errorf("backplane services prints\n%s", out)
	}
	if out := harness.RunCommand(t, database, "services", "echo"); strings.Count(out, "PASSING") != 3 {
		t.Errorf("backplane services echo prints\n%s", out)
	}
	if out := harness.RunCommand(t, database, "pick", "--n=6", "echo"); strings.Count(out, "http://127.0.0.1:") != 6 {
		t.Errorf("backplane pick --n=6 echo prints\n%s", out)
	}
	p.Stop()
	if out := harness.RunCommand(t, database, "services", "echo"); strings.Contains(out, "PASSING") {
		t.Errorf("after the end of the server its instances are still there\n%s", out)
	}
}

// TestServer_probes_instances registers an instance that answers its checks and one
// that stops answering them, although both renew their leases.
func TestServer_probes_instances(t *testing.T) {
	t.Parallel()
	database := harness.Databases["SQLite"](t)
	p := harness.StartServer(t, database)
	root := harness.SignInAdmin(t, p)
	var broken atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/b/healthz" && broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintln(w, "no\x1b disk")
		}
	}))
	t.Cleanup(s.Close)
	check := harness.Fields{"path": "/healthz", "interval": "1s", "timeout": "500ms", "healthyThreshold": 1, "unhealthyThreshold": 2}
	root.Do(t, harness.RegisterService, harness.Input(harness.Fields{"name": "echo", "healthCheck": check}))
	for _, id := range []string{"a", "b", "c"} {
		harness.CreateInstance(t, root, "echo", id, harness.Fields{"url": s.URL + "/" + id})
	}
	harness.CreateInstance(t, root, "echo", "own", harness.Fields{"url": p.BaseURL}) // our own listener is never called
	status := func(id string) string {
		n := findInstance(t, root, "echo", id)
		return strings.TrimSpace(harness.Text(n, "status") + " " + harness.Text(n, "statusReason"))
	}
	lastCheck := func(id string) string {
		check := harness.At(findInstance(t, root, "echo", id), "lastCheck")
		return fmt.Sprint(harness.At(check, "passed"), " ", harness.Text(check, "output"))
	}
	broken.Store(true)
	harness.Eventually(t, "b is critical", func() bool { return status("b") == "CRITICAL its check failed: status 500" })
	harness.Eventually(t, "our own listener is refused", func() bool { return status("own") == "CRITICAL its check failed: this address may not be called" })
	if got := status("a"); got != "PASSING" {
		t.Errorf("a is %s", got)
	}
	for id, want := range map[string]string{"a": "true status 200", "b": "false status 500: no disk", "own": "false this address may not be called"} {
		harness.Eventually(t, "the last check of "+id+" is shown", func() bool { return lastCheck(id) == want })
	}
	health := root.MustREST(t, http.StatusOK, "GET /services/echo/instances/b/health", "")
	if v := health.JSON(t); harness.Text(v, "id") != "b" || harness.Text(v, "last_check", "output") != "status 500: no disk" || harness.At(v, "last_check", "passed") != false || harness.Text(v, "last_check", "at") == "" {
		t.Errorf("GET …/b/health answers %s", health.Body)
	}
	root.MustREST(t, http.StatusNotFound, "GET /services/echo/instances/none/health", "")
	if out := harness.RunCommand(t, database, "services", "show", "echo", "--json"); !strings.Contains(out, `"checkPassed":false,"checkMs":`) || !strings.Contains(out, `"checkOutput":"status 500: no disk"`) {
		t.Errorf("backplane services show echo --json prints\n%s", out)
	}
	harness.CreateUserWithRole(t, p, root, "ada", "CUSTOMER")
	ada := harness.WithAPIKey(t, root, "ada", "orders:read")
	ada.MustREST(t, http.StatusNotFound, "GET /services/echo/instances/b/health", "")
	if got := harness.At(ada.Do(t, `{ service(name: "echo") { name instance(instanceId: "b") { lastCheck { output } } } }`, nil), "service", "instance"); got != nil {
		t.Errorf("a customer sees the check %v", got)
	}
	broken.Store(false)
	harness.Eventually(t, "b passes", func() bool { return status("b") == "PASSING" })
}

// findInstance returns an instance as ADMIN sees it.
func findInstance(t *testing.T, root harness.Caller, service, id string) any {
	t.Helper()
	nodes, _ := harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": service}), "service", "instances", "nodes").([]any)
	for _, n := range nodes {
		if harness.Text(n, "instanceId") == id {
			return n
		}
	}
	return nil
}

func TestCommands_change_services_of_a_running_server(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		harness.CreateService(t, root, "till", "10m", 1)
		for _, step := range []struct{ args, status, weight, metadata string }{
			{"drain till i0 --reason upgrade", "DRAINING upgrade", "1", "map[]"},
			{"undrain till i0", "PASSING", "1", "map[]"},
			{"maintenance till i0 on --reason=disk", "MAINTENANCE disk", "1", "map[]"},
			{"maintenance till i0 off", "PASSING", "1", "map[]"},
			{"weight till i0 7", "PASSING", "7", "map[]"},
			{"metadata till i0 zone=a team=", "PASSING", "7", "map[team: zone:a]"},
			{"metadata till i0", "PASSING", "7", "map[]"},
		} {
			out := harness.RunCommand(t, database, append(append([]string{"services"}, strings.Fields(step.args)...), "--json")...)
			if !strings.Contains(out, `"instance":"i0"`) || !strings.Contains(out, `"weight":`+step.weight) {
				t.Errorf("backplane services %s prints %s", step.args, out)
			}
			harness.Eventually(t, "the server knows of "+step.args, func() bool {
				i := findInstance(t, root, "till", "i0")
				return strings.TrimSpace(harness.Text(i, "status")+" "+harness.Text(i, "statusReason")) == step.status &&
					fmt.Sprint(harness.At(i, "weight"), harness.At(i, "metadata")) == step.weight+" "+step.metadata
			})
		}
		harness.RunCommand(t, database, "services", "strategy", "till", "POWER_OF_TWO")
		harness.Eventually(t, "the server knows of the strategy", func() bool {
			return harness.Text(root.Do(t, harness.ReadService, harness.Fields{"name": "till"}), "service", "strategy") == "POWER_OF_TWO"
		})
		if out := harness.RunCommand(t, database, "services", "payment-provider", "till", "on", "--json"); !strings.Contains(out, `"paymentProvider":true`) {
			t.Errorf("backplane services payment-provider prints %s", out)
		}
		harness.Eventually(t, "the server knows of the payment provider", func() bool {
			return harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": "till"}), "service", "paymentProvider") == true
		})
		for _, query := range []string{`mutation { registerService(input: {name: "other", strategy: FASTEST}) { userErrors { code } } }`, `mutation { pickInstance(input: {service: "till", strategy: FASTEST}) { userErrors { code } } }`} {
			a, err := root.Send(t.Context(), query, nil)
			if err != nil || len(a.Errors) == 0 || !strings.Contains(a.Errors[0].Message, "ROUND_ROBIN, RANDOM, LEAST_CONNECTIONS, POWER_OF_TWO, CONSISTENT_HASH") {
				t.Errorf("%s answers %+v, %v; want the strategies that there are", query, a, err)
			}
		}
	})
}
