// Package testenv gives tests the real thing: databases on a real PostgreSQL
// and Redis, and the built server as a process of its own.
//
// The servers come from the environment (BACKPLANE_TEST_POSTGRES_URL and
// BACKPLANE_TEST_REDIS_URL, which package run sets) or are started privately
// from installed binaries, once per test process. A test whose server is not to
// be had is left out, in words that the run repeats at its end; with CI=true it
// fails, so that nothing goes untested unnoticed.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"backplane/internal/testenv/local"
)

// The environment that a run of the tests may bring along.
const (
	PostgresURL = "BACKPLANE_TEST_POSTGRES_URL" // of a user that may create databases
	RedisURL    = "BACKPLANE_TEST_REDIS_URL"
	LeftOut     = "BACKPLANE_TEST_LEFT_OUT" // file to which each test that is left out adds a line
)

// LeaveOut skips the test because what it needs is missing, and says so at the
// end of the run. In CI it fails the test instead. How is the reason.
func LeaveOut(t testing.TB, what string, how error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI leaves nothing out: %v", what, how)
	}
	if err := noteLeftOut(fmt.Sprintf("%s: needs %s: %v\n", t.Name(), what, how)); err != nil {
		t.Fatalf("note that %s is missing: %v", what, err)
	}
	t.Skipf("left out, as %s is missing (make services brings it): %v", what, how)
}

func noteLeftOut(line string) error {
	path := os.Getenv(LeftOut)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line); err != nil {
		return err
	}
	return f.Close()
}

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

// FreePort returns a loopback port that nobody listens on.
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
