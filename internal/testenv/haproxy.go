package testenv

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// haproxyTimes are what HAProxy refuses to do without.
const haproxyTimes = `
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
`

// HAProxy starts HAProxy on a free loopback port, with the lines below "listen" that say what it
// does, and returns the address that it listens on. It ends with its test.
func HAProxy(t testing.TB, lines string) (address string) {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			LeaveOut(t, "HAProxy", err)
		}
	}
	address = local.Address(FreePort(t))
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := "global\n  maxconn 4000\n" + haproxyTimes + "listen proxy\n  bind " + address + "\n" + lines + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-db", "-q", "-f", config)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start HAProxy: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	Eventually(t, "HAProxy listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return address
}
