package testenv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// How long a process may take; each is generous, so that only a hang fails.
const (
	readyLimit = 60 * time.Second // from start to an answer on /readyz
	stopLimit  = 30 * time.Second // from SIGTERM to the end
)

// Build is what differs in a binary of the server from the one that is released.
type Build struct {
	Skew       time.Duration // by which its wall clock is ahead
	Migrations string        // a directory in place of ent/migrate: that of another release
}

func (b Build) flags() (flags string) {
	const set = "-X=github.com/backplane-dev/backplane/internal/"
	if b.Skew != 0 {
		flags += set + "dbclock.testSkew=" + b.Skew.String() + " "
	}
	if b.Migrations != "" {
		flags += set + "store.testMigrations=" + b.Migrations
	}
	return flags
}

// suffix tells the binaries of a run apart.
func (b Build) suffix() string {
	if b == (Build{}) {
		return ""
	}
	sum := sha256.Sum256([]byte(b.flags()))
	return "." + hex.EncodeToString(sum[:6])
}

// Process is the built server, running as a process of its own. It ends with
// its test, whose log gets its output if the test failed. Its methods are for
// the goroutine of the test.
type Process struct {
	BaseURL string // without a slash at the end; the same after a restart
	Dir     string // its working directory, where data/ lies

	t     testing.TB
	build Build
	args  []string // of serve
	env   []string
	out   *Output
	file  *os.File // what it writes to instead of out; nil for out
	cmd   *exec.Cmd
	ended chan struct{} // closed once cmd has ended
	err   error         // how it ended; read after ended is closed
}

// Server builds the server, starts it on a free loopback port with an empty
// directory for its data, and returns once it is ready. Each env is NAME=value;
// of our own environment the BACKPLANE variables are not handed on.
func Server(t testing.TB, env ...string) *Process {
	t.Helper()
	return ServerWith(t, nil, env...)
}

// ServerWith is Server with arguments for serve.
func ServerWith(t testing.TB, args []string, env ...string) *Process {
	t.Helper()
	return startServer(t, &Process{args: args}, env)
}

// ServerWritingTo is Server whose output and log go to the file.
func ServerWritingTo(t testing.TB, file *os.File, env ...string) *Process {
	t.Helper()
	return startServer(t, &Process{file: file}, env)
}

// ServerWithSkew is Server on a machine whose wall clock is ahead by so much.
func ServerWithSkew(t testing.TB, skew time.Duration, env ...string) *Process {
	t.Helper()
	return ServerOf(t, Build{Skew: skew}, env...)
}

// ServerOf is Server of another build.
func ServerOf(t testing.TB, build Build, env ...string) *Process {
	t.Helper()
	return startServer(t, &Process{build: build}, env)
}

func startServer(t testing.TB, p *Process, env []string) *Process {
	t.Helper()
	addr := local.Address(FreePort(t))
	p.BaseURL, p.Dir, p.t, p.out = "http://"+addr, t.TempDir(), t, &Output{}
	p.env = append(cleanEnv(), "BACKPLANE_LISTEN="+addr, "BACKPLANE_ADMIN_LISTEN=off", "BACKPLANE_STOP_DELAY=0s")
	p.env = append(p.env, env...)
	t.Cleanup(p.cleanup)
	p.Start()
	return p
}

// Binary returns the path of the server's binary, which one test of the run builds.
func Binary(t testing.TB) string {
	t.Helper()
	return BinaryOf(t, Build{})
}

// BinaryOf is Binary of another build.
func BinaryOf(t testing.TB, build Build) string {
	t.Helper()
	path, err := binaryPath()
	if err != nil {
		t.Fatal(err)
	}
	path += build.suffix()
	if err := buildOnce(path, build); err != nil {
		t.Fatal(err)
	}
	return path
}

var binaryPath = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(local.Binary); path != "" {
		return path, nil
	}
	dir, err := local.TempDir("binary")
	return filepath.Join(dir, "backplane"), err
})

// buildOnce builds the server unless another process or test of the run has. A lock on a
// file beside it makes the others wait.
func buildOnce(path string, b Build) error {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := build(path+".new", b); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func build(path string, b Build) error {
	if out, err := exec.Command("go", "build", "-ldflags", b.flags(), "-o", path, "github.com/backplane-dev/backplane").CombinedOutput(); err != nil {
		return fmt.Errorf("build the server: %w: %s", err, out)
	}
	return nil
}

// Start starts the process, which must not be running, and waits until it is
// ready.
func (p *Process) Start() {
	p.t.Helper()
	cmd := exec.Command(BinaryOf(p.t, p.build), append([]string{"serve"}, p.args...)...)
	cmd.Dir, cmd.Env = p.Dir, p.env
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if p.file != nil {
		cmd.Stdout, cmd.Stderr = p.file, p.file
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start the server: %v", err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		defer close(ended)
		p.err = cmd.Wait()
	}()
	p.awaitReady()
}

// awaitReady polls: a process that comes up gives no other sign.
func (p *Process) awaitReady() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), readyLimit)
	defer cancel()
	for !p.ready(ctx) {
		select {
		case <-p.ended:
			p.t.Fatalf("the server ended instead of serving: %v", p.err)
		case <-ctx.Done():
			p.t.Fatalf("the server was not ready within %v", readyLimit)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *Process) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.BaseURL+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Kill ends the process at once, as a crash would, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

// Freeze halts the process where it is (SIGSTOP): it holds its connections and
// answers no request. Kill still ends it; Stop must wait for Thaw.
func (p *Process) Freeze() {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	Eventually(p.t, "the process has halted", func() bool { return hasHalted(p.cmd.Process.Pid) })
}

// hasHalted reports whether every thread of the process has halted: one that runs goes on for a moment after the signal was sent. Where there is no /proc
// it reports true.
func hasHalted(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return true
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		if _, state, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// Thaw lets a frozen process go on (SIGCONT), as if no time had passed.
func (p *Process) Thaw() {
	p.t.Helper()
	p.Signal(syscall.SIGCONT)
}

// Signal sends the process a signal.
func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("send the server %v: %v", sig, err)
	}
}

// Stop asks the process to end and waits for it. It fails the test if the
// process does not end in time or reports an error.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("stop the server: %v", err)
	}
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("the server ended with %v, want no error", p.err)
		}
	case <-time.After(stopLimit):
		p.Kill()
		p.t.Errorf("the server had not ended %v after SIGTERM", stopLimit)
	}
}

// Wait waits until the process has ended and returns how.
func (p *Process) Wait() error {
	<-p.ended
	return p.err
}

// Restart stops the process, if it runs, and starts it again on the same
// address and data.
func (p *Process) Restart() {
	p.t.Helper()
	select {
	case <-p.ended:
	default:
		p.Stop()
	}
	p.Start()
}

// Logs returns what the process has written so far, over all its starts.
func (p *Process) Logs() string { return p.out.String() }

// PID returns the id of the running process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Run runs another command of the server with the same directory, database and
// environment, and returns what it wrote.
func (p *Process) Run(args ...string) (string, error) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), BinaryOf(p.t, p.build), args...)
	cmd.Dir, cmd.Env = p.Dir, p.env
	return OutputOf(cmd)
}

// OutputOf runs a command and returns its standard output, and of one that fails what it wrote to standard error, too.
func OutputOf(cmd *exec.Cmd) (string, error) {
	var out, both Output
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &both), &both
	if err := cmd.Run(); err != nil {
		return both.String(), err
	}
	return out.String(), nil
}

func (p *Process) cleanup() {
	if p.cmd != nil && p.cmd.Process != nil {
		p.Kill()
	}
	if p.t.Failed() {
		p.t.Logf("the server wrote:\n%s", p.Logs())
	}
}

// cleanEnv is our environment without what configures the server.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "BACKPLANE_") {
			env = append(env, v)
		}
	}
	return env
}

// Output collects what a process writes while a test may read it.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
