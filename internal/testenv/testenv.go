// Package testenv gives tests the real thing: databases on a real PostgreSQL
// and Redis, brokers (RabbitMQ, NATS, Redis) that a test may stop and start
// again, the built server as a process of its own, and a proxy that cuts and
// stalls connections.
//
// Each test that asks for a broker starts its own. The databases' servers come
// from the environment (BACKPLANE_TEST_POSTGRES_URL and BACKPLANE_TEST_REDIS_URL,
// which the program in run sets) or are started privately from installed
// binaries, once per test process. A test whose server is not to be had is left
// out, in words that the run repeats at its end; with CI=true it fails, so that
// nothing goes untested unnoticed.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// LeaveOut skips the test because what it needs is missing, and says so at the
// end of the run. In CI it fails the test instead. Why says how that is known.
func LeaveOut(t testing.TB, what string, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI leaves nothing out: %v", what, why)
	}
	if err := noteLeftOut(t.Name(), fmt.Sprintf("%s is missing: %v", what, why)); err != nil {
		t.Fatalf("note that %s is missing: %v", what, err)
	}
	t.Skipf("left out, as %s is missing: %v", what, why)
}

// noteLeftOut adds a line for the end of the run, if there is to be one: package,
// test and reason. Other test binaries add theirs at the same time; appending
// keeps lines whole.
func noteLeftOut(test, reason string) error {
	path := os.Getenv(local.LeftOut)
	if path == "" {
		return nil
	}
	dir, err := os.Getwd() // tests run in the directory of their package
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	pkg := filepath.Base(dir)
	if _, err := os.Stat("go.mod"); err == nil {
		pkg = "." // the root's directory may be called anything
	}
	_, err = fmt.Fprintf(f, "%s\t%s\t%s\n", pkg, test, strings.Join(strings.Fields(reason), " "))
	return err
}

// Soak reports whether tests are to run at their large size, as make soak asks.
func Soak() bool { return os.Getenv("BACKPLANE_TEST_SOAK") == "on" }

// Node returns the path of Node.js; without it the test is left out.
func Node(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err == nil {
		_, err = exec.LookPath("npm")
	}
	if err != nil {
		LeaveOut(t, "Node.js", err)
	}
	return path
}

// Python returns the path of Python 3; without it the test is left out.
func Python(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		LeaveOut(t, "Python", err)
	}
	return path
}

// Browser returns the path of a Chromium. A test that needs it is left out on a machine without
// it.
func Browser(t testing.TB) string {
	t.Helper()
	var missing error
	for _, name := range []string{"chromium-headless-shell", "headless_shell", "chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"} {
		path, err := exec.LookPath(name)
		if err == nil {
			return path
		}
		missing = err
	}
	LeaveOut(t, "A browser", missing)
	return ""
}

// FreePort returns a free loopback port.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := local.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// server returns a function that finds a server once per process: the
// environment's if the variable is set, else one that start starts. That one
// ends with the process.
func server(variable string, start func() (*local.Server, error)) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if url := os.Getenv(variable); url != "" {
			return url, nil
		}
		s, err := start()
		if err != nil {
			return "", err
		}
		return s.URL, nil
	})
}
