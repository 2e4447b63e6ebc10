package attack

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
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

// startWithFiles starts a server that may have so many files open, and returns its addresses and
// its log.
func startWithFiles(t *testing.T, files int) (api, admin string, log *testenv.Output) {
	t.Helper()
	api, admin, log = local.Address(testenv.FreePort(t)), local.Address(testenv.FreePort(t)), &testenv.Output{}
	server := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" serve --listen %s --admin-listen %s`, files, api, admin), testenv.Binary(t))
	server.Dir, server.Env = t.TempDir(), append(os.Environ(), harness.Settings(harness.Databases["SQLite"](t))...)
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	testenv.Eventually(t, "the server is healthy", func() bool { return answersHealth(t, api) })
	return api, admin, log
}

// sendFromMany sends the request over so many connections of this process, which stay open.
func sendFromMany(t *testing.T, address string, connections int, request string) {
	t.Helper()
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil || own.Cur < 2*uint64(connections) {
		t.Skipf("this process may open %d files only", own.Cur)
	}
	for range connections {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			continue // the server may refuse
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, request)
	}
}

// TestServer_answers_others_while_one_address_lies_idle opens more keep-alive connections than the
// server may have open files.
func TestServer_answers_others_while_one_address_lies_idle(t *testing.T) {
	t.Parallel()
	api, _, _ := startWithFiles(t, 1500)
	sendFromMany(t, api, 2000, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if !answersHealth(t, api) {
		t.Error("a client at another address gets no answer")
	}
}

// TestServer_answers_others_within_few_files opens more event streams than the server may have open
// files, of which it may have hardly any.
func TestServer_answers_others_within_few_files(t *testing.T) {
	t.Parallel()
	api, admin, log := startWithFiles(t, 256)
	const body = `{"query":"subscription{events{cursor}}"}`
	sendFromMany(t, api, 1000, fmt.Sprintf("POST /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	for range 20 {
		if !answersHealth(t, api) || !answersHealth(t, admin) {
			t.Fatal("a client at another address gets no answer")
		}
	}
	for _, want := range []string{"the limit of open files is too low", "connections refused"} {
		testenv.Eventually(t, "the log says: "+want, func() bool { return strings.Contains(log.String(), want) })
	}
}
