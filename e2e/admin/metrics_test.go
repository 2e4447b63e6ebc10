package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// freeAddress returns an address for the admin listener.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
}

func TestAdmin_shows_cache_metrics(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	testenv.Server(t, "BACKPLANE_ADMIN_LISTEN="+addr, "BACKPLANE_REDIS_URL="+testenv.Redis(t))
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for _, want := range []string{`backplane_cache_hits_total{level="process",entity="user"}`, "backplane_cache_redis_errors_total 0", "process_cpu_seconds_total"} {
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("/metrics does not tell of %s (%v)", want, err)
		}
	}
}

func TestDoctor_warns_of_keys_that_end_soon(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		harness.SignInAdmin(t, harness.StartServer(t, database)) // who is there once the server is ready
		key := []string{"apikey", "--user", harness.AdminName, "--scopes", "users:read"}
		harness.RunCommand(t, database, append(key, "--name", "late", "--for", "1000h")...)
		if out := harness.RunCommand(t, database, "doctor"); strings.Contains(out, "API key") {
			t.Errorf("doctor warns of a key that is good for weeks:\n%s", out)
		}
		for i := range 12 {
			harness.RunCommand(t, database, append(key, "--name", fmt.Sprint("soon", i), "--for", fmt.Sprint(i+1, "h"))...)
		}
		out := harness.RunCommand(t, database, "doctor")
		if strings.Count(out, "warning: The API key") != 10 || !strings.Contains(out, `"soon0"`) || strings.Contains(out, `"late"`) || !strings.Contains(out, "2 more API keys end within 14 days") {
			t.Errorf("doctor printed\n%s", out)
		}
	})
}

func TestDoctor_asks_the_running_node_for_untrusted_proxies(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_ADMIN_LISTEN="+freeAddress(t))
	const warning = "BACKPLANE_TRUSTED_PROXIES does not name a proxy"
	if out, err := p.Run("doctor"); err != nil || strings.Contains(out, warning) {
		t.Errorf("doctor before a proxy sent a request: %v\n%s", err, out)
	}
	harness.Anonymous(p).MustREST(t, 200, "GET /healthz", "", "X-Forwarded-For", "203.0.113.9")
	if out, err := p.Run("doctor"); err != nil || !strings.Contains(out, warning) {
		t.Errorf("doctor after a proxy sent a request: %v\n%s", err, out)
	}
}
