package failover

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// readiness returns the status of /readyz.
func readiness(t *testing.T, p *testenv.Process) int {
	t.Helper()
	status, _ := get(t, p.BaseURL+"/readyz")
	return status
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func awaitReadiness(t *testing.T, p *testenv.Process, status int) {
	t.Helper()
	harness.EventuallyWithin(t, time.Minute, fmt.Sprintf("/readyz answers %d", status), func() bool { return readiness(t, p) == status })
}

func TestReady_needs_a_server_that_can_write(t *testing.T) {
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	metrics := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	node := harness.StartServer(t, primary.URL, "BACKPLANE_ADMIN_LISTEN="+metrics)
	for _, writable := range []bool{false, true} {
		if writable {
			primary.Must(primary.SetWritable())
			awaitReadiness(t, node, http.StatusOK)
		} else {
			primary.Must(primary.SetReadOnly())
			awaitReadiness(t, node, http.StatusServiceUnavailable)
			if out, err := node.Run("doctor"); err == nil || !strings.Contains(out, "the server cannot write") {
				t.Errorf("doctor at a read-only server: %v\n%s", err, out)
			}
		}
		want := map[bool]float64{true: 1}[writable]
		harness.Eventually(t, fmt.Sprintf("the metric of whether the database is writable is %v", want), func() bool {
			return harness.Metric(t, metrics, "backplane_database_writable") == want
		})
	}
}

func TestReady_needs_a_sequencer(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	node := harness.StartServer(t, database)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{`BEGIN`, `SELECT FROM sequencer FOR UPDATE`} { // no node can number events meanwhile
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	harness.CreateProduct(t, harness.SignInAdmin(t, node), "P", 1)
	awaitReadiness(t, node, http.StatusServiceUnavailable)
	if out, err := node.Run("doctor"); err == nil || !strings.Contains(out, "waiting for a position") {
		t.Errorf("doctor without a sequencer: %v\n%s", err, out)
	}
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	awaitReadiness(t, node, http.StatusOK)
}
