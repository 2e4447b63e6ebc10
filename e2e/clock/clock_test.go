package clock

import (
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// ahead is by how much the clock of one node is wrong.
const ahead = 40 * 24 * time.Hour

// TestNode_with_a_wrong_clock_follows_the_databases has a node that is 40 days ahead take part in
// everything that ends by time: it would remove the whole log, end sessions, repeat calls and
// give leases of 40 days.
func TestNode_with_a_wrong_clock_follows_the_databases(t *testing.T) { //nolint:tparallel // its steps share two nodes, in order
	t.Parallel()
	settings := harness.Settings(testenv.Postgres(t), "BACKPLANE_RETENTION_AGE=720h")
	right := testenv.ServerWith(t, []string{"--migrate"}, settings...)
	root := harness.SignInAdmin(t, right)
	harness.CreateProduct(t, root, "CUP", 10)
	harness.CreateService(t, root, "echo", "10s", 1)
	types, _ := root.Events(t, 4, nil)

	wrong := testenv.ServerWithSkew(t, ahead, settings...)
	harness.Eventually(t, "the node says that its clock is wrong", func() bool {
		return strings.Contains(wrong.Logs(), "level=ERROR") && strings.Contains(wrong.Logs(), "the clock of this node is wrong")
	})
	there := harness.Caller{BaseURL: wrong.BaseURL, Token: root.Token}
	checkLog := func() {
		t.Helper()
		if kept, _ := there.Events(t, len(types), nil); len(kept) < len(types) {
			t.Errorf("the log has %d events left of %d", len(kept), len(types))
		}
	}
	checkLog()

	t.Run("a call is not repeated", func(t *testing.T) { //nolint:paralleltest // see above
		vars := map[string]any{"key": "once", "items": []any{harness.OrderLine("CUP", 1)}}
		first, again := root.Do(t, harness.PlaceOrder, vars), there.Do(t, harness.PlaceOrder, vars)
		id := harness.Text(first, "placeOrder", "order", "id")
		if id == "" || harness.Text(again, "placeOrder", "order", "id") != id {
			t.Errorf("two calls under one key gave %v and %v, want one order", first, again)
		}
	})
	t.Run("a session goes on", func(t *testing.T) { checkSession(t, right, wrong) }) //nolint:paralleltest // see above
	t.Run("a lease lasts its time", func(t *testing.T) {                             //nolint:paralleltest // see above
		harness.CreateInstance(t, there, "echo", "late", harness.Fields{"ttl": "10s"})
		data := there.Do(t, `{ service(name: "echo") { instances(first: 10) { nodes { instanceId status leaseExpiresAt } } } }`, nil)
		for _, node := range harness.At(data, "service", "instances", "nodes").([]any) {
			expires, err := time.Parse(time.RFC3339, harness.Text(node, "leaseExpiresAt"))
			if left := time.Until(expires); harness.Text(node, "instanceId") == "late" && (err != nil || left > 11*time.Second || harness.Text(node, "status") != "PASSING") {
				t.Errorf("the new instance is %v, with %v left, want PASSING for 10 s", node, left)
			}
		}
	})
	t.Run("doctor says so", func(t *testing.T) { //nolint:paralleltest // see above
		if out, err := wrong.Run("doctor"); err == nil || !strings.Contains(out, "ahead of the database's") {
			t.Errorf("doctor on that node: %v\n%s", err, out)
		}
		if out, err := right.Run("doctor"); err != nil {
			t.Errorf("doctor on another: %v\n%s", err, out)
		}
	})
	checkLog()
}

// checkSession refreshes a session on both nodes, by the same token within the grace.
func checkSession(t *testing.T, right, wrong *testenv.Process) {
	t.Helper()
	opened := harness.Anonymous(right).Do(t, `mutation { signUp(input: {username: "ada", password: "a password of mine"}) { session { refreshToken } } }`, nil)
	const refresh = `mutation($t: String!) { refreshSession(input: {refreshToken: $t}) { session { accessToken refreshToken expiresAt } userErrors { code } } }`
	token := map[string]any{"t": harness.Text(opened, "signUp", "session", "refreshToken")}
	first := harness.Anonymous(right).Do(t, refresh, token)
	second := harness.Anonymous(wrong).Do(t, refresh, token)
	if a, b := harness.Text(first, "refreshSession", "session", "refreshToken"), harness.Text(second, "refreshSession", "session", "refreshToken"); a == "" || a != b {
		t.Fatalf("refreshing by one token on two nodes gave %v and %v, want one generation", first, second)
	}
	expires, err := time.Parse(time.RFC3339, harness.Text(second, "refreshSession", "session", "expiresAt"))
	if left := time.Until(expires); err != nil || left > 6*time.Minute {
		t.Errorf("the access token of the wrong clock lasts for %v, %v, want five minutes", left, err)
	}
	for _, tokens := range []map[string]any{first, second} {
		for _, node := range []*testenv.Process{right, wrong} {
			c := harness.Caller{BaseURL: node.BaseURL, Token: harness.Text(tokens, "refreshSession", "session", "accessToken")}
			if name := harness.Text(c.Do(t, `{ viewer { user { username } } }`, nil), "viewer", "user", "username"); name != "ada" {
				t.Errorf("a node takes an access token of the session for one of %q", name)
			}
		}
	}
	third := harness.Anonymous(wrong).Do(t, refresh, map[string]any{"t": harness.Text(second, "refreshSession", "session", "refreshToken")})
	if harness.Text(third, "refreshSession", "session", "refreshToken") == "" {
		t.Errorf("refreshing once more gave %v", third)
	}
}
