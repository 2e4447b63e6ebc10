package overload

import (
	"fmt"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// keysOfUser is how many API keys each user of the test has: every socket has a credential of its own.
const keysOfUser = 20

// openIdleSockets opens sockets that follow the log, each under an API key of its own.
func openIdleSockets(t *testing.T, p *testenv.Process, after string, sockets int) (all []harness.Subscription) {
	t.Helper()
	create := "mutation {"
	for n := range keysOfUser {
		create += fmt.Sprintf(` k%d: createApiKey(input: {name: "k%d", scopes: ["users:read"]}) { secret }`, n, n)
	}
	create += "}"
	for user := 0; len(all) < sockets; user++ {
		keys := harness.SignUp(t, p, fmt.Sprint("user", user)).Do(t, create, nil)
		for n := 0; n < keysOfUser && len(all) < sockets; n++ {
			key := harness.Text(keys, fmt.Sprint("k", n), "secret")
			if key == "" {
				t.Fatalf("createApiKey gave %v", keys)
			}
			all = append(all, harness.Subscribe(t, "socket", harness.Caller{BaseURL: p.BaseURL, Token: key}, harness.FollowEvents, map[string]any{"after": after}))
		}
	}
	return all
}

// TestServer_holds_idle_sockets_of_many_credentials opens as many credentials as a node may have connections in a soak, in which they take
// less than a quarter of a processor, and then ends one.
func TestServer_holds_idle_sockets_of_many_credentials(t *testing.T) { //nolint:paralleltest // it measures
	p := harness.StartServer(t, testenv.Postgres(t), "BACKPLANE_LIMIT_ADDRESS_CONNECTIONS=20000", "BACKPLANE_LIMIT_SUBSCRIPTIONS=20000")
	root := harness.SignInAdmin(t, p)
	after := root.LogHead(t)
	sockets := openIdleSockets(t, p, after, harness.Size(2*keysOfUser, 15_000))
	harness.Pause(t.Context(), time.Duration(harness.Size(1, 5))*time.Second)
	before, begun := harness.ProcessorTime(t, p), time.Now()
	harness.Pause(t.Context(), time.Duration(harness.Size(1, 30))*time.Second)
	used := (harness.ProcessorTime(t, p) - before).Seconds() / time.Since(begun).Seconds()
	t.Logf("%d idle sockets: %.1f%% of a processor, %d MiB", len(sockets), 100*used, harness.ResidentBytes(t, p)>>20)
	if testenv.Soak() && used > 0.25 {
		t.Errorf("idle sockets take %.1f%% of a processor, want less than 25%%", 100*used)
	}
	id := harness.Text(root.Do(t, `{ userByUsername(username: "user0") { id } }`, nil), "userByUsername", "id")
	root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, status: DEACTIVATED}) { user { status } } }`, map[string]any{"id": id})
	for err := error(nil); err == nil; { // until the server closes it
		_, err = sockets[0].Next()
	}
}
