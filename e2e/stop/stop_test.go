package stop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// pipe returns a pipe that ends with the test.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close() // a test may have closed it
		_ = w.Close()
	})
	return r, w
}

// get returns the status of a GET and whether the answer ends the connection.
func get(t *testing.T, client *http.Client, url string) (status int, closes bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Close
}

const oneQuery = "/graphql?query={__typename}"

func TestServer_goes_on_without_a_reader_of_its_log(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *os.File){
		"gone":  func(r *os.File) { _ = r.Close() },
		"stuck": func(*os.File) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w := pipe(t)
			p := testenv.ServerWritingTo(t, w)
			end(r)
			for range 1000 { // a pipe takes 64 KiB
				if status, _ := get(t, http.DefaultClient, p.BaseURL+oneQuery); status != http.StatusOK {
					t.Fatalf("a query is answered with %d", status)
				}
			}
			start := time.Now()
			p.Stop()
			t.Logf("the stop took %s", time.Since(start))
		})
	}
}

func TestServer_tells_how_many_log_records_were_dropped(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	admin := local.Address(testenv.FreePort(t))
	p := testenv.ServerWritingTo(t, w, "BACKPLANE_ADMIN_LISTEN="+admin)
	dropped := func() bool { return harness.Metric(t, admin, "backplane_log_records_dropped_total") > 0 }
	long := p.BaseURL + "/" + strings.Repeat("x", 16<<10) // in the record of each request
	for !dropped() {
		for range 20 {
			get(t, http.DefaultClient, long)
		}
	}
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the log has no notice of dropped records: %v", err)
		}
		if strings.Contains(line, "log records dropped") {
			break
		}
	}
}

func TestServer_ignores_a_closed_terminal(t *testing.T) {
	t.Parallel()
	p := testenv.Server(t)
	p.Signal(syscall.SIGHUP)
	p.Signal(syscall.SIGPIPE)
	for range 10 {
		if status, _ := get(t, http.DefaultClient, p.BaseURL+"/readyz"); status != http.StatusOK {
			t.Fatalf("/readyz = %d after SIGHUP, want 200", status)
		}
	}
	p.Stop()
}

func TestServer_ends_at_once_at_a_second_interrupt(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_STOP_DELAY=10m")
	p.Signal(syscall.SIGTERM)
	harness.Eventually(t, "the server stops", func() bool {
		status, _ := get(t, http.DefaultClient, p.BaseURL+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	p.Signal(syscall.SIGINT)
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("the server ended with %v, want by the signal", err)
	}
}

func TestServer_serves_on_while_load_balancers_notice_its_stop(t *testing.T) {
	t.Parallel()
	admin := local.Address(testenv.FreePort(t))
	p := testenv.Server(t, "BACKPLANE_STOP_DELAY=2s", "BACKPLANE_ADMIN_LISTEN="+admin)
	if _, closes := get(t, http.DefaultClient, p.BaseURL+oneQuery); closes {
		t.Error("an answer of a server that does not stop ends its connection")
	}
	p.Signal(syscall.SIGTERM)
	for _, ready := range []string{p.BaseURL + "/readyz", "http://" + admin + "/readyz"} {
		harness.Eventually(t, ready+" is 503", func() bool {
			status, _ := get(t, http.DefaultClient, ready)
			return status == http.StatusServiceUnavailable
		})
	}
	if status, closes := get(t, http.DefaultClient, p.BaseURL+oneQuery); status != http.StatusOK || !closes {
		t.Errorf("a query is answered with %d, closing %t; want 200 and the end of the connection", status, closes)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// TestServer_loses_no_request_when_it_stops_behind_a_proxy stops one of two nodes behind HAProxy,
// which checks their health as it does by default and repeats no request.
func TestServer_loses_no_request_when_it_stops_behind_a_proxy(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	harness.RunCommand(t, database, "migrate")
	env := append(harness.Settings(database), "BACKPLANE_STOP_DELAY=7s", "BACKPLANE_LOG_LEVEL=warn")
	leaving, staying := testenv.Server(t, env...), testenv.Server(t, env...)
	host := func(p *testenv.Process) string { return strings.TrimPrefix(p.BaseURL, "http://") }
	proxy := testenv.HAProxy(t, fmt.Sprintf("  option httpchk GET /readyz\n  retries 0\n  server leaving %s check\n  server staying %s check", host(leaving), host(staying)))

	var answered, failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}} // with one connection of its own
			for ctx.Err() == nil {
				resp, err := client.Get("http://" + proxy + oneQuery)
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				answered.Add(1)
				if err == nil {
					_ = resp.Body.Close()
				}
				harness.Pause(ctx, 2*time.Millisecond)
			}
		})
	}
	harness.Eventually(t, "requests flow", func() bool { return answered.Load() > 500 })
	leaving.Stop()
	after := answered.Load()
	harness.Eventually(t, "requests go on flowing", func() bool { return answered.Load() > after+500 })
	stop()
	clients.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed, want none", failed.Load(), answered.Load())
	}
	t.Logf("%d requests", answered.Load())
}
