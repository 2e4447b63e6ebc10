package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// instanceEnv makes this binary an instance of a service, at the address in its value.
const instanceEnv = "GATEWAY_TEST_INSTANCE"

func TestMain(m *testing.M) {
	if addr := os.Getenv(instanceEnv); addr != "" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, http.HandlerFunc(serveInstance)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serveInstance answers at once or, under /slow, in numbered parts.
func serveInstance(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/slow" {
		fmt.Fprint(w, "whole")
		return
	}
	for n := range slowParts {
		fmt.Fprintf(w, "part %d\n", n)
		_ = http.NewResponseController(w).Flush()
		<-time.After(5 * time.Millisecond)
	}
}

const slowParts = 20

// instanceProcess is an instance in a process of its own.
type instanceProcess struct {
	id, addr    string
	incarnation int
	cmd         *exec.Cmd
}

// start starts the process, waits until it listens, and registers it.
func (i *instanceProcess) start(t *testing.T, root harness.Caller) {
	t.Helper()
	i.cmd = exec.Command(os.Args[0])
	i.cmd.Env = append(os.Environ(), instanceEnv+"="+i.addr)
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.EventuallyWithin(t, 30*time.Second, "the instance listens", func() bool {
		conn, err := net.Dial("tcp", i.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	i.incarnation = harness.CreateInstance(t, root, "victims", i.id, harness.Fields{"url": "http://" + i.addr, "ttl": "10m"})
}

func (i *instanceProcess) kill() {
	_ = i.cmd.Process.Kill()
	_ = i.cmd.Wait()
}

// callLoad is a set of callers that call the service until they are stopped, and their responses.
type callLoad struct {
	calls, whole, cut atomic.Int64
	mu                sync.Mutex
	wrong             []string
}

func (l *callLoad) recordf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 20 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

// callShort makes a call with a short response: it must never fail.
func (l *callLoad) callShort(ctx context.Context, c harness.Caller, method string) {
	for ctx.Err() == nil {
		a, err := c.REST(context.WithoutCancel(ctx), method+" /gateway/victims/", "")
		l.calls.Add(1)
		if err != nil || a.Status != http.StatusOK || string(a.Body) != "whole" {
			l.recordf("%s: %+v, %v", method, a, err)
		}
	}
}

// callSlow makes a call with a streamed response: it is whole, or visibly cut off after it began.
func (l *callLoad) callSlow(ctx context.Context, c harness.Caller) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, c.BaseURL+"/gateway/victims/slow", nil)
		if err != nil {
			l.recordf("%v", err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+c.Token)
		resp, err := harness.HTTPClient.Do(req)
		if err != nil {
			l.recordf("slow: no answer: %v", err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		l.calls.Add(1)
		switch parts := strings.Count(string(body), "\n"); {
		case resp.StatusCode != http.StatusOK:
			l.recordf("slow: %d %s", resp.StatusCode, body)
		case err == nil && parts == slowParts:
			l.whole.Add(1)
		case err != nil:
			l.cut.Add(1)
		default:
			l.recordf("slow: %d parts look whole", parts)
		}
	}
}

func TestGateway_hides_from_callers_that_instances_are_killed(t *testing.T) {
	t.Parallel()
	kills := 30
	if testenv.Soak() {
		kills = 1000
	}
	operator := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_ADMIN_LISTEN="+operator, "BACKPLANE_LOG_LEVEL=warn")
	root := harness.SignInAdmin(t, p)
	key := harness.WithAPIKey(t, root, harness.AdminName, "service:victims", "services:read") // tokens expire before the test ends
	harness.CreateService(t, root, "victims", "5m")
	all := make([]*instanceProcess, 3)
	for n := range all {
		all[n] = &instanceProcess{id: fmt.Sprint("i", n), addr: fmt.Sprint("127.0.0.1:", testenv.FreePort(t))}
		all[n].start(t, key)
		t.Cleanup(func() { all[n].kill() })
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var l callLoad
	var callers sync.WaitGroup
	for _, method := range []string{"GET", "PUT", "GET"} {
		callers.Go(func() { l.callShort(ctx, key, method) })
	}
	for range 3 {
		callers.Go(func() { l.callSlow(ctx, key) })
	}
	for n := range kills {
		victim := all[n%len(all)]
		before := victim.incarnation
		victim.kill()
		met := l.calls.Load() + 10 // callers call the dead instance before it is back
		harness.EventuallyWithin(t, 30*time.Second, "callers go on", func() bool { return l.calls.Load() > met })
		victim.start(t, key)
		late := key.Do(t, harness.RenewInstance, harness.Input(harness.Fields{"service": "victims", "instanceId": victim.id, "incarnation": before}))
		if got := harness.Text(late, "renewInstance", "userErrors", 0, "code"); got != "STALE_INCARNATION" {
			t.Fatalf("kill %d: a late renewal gave %v", n, late)
		}
		found := harness.At(key.Do(t, harness.ReadService, harness.Fields{"name": "victims"}), "service")
		if got := harness.Number(found, "instances", "totalCount"); got != len(all) {
			t.Fatalf("kill %d: there are %d instances, want %d: %v", n, got, len(all), found)
		}
	}
	cancel()
	callers.Wait()
	for _, w := range l.wrong {
		t.Error(w)
	}
	harness.Eventually(t, "no call is open", func() bool { return harness.Metric(t, operator, "backplane_gateway_in_flight") == 0 })
	if cut := harness.Metric(t, operator, `backplane_gateway_requests_total{outcome="cut"}`); int64(cut) != l.cut.Load() {
		t.Errorf("callers saw %d cut answers, and %v are counted", l.cut.Load(), cut)
	}
	t.Logf("%d kills under %d calls: %d long answers were whole and %d cut; retries after connect %v, after reset %v", kills, l.calls.Load(), l.whole.Load(), l.cut.Load(),
		harness.Metric(t, operator, `backplane_gateway_retries_total{after="connect"}`), harness.Metric(t, operator, `backplane_gateway_retries_total{after="reset"}`))
}

// zeroReader returns a body of n bytes.
func zeroReader(n int64) io.Reader { return io.LimitReader(endless{}, n) }

type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestGateway_needs_no_memory_for_large_bodies_and_slow_callers(t *testing.T) {
	t.Parallel()
	size, clients := int64(128<<20), 100
	if testenv.Soak() {
		size, clients = 1<<30, 1000
	}
	operator := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_ADMIN_LISTEN="+operator, "BACKPLANE_LOG_LEVEL=warn", fmt.Sprint("BACKPLANE_LIMIT_GATEWAY_BODY_BYTES=", 1<<30),
		"GOGC=100") // without headroom, so that what is held shows
	root := harness.SignInAdmin(t, p)
	startBackend(t, root, "bulk", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = io.Copy(w, zeroReader(size))
			return
		}
		fmt.Fprint(w, n, err)
	})
	root.MustREST(t, http.StatusOK, "PUT /gateway/bulk/", "x")
	const peak = "process_resident_memory_peak_bytes"
	before := harness.Metric(t, operator, peak)

	length := map[string]int64{"of a known length": size, "of an unknown length": -1}
	for name, n := range length {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.BaseURL+"/gateway/bulk/", zeroReader(size))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = n
		if got := transferLarge(t, root, req); got != fmt.Sprint(size, " <nil>") {
			t.Errorf("a body %s arrived as %q", name, got)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.BaseURL+"/gateway/bulk/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := transferLarge(t, root, req); got != fmt.Sprint(size) {
		t.Errorf("an answer of %d bytes arrived as %s", size, got)
	}
	grown := harness.Metric(t, operator, peak) - before
	if limit := float64(24 << 20); grown > limit {
		t.Errorf("%d bytes each way made the server grow by %.0f bytes, want at most %.0f", size, grown, limit)
	}

	before = harness.Metric(t, operator, peak)
	stopReading(t, p, root, clients, func() {
		harness.EventuallyWithin(t, time.Minute, "all calls are open", func() bool { return harness.Metric(t, operator, "backplane_gateway_in_flight") == float64(clients) })
	})
	each := (harness.Metric(t, operator, peak) - before) / float64(clients)
	if limit := float64(200 << 10); each > limit {
		t.Errorf("each of %d slow callers takes %.0f bytes, want at most %.0f", clients, each, limit)
	}
	harness.EventuallyWithin(t, time.Minute, "no call is open", func() bool { return harness.Metric(t, operator, "backplane_gateway_in_flight") == 0 })
	t.Logf("%d MiB each way: the server grew by %.1f MiB; each of %d slow callers took %.0f KiB", size>>20, grown/(1<<20), clients, each/(1<<10))
}

// transferLarge sends a request and returns its body, or the length of a long one.
func transferLarge(t *testing.T, c harness.Caller, req *http.Request) string {
	t.Helper()
	req.Header.Set("Authorization", "Bearer "+c.Token)
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var start [100]byte
	n, err := io.ReadFull(resp.Body, start[:])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return string(start[:n])
	}
	rest, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprint(int64(n) + rest)
}

// stopReading opens calls; half stop in the middle of sending the body, half in the middle of
// reading the response, until held returns.
func stopReading(t *testing.T, p *testenv.Process, c harness.Caller, clients int, held func()) {
	t.Helper()
	conns := make([]net.Conn, clients)
	for n := range conns {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.BaseURL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[n] = conn
		if n%2 == 0 {
			fmt.Fprintf(conn, "GET /gateway/bulk/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", c.Token)
			if _, err := bufio.NewReaderSize(conn, 16).Peek(1); err != nil {
				t.Fatal(err)
			}
			continue
		}
		fmt.Fprintf(conn, "PUT /gateway/bulk/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 100000000\r\n\r\n%s", c.Token, strings.Repeat("x", 100_000))
	}
	held()
}
