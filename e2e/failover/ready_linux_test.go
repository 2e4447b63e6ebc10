package failover

import (
	"fmt"
	"math"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// limitFileSize bounds the size of the files that a process writes, as a full disk does.
func limitFileSize(t *testing.T, p *testenv.Process, bytes uint64) {
	t.Helper()
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: math.MaxUint64}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestReady_needs_room_for_the_SQLite_file(t *testing.T) {
	t.Parallel()
	node := harness.StartServer(t, testenv.SQLite(t))
	root := harness.SignInAdmin(t, node)
	limitFileSize(t, node, 4096)
	code := root.RefusalCode(t, `mutation { createProduct(input: {sku: "A", name: "A", price: {amount: "1.00", currency: "EUR"}}) { product { id } } }`, nil)
	if code != "UNAVAILABLE" {
		t.Errorf("a change without room was answered with %q, want UNAVAILABLE", code)
	}
	awaitReadiness(t, node, http.StatusServiceUnavailable)
	limitFileSize(t, node, math.MaxUint64)
	awaitReadiness(t, node, http.StatusOK)
	for n := range 3 {
		harness.CreateProduct(t, root, fmt.Sprint("B", n), 1)
	}
}
