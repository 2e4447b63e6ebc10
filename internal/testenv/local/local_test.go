package local_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// start is a server's constructor.
type start func() (*local.Server, error)

// starters are the servers under test, by name.
func starters() map[string]start {
	return map[string]start{"PostgreSQL": local.Postgres, "Redis": local.Redis}
}

// parent names the server that this test binary is to start and wait beside.
const parent = "BACKPLANE_TEST_PARENT_OF"

func TestMain(m *testing.M) {
	if name := os.Getenv(parent); name != "" {
		s, err := starters()[name]()
		if err != nil {
			fmt.Fprintln(os.Stdout, "error:", err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stdout, s.URL)
		select {}
	}
	os.Exit(m.Run())
}

func TestServer(t *testing.T) {
	t.Parallel()
	for name, start := range starters() {
		t.Run(name+" ends when it is stopped", func(t *testing.T) {
			t.Parallel()
			s, err := start()
			if errors.Is(err, local.ErrMissing) {
				testenv.LeaveOut(t, name, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !listening(t, s.URL) {
				t.Errorf("no server listens on %s", s.URL)
			}
			s.Stop()
			s.Stop()
			if listening(t, s.URL) {
				t.Errorf("a server still listens on %s", s.URL)
			}
		})
		t.Run(name+" ends when the process that started it is killed", func(t *testing.T) {
			t.Parallel()
			serverURL := killedParentOf(t, name)
			for deadline := time.Now().Add(30 * time.Second); listening(t, serverURL); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("a server still listens on %s", serverURL)
				}
			}
		})
	}
}

// killedParentOf starts the server from a process that it then kills.
func killedParentOf(t *testing.T, name string) (serverURL string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parent+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.Contains(line, local.ErrMissing.Error()) {
		testenv.LeaveOut(t, name, errors.New(strings.TrimSpace(line)))
	}
	if err != nil || strings.HasPrefix(line, "error:") {
		t.Fatalf("the process said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return strings.TrimSpace(line)
}

func listening(t *testing.T, serverURL string) bool {
	t.Helper()
	u, err := url.Parse(serverURL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
