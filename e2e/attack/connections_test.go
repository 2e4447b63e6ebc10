package attack

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// answersHealth reports whether a client at another address gets /healthz within a second.
func answersHealth(t *testing.T, address string) bool {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/healthz")
	if err != nil {
		t.Logf("health: %v", err)
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TestServer_answers_others_while_one_address_lies_idle opens more keep-alive connections than the
// server may have open files.
func TestServer_answers_others_while_one_address_lies_idle(t *testing.T) {
	t.Parallel()
	const files, connections = 1500, 2000
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil || own.Cur < 2*connections {
		t.Skipf("this process may open %d files only", own.Cur)
	}
	address := local.Address(testenv.FreePort(t))
	server := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" serve --listen %s --admin-listen off`, files, address), testenv.Binary(t))
	server.Dir, server.Env = t.TempDir(), append(os.Environ(), harness.Settings(harness.Databases["SQLite"](t))...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	testenv.Eventually(t, "the server is healthy", func() bool { return answersHealth(t, address) })
	for range connections {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			continue // the server may refuse
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") // then it lies idle
	}
	if !answersHealth(t, address) {
		t.Error("a client at another address gets no answer")
	}
}
