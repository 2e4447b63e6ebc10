package services

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// programVariable makes this test binary a program that serves at the address in it.
const programVariable = "BACKPLANE_SERVICES_TEST_PROGRAM"

// Exit codes of the program.
const (
	codeOfTerm = 7 // after SIGTERM
	codeOfQuit = 3 // after GET /quit
)

func TestMain(m *testing.M) {
	if address := os.Getenv(programVariable); address != "" {
		serveProgram(address)
	}
	os.Exit(m.Run())
}

// serveProgram is a service that knows nothing of Backplane.
func serveProgram(address string) {
	http.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /quit", func(http.ResponseWriter, *http.Request) { os.Exit(codeOfQuit) })
	http.HandleFunc("GET /key", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "key %q", os.Getenv("BACKPLANE_API_KEY"))
	})
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	http.HandleFunc("GET /hangup", func(http.ResponseWriter, *http.Request) { <-hangups })
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(codeOfTerm)
	}()
	fmt.Fprintln(os.Stderr, http.ListenAndServe(address, nil))
	os.Exit(1)
}

// sidecar is a run of backplane register.
type sidecar struct {
	cmd *exec.Cmd
	url string

	mu  sync.Mutex
	log bytes.Buffer
}

// Write collects the log.
func (s *sidecar) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

// startSidecar registers the program as an instance of the service till.
func startSidecar(t *testing.T, p *testenv.Process, key string, flags ...string) *sidecar {
	t.Helper()
	s := newSidecar(t, p, key, flags...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func newSidecar(t *testing.T, p *testenv.Process, key string, flags ...string) *sidecar {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s := &sidecar{url: "http://" + address}
	args := append([]string{"register", "--service", "till", "--url", s.url, "--check", "/healthz", "--server", p.BaseURL, "--drain-time", "300ms"}, flags...)
	s.cmd = exec.CommandContext(t.Context(), testenv.Binary(t), append(args, "--", os.Args[0])...)
	s.cmd.Env = append(os.Environ(), programVariable+"="+address, "BACKPLANE_API_KEY="+key)
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) } // so that the program ends, too
	return s
}

// wait returns the exit code.
func (s *sidecar) wait(t *testing.T) int {
	t.Helper()
	err := s.cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

// instances returns the ids of the instances of till that pass.
func instances(t *testing.T, root harness.Caller) (passing []string) {
	t.Helper()
	data := root.Do(t, harness.ReadService, map[string]any{"name": "till"})
	nodes, _ := harness.At(data, "service", "instances", "nodes").([]any)
	for _, node := range nodes {
		if harness.Text(node, "status") == "PASSING" {
			passing = append(passing, harness.Text(node, "instanceId"))
		}
	}
	return passing
}

func TestRegister_runs_a_program_as_an_instance(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	harness.CreateUserWithRole(t, p, root, "robot", "SERVICE")
	key := harness.WithAPIKey(t, root, "robot", "service:till").Token
	hasInstance := func(want string) func() bool {
		return func() bool { return strings.Join(instances(t, root), " ") == want }
	}

	s := startSidecar(t, p, key, "--instance", "till-1")
	harness.Eventually(t, "the instance passes", hasInstance("till-1"))
	answer := root.MustREST(t, http.StatusOK, "GET /gateway/till/key", "")
	if got := string(answer.Body); got != `key ""` {
		t.Errorf("the program answers %q through the gateway, want no API key in its environment", got)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(t); code != codeOfTerm || !hasInstance("")() {
		t.Errorf("after SIGTERM the exit code is %d and the instances are %v, want %d and none\n%s", code, instances(t, root), codeOfTerm, s.log.String())
	}

	s = startSidecar(t, p, key, "--instance", "till-2")
	harness.Eventually(t, "the instance passes", hasInstance("till-2"))
	_, _ = http.Get(s.url + "/quit") //nolint:bodyclose // the program ends without an answer
	if code := s.wait(t); code != codeOfQuit || !hasInstance("")() {
		t.Errorf("after its program has ended the exit code is %d and the instances are %v, want %d and none\n%s", code, instances(t, root), codeOfQuit, s.log.String())
	}

	first := startSidecar(t, p, key, "--instance", "till-3", "--ttl", "2s")
	harness.Eventually(t, "the instance passes", hasInstance("till-3"))
	second := startSidecar(t, p, key, "--instance", "till-3", "--ttl", "2s")
	if code := first.wait(t); code != 1 || !strings.Contains(first.log.String(), "another process has registered till-3") {
		t.Errorf("a sidecar whose instance another process has registered ends with %d\n%s", code, first.log.String())
	}
	if _, err := http.Get(first.url + "/healthz"); err == nil { //nolint:bodyclose // there should be none
		t.Error("its program runs on")
	}
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	second.wait(t)
}

func TestRegister_outlives_the_reader_of_its_log_and_its_terminal(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	harness.CreateUserWithRole(t, p, root, "robot", "SERVICE")
	s := newSidecar(t, p, harness.WithAPIKey(t, root, "robot", "service:till").Token, "--instance", "till-1", "--ttl", "2s")
	reader, log, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := errors.Join(s.cmd.Start(), reader.Close(), log.Close()); err != nil { // "registered" is a record
		t.Fatal(err)
	}
	harness.Eventually(t, "the instance passes", func() bool { return len(instances(t, root)) == 1 })
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(s.url + "/hangup")
	if err != nil {
		t.Fatalf("the program got no SIGHUP: %v", err)
	}
	_ = resp.Body.Close()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(t); code != codeOfTerm || len(instances(t, root)) != 0 {
		t.Errorf("after SIGTERM the exit code is %d and the instances are %v, want %d and none", code, instances(t, root), codeOfTerm)
	}
}

func TestRegister_says_why_it_cannot_register(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	harness.CreateUserWithRole(t, p, root, "robot", "SERVICE")
	for name, tt := range map[string]struct {
		key   string
		flags []string
		want  string
		code  int
	}{
		"no key":            {"", nil, "BACKPLANE_API_KEY must hold an API key", 2},
		"another service":   {harness.WithAPIKey(t, root, "robot", "service:other").Token, nil, "FORBIDDEN", 1},
		"an unusable URL":   {"key", []string{"--url", "till:9000"}, "--url must be http or https", 2},
		"an unusable check": {"key", []string{"--check", "healthz"}, "--check must begin with a slash", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSidecar(t, p, tt.key, tt.flags...)
			if code := s.wait(t); code != tt.code || !strings.Contains(s.log.String(), tt.want) {
				t.Errorf("exit code %d, want %d and %q\n%s", code, tt.code, tt.want, s.log.String())
			}
		})
	}
}
