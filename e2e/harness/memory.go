package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// ResidentBytes returns the resident memory of the process in bytes.
func ResidentBytes(t *testing.T, p *testenv.Process) int { return readStatus(t, p, "VmRSS:") }

// PeakBytes returns the most resident memory that the process has had, in bytes.
func PeakBytes(t *testing.T, p *testenv.Process) int { return readStatus(t, p, "VmHWM:") }

func readStatus(t *testing.T, p *testenv.Process, name string) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "status"))
	if err != nil {
		t.Skip("there is no /proc to see memory in")
	}
	_, rest, _ := strings.Cut(string(status), name)
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// clockTick is the unit of times in /proc, which is the same on all Linux systems in use.
const clockTick = 10 * time.Millisecond

// ProcessorTime returns the processor time that the process has used.
func ProcessorTime(t *testing.T, p *testenv.Process) time.Duration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "stat"))
	if err != nil {
		t.Skip("there is no /proc to see processor time in")
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
	var ticks int
	for _, field := range strings.Fields(rest)[11:13] { // of the user and of the system
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}
