package payments

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// secret signs callbacks in all tests.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// program is an example of a payment service.
type program struct {
	command func(t testing.TB) []string
	seconds func(d time.Duration) string // a time as its flags are written
}

var programs = map[string]program{
	"Go": {goCommand, time.Duration.String},
	"Python": {func(t testing.TB) []string {
		return []string{testenv.Python(t), "-B", "../../examples/payment-service-python/payment_service.py"}
	}, func(d time.Duration) string { return fmt.Sprint(d.Seconds()) }},
}

// goCommand builds the example in Go, once.
func goCommand(t testing.TB) []string {
	t.Helper()
	path, err := buildExample()
	if err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

var buildExample = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "backplane-payment-service-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "payment-service")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "../../examples/payment-service")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the payment service: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := buildExample(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// shop is a server that payment services register with.
type shop struct {
	nodes []*testenv.Process
	root  harness.Caller
	key   string // with the scope service:payment-service
}

// newShop creates the service, marked as payment provider, on the server, and a key for its instances.
func newShop(t *testing.T, nodes ...*testenv.Process) *shop {
	t.Helper()
	root := harness.SignInAdmin(t, nodes[0])
	id := harness.CreateService(t, root, serviceName, "30s")
	root.Do(t, `mutation($id: ID!) { updateService(input: {id: $id, paymentProvider: true}) { userErrors { code } } }`, harness.Fields{"id": id})
	harness.CreateUserWithRole(t, nodes[0], root, "till", "SERVICE")
	return &shop{nodes, root, harness.WithAPIKey(t, root, "till", "service:"+serviceName).Token}
}

const serviceName = "payment-service"

// service is a process of a payment service.
type service struct {
	t        testing.TB
	url      string
	instance string
	args     []string
	env      []string
	cmd      *exec.Cmd
	out      *testenv.Output
}

// start starts an instance, and waits until it can be called.
func (s *shop) start(t testing.TB, p program, instance, database string, flags ...string) *service {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	urls := make([]string, len(s.nodes))
	for n, node := range s.nodes {
		urls[n] = node.BaseURL
	}
	args := append(p.command(t), "--registry", strings.Join(urls, ","), "--instance", instance, "--listen", address, "--database", database)
	v := &service{t: t, url: "http://" + address, instance: instance, args: append(args, flags...), out: &testenv.Output{}}
	v.env = append(os.Environ(), "BACKPLANE_API_KEY="+s.key, "PAYMENT_CALLBACK_SECRET="+secret)
	v.start()
	t.Cleanup(func() {
		v.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", instance, v.out)
		}
	})
	return v
}

func (v *service) start() {
	v.t.Helper()
	v.cmd = exec.Command(v.args[0], v.args[1:]...)
	v.cmd.Env, v.cmd.Stdout, v.cmd.Stderr = v.env, v.out, v.out
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	testenv.Eventually(v.t, v.instance+" serves", func() bool {
		resp, err := http.Get(v.url + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill ends the process at once, as kill -9 does.
func (v *service) kill() {
	if v.cmd.ProcessState == nil {
		_ = v.cmd.Process.Kill() // it may have ended by itself
		_ = v.cmd.Wait()
	}
}

// terminate ends the process by SIGTERM, and returns its exit code.
func (v *service) terminate() int {
	v.t.Helper()
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		v.t.Fatal(err)
	}
	err := v.cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		v.t.Fatal(err)
	}
	return v.cmd.ProcessState.ExitCode()
}

// statusOf returns the status of the instance in the registry, empty if there is none.
func (s *shop) statusOf(t testing.TB, instance string) string {
	t.Helper()
	for _, i := range harness.At(s.root.Do(t, harness.ReadService, harness.Fields{"name": serviceName}), "service", "instances", "nodes").([]any) {
		if harness.Text(i, "instanceId") == instance {
			return harness.Text(i, "status")
		}
	}
	return ""
}
