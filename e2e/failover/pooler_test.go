package failover

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestPooler_in_session_mode_carries_two_nodes(t *testing.T) {
	t.Parallel()
	database := testenv.PgBouncer(t, testenv.Postgres(t), "pool_mode = session", "default_pool_size = 60", "max_client_conn = 200")
	writer := harness.StartServer(t, database)
	other := harness.StartServer(t, database)
	root := harness.SignInAdmin(t, writer)
	root.BaseURL = other.BaseURL
	follower := harness.Subscribe(t, "socket", root, harness.FollowEvents, map[string]any{"after": root.EventCursor(t)})
	root.BaseURL = writer.BaseURL
	for _, sku := range []string{"A", "B", "C"} {
		id := harness.CreateProduct(t, root, sku, 1)
		if m := harness.MustNext(t, follower); harness.Text(m.Event, "subjectId") != id {
			t.Errorf("the follower on the other node got %+v, want the product %s", m, id)
		}
	}
	for _, p := range []*testenv.Process{writer, other} {
		for _, line := range []string{"reconnecting", "cannot be notified", "level=ERROR"} {
			if strings.Contains(p.Logs(), line) {
				t.Errorf("a node behind a pooler in session mode logs %q", line)
			}
		}
	}
}

func TestPooler_in_transaction_mode_is_refused_at_the_start(t *testing.T) {
	t.Parallel()
	direct := testenv.Postgres(t)
	harness.RunCommand(t, direct, "migrate")
	cmd := exec.Command(testenv.Binary(t), "serve")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), harness.Settings(testenv.PgBouncer(t, direct, "pool_mode = transaction"), "BACKPLANE_LISTEN=127.0.0.1:0", "BACKPLANE_ADMIN_LISTEN=off")...)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "connection pooler in transaction or statement mode") || !strings.Contains(string(out), "pool_mode = session") {
		t.Errorf("serve behind a pooler in transaction mode: %v\n%s", err, out)
	}
}
