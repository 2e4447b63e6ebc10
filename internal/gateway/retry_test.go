package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// failTimes calls fail the given number of times, then responds with method and body length.
func failTimes(times int64, asked *atomic.Int64, fail http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if asked.Add(1) <= times {
			fail(w, r)
			return
		}
		fmt.Fprint(w, r.Method, " ", len(body))
	}
}

func respondStatus(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func TestGateway_retries_only_when_that_is_safe(t *testing.T) {
	t.Parallel()
	small, large := strings.Repeat("x", 1000), strings.Repeat("x", 100_000)
	tests := []struct {
		name, method, body, key string
		fail                    http.HandlerFunc
		want                    int
	}{
		{"GET after a reset", "GET", "", "", resetConnection, 200},
		{"GET after 502", "GET", "", "", respondStatus(502), 200},
		{"GET after 503", "GET", "", "", respondStatus(503), 200},
		{"GET after 504", "GET", "", "", respondStatus(504), 200},
		{"HEAD after a reset", "HEAD", "", "", resetConnection, 200},
		{"GET after 500, which is an answer", "GET", "", "", respondStatus(500), 500},
		{"GET after 429, which is an answer", "GET", "", "", respondStatus(429), 429},
		{"PUT with a small body after a reset", "PUT", small, "", resetConnection, 200},
		{"DELETE after 503", "DELETE", "", "", respondStatus(503), 200},
		{"PUT with a body that was not kept after 503", "PUT", large, "", respondStatus(503), 503},
		{"PUT with a body that was not kept after a reset", "PUT", large, "", resetConnection, 502},
		{"POST after a reset", "POST", small, "", resetConnection, 502},
		{"POST after 503", "POST", small, "", respondStatus(503), 503},
		{"PATCH after 503", "PATCH", small, "", respondStatus(503), 503},
		{"POST with an idempotency key after a reset", "POST", small, "k1", resetConnection, 200},
		{"POST with an idempotency key after 503", "POST", small, "k1", respondStatus(503), 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, Config{})
			var asked atomic.Int64
			w.registerEcho(failTimes(1, &asked, tt.fail), failTimes(1, &asked, tt.fail))
			var header []string
			if tt.key != "" {
				header = []string{"Idempotency-Key", tt.key}
			}
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			got := w.do(tt.method, "/gateway/echo/", body, header...)
			if got.status != tt.want {
				t.Errorf("status = %d %s, want %d", got.status, got.body, tt.want)
			}
			if want := fmt.Sprint(tt.method, " ", len(tt.body)); got.status == http.StatusOK && tt.method != "HEAD" && got.body != want {
				t.Errorf("the second instance got %q, want %q", got.body, want)
			}
			if n := asked.Load(); n > 2 || (n == 2) != (tt.want == 200) {
				t.Errorf("instances were asked %d times", n)
			}
		})
	}
}

func TestGateway_retries_every_failed_connect(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, closedPort(t), closedPort(t))
	w.registerInstance("echo", startServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}))
	for _, size := range []int{0, 1000, 1_000_000} {
		for range 4 { // whichever comes first
			if got := w.do("POST", "/gateway/echo/", strings.NewReader(strings.Repeat("x", size))); got.status != http.StatusOK || got.body != fmt.Sprint(size) {
				t.Fatalf("POST of %d bytes = %d %s", size, got.status, got.body)
			}
		}
	}
	if s := w.gateway.Stats(); s.RetriedConnect == 0 || s.RetriedReset+s.RetriedStatus != 0 {
		t.Errorf("Stats = %+v, want retries after connects only", s)
	}
}

func TestGateway_tries_each_instance_once(t *testing.T) {
	t.Parallel()
	const instances = 6
	w := newFixture(t, Config{Attempts: instances + 3})
	var asked [instances]atomic.Int64
	handlers := make([]http.HandlerFunc, instances)
	for n := range handlers {
		handlers[n] = func(w http.ResponseWriter, _ *http.Request) {
			asked[n].Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	w.registerEcho(handlers...)
	got := w.get("/gateway/echo/")
	if got.status != http.StatusServiceUnavailable || got.header.Get("Content-Type") == "application/problem+json" {
		t.Errorf("the last answer is the caller's: %d %v", got.status, got.header)
	}
	for n := range asked {
		if asked[n].Load() != 1 {
			t.Errorf("instance %d was asked %d times, want once", n, asked[n].Load())
		}
	}
}

// cutBeforeBody sends the header of a response and closes the connection before its body.
func cutBeforeBody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestGateway_retries_a_response_that_breaks_before_its_first_byte(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	var asked atomic.Int64
	w.registerEcho(failTimes(1, &asked, cutBeforeBody), failTimes(1, &asked, cutBeforeBody))
	if got := w.get("/gateway/echo/"); got.status != http.StatusOK || got.body != "GET 0" || asked.Load() != 2 {
		t.Errorf("the caller got %d %q after %d tries", got.status, got.body, asked.Load())
	}
}

func TestGateway_retries_within_a_budget(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{RetryMinimum: 5, RetryShare: 0.1})
	var asked atomic.Int64
	always := func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	w.registerEcho(always, always, always, always)
	const calls = 100
	for range calls {
		if got := w.get("/gateway/echo/"); got.status != http.StatusServiceUnavailable {
			t.Fatalf("status = %d", got.status)
		}
	}
	if n, most := asked.Load(), int64(calls+5+calls/10); n <= calls || n > most {
		t.Errorf("%d calls became %d, want at most %d", calls, n, most)
	}
	if s := w.gateway.Stats(); s.OverBudget == 0 || s.RetriedStatus != uint64(asked.Load()-calls) {
		t.Errorf("Stats = %+v", s)
	}
}

func TestRetryBudgets_drop_expired_slots(t *testing.T) {
	t.Parallel()
	b := retryBudgets{share: 0.5, minimum: 1}
	at := time.Unix(1_000_000, 0)
	take := func() (n int) {
		for b.allowRetry("svc_1", at) {
			n++
		}
		return n
	}
	for range 10 {
		b.recordCall("svc_1", at)
	}
	if n := take(); n != 6 {
		t.Errorf("%d retries for ten calls, want 6", n)
	}
	at = at.Add(9 * time.Second)
	if n := take(); n != 0 {
		t.Errorf("%d more retries within the window", n)
	}
	at = at.Add(2 * time.Second)
	if n := take(); n != 1 {
		t.Errorf("%d retries after the window, want the one that is always allowed", n)
	}
	at = at.Add(time.Hour)
	if b.recordCall("svc_1", at); take() != 1 {
		t.Error("after an hour the budget is not as new")
	}
}

func TestGateway_opens_the_circuit_breaker_of_a_silent_instance(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{CircuitTime: 300 * time.Millisecond})
	var asked atomic.Int64
	var well atomic.Bool
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if !well.Load() {
			resetConnection(rw, r)
		}
	})
	for range 5 {
		if got := w.do("POST", "/gateway/echo/", nil); got.status != http.StatusBadGateway {
			t.Fatalf("status = %d %s, want 502", got.status, got.body)
		}
	}
	before := asked.Load()
	for range 20 {
		got := w.get("/gateway/echo/")
		if got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "NO_INSTANCE") || got.header.Get("Retry-After") != "1" {
			t.Fatalf("with an open circuit: %d %v %s", got.status, got.header, got.body)
		}
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("an instance with an open circuit was asked %d times", n)
	}
	well.Store(true)
	testenv.Eventually(t, "the circuit breaker closes", func() bool { return w.get("/gateway/echo/").status == http.StatusOK })
	for range 20 {
		if got := w.get("/gateway/echo/"); got.status != http.StatusOK {
			t.Fatalf("after its answer: %d", got.status)
		}
	}
	if s := w.gateway.Stats(); s.CircuitsOpened != 1 || s.CircuitRefused < 20 {
		t.Errorf("Stats = %+v", s)
	}
}

func TestCircuitBreakers_admit_one_probe_call(t *testing.T) {
	t.Parallel()
	var opened atomic.Uint64
	c := circuitBreakers{threshold: 2, openTime: time.Second, opened: &opened}
	i, at := &registry.Instance{ID: "ins_1", Incarnation: 1}, time.Unix(1, 0)
	c.recordFailure(i, at)
	if c.isOpen(i, at) || !c.admitCall(i, at) {
		t.Error("it opened too early")
	}
	c.recordFailure(i, at)
	if !c.isOpen(i, at) || c.admitCall(i, at) || opened.Load() != 1 {
		t.Error("it did not open")
	}
	if again := (&registry.Instance{ID: "ins_1", Incarnation: 2}); c.isOpen(again, at) {
		t.Error("another start of the instance pays for the one before")
	}
	at = at.Add(time.Second)
	if c.isOpen(i, at) || !c.admitCall(i, at) || c.admitCall(i, at) {
		t.Error("not exactly one call may try it")
	}
	c.recordResponse(i)
	if c.isOpen(i, at) || !c.admitCall(i, at) || c.failing.Load() != 0 {
		t.Error("it did not close")
	}
}

// keepConnections makes the gateway keep n idle connections to the only instance of echo, which then fails the
// given number of calls. It returns the number of calls that the instance got after that.
func (w *fixture) keepConnections(n int, times int64) *atomic.Int64 {
	w.t.Helper()
	came, leave, left := make(chan bool), make(chan bool), make(chan bool)
	asked := &atomic.Int64{}
	fail := failTimes(times, asked, resetConnection)
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/warm" {
			came <- true
			<-leave
			return
		}
		fail(rw, r)
	})
	for range n {
		go func() {
			w.get("/gateway/echo/warm")
			left <- true
		}()
	}
	for range n {
		<-came
	}
	close(leave)
	for range n {
		<-left
	}
	return asked
}

func TestGateway_counts_resends_by_the_transport_as_retries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method string
		header       []string
		fails        int64
		status       int
		asked        int64
		again        uint64
	}{
		{"GET of which a kept connection is lost", "GET", nil, 1, 200, 2, 1},
		{"GET that costs its connection", "GET", nil, 100, 502, 2, 1},
		{"PUT that does, which net/http does not repeat", "PUT", nil, 100, 502, 1, 0},
		{"POST", "POST", nil, 100, 502, 1, 0},
		{"POST with an idempotency key", "POST", []string{"Idempotency-Key", "k"}, 100, 502, 2, 1},
		{"POST with an idempotency key that is empty", "POST", []string{"Idempotency-Key", ""}, 100, 502, 1, 0},
		{"POST with a header that net/http knows", "POST", []string{"X-Idempotency-Key", "k"}, 100, 502, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, Config{})
			asked := w.keepConnections(10, tt.fails)
			got := w.do(tt.method, "/gateway/echo/", strings.NewReader("x"), tt.header...)
			if again := w.gateway.Stats().RetriedReset; got.status != tt.status || asked.Load() != tt.asked || again != tt.again {
				t.Errorf("the caller got %d, the instance %d calls, and %d were counted as retries; want %d, %d, %d", got.status, asked.Load(), again, tt.status, tt.asked, tt.again)
			}
		})
	}
}

func TestGateway_resends_only_within_the_budget(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{RetryMinimum: 1, RetryShare: 1e-9})
	asked := w.keepConnections(10, 100)
	for range 2 {
		w.get("/gateway/echo/")
	}
	if s := w.gateway.Stats(); asked.Load() != 3 || s.OverBudget != 1 {
		t.Errorf("the instance got %d calls of 2 and 1 retry; Stats = %+v", asked.Load(), s)
	}
}

func TestGateway_does_not_retry_a_sent_call_after_a_failed_connect(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	var asked atomic.Int64
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{})
	for range 2 {
		var s *httptest.Server
		s = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				asked.Add(1)
				_ = s.Listener.Close() // another connection cannot be made
				panic(http.ErrAbortHandler)
			}
		}))
		t.Cleanup(s.Close)
		w.registerInstance("echo", s.URL)
	}
	for range 8 {
		w.get("/gateway/echo/")
	}
	if got := w.do(http.MethodPost, "/gateway/echo/", strings.NewReader("x"), "X-Idempotency-Key", "k"); got.status != http.StatusBadGateway || asked.Load() != 1 {
		t.Errorf("the caller got %d, and instances %d calls, want 502 and one", got.status, asked.Load())
	}
}
