package connection_test

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// alone is set in a process that runs nothing but one test, so that its
// goroutines can be counted.
const alone = "STREAM_TEST_ALONE"

// TestServer_leaves_no_goroutine_of_connections_that_are_cut cuts real connections. The
// bubbles of the other tests show the same for pipes, which have no resets.
func TestServer_leaves_no_goroutine_of_connections_that_are_cut(t *testing.T) {
	t.Parallel()
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), alone+"=yes")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	rounds := 20
	if testenv.Soak() {
		rounds = 500
	}
	opened := make(chan struct{}, 100)
	go func() {
		for range opened {
		}
	}()
	addr, stop := serveIdle(t, opened)
	defer stop()
	_ = openSocket(t, addr).Close() // what the first one leaves is not each one's
	awaitGoroutines(t, runtime.NumGoroutine())
	before := runtime.NumGoroutine()
	for range rounds {
		cutMany(t, addr)
	}
	awaitGoroutines(t, before)
}

// cutMany opens connections and resets each a little later, while others open.
func cutMany(t *testing.T, addr string) {
	t.Helper()
	var all sync.WaitGroup
	for i := range 50 {
		open := openSocket
		if i%2 == 0 {
			open = openEvents
		}
		conn := open(t, addr).(*net.TCPConn)
		all.Go(func() {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
			_ = conn.SetLinger(0) // close by a reset
			_ = conn.Close()
		})
	}
	all.Wait()
}

// awaitGoroutines waits until there are no more than n.
func awaitGoroutines(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines are left, want %d:\n%s", runtime.NumGoroutine(), n, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
