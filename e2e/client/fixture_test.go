package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/client"
	"github.com/backplane-dev/backplane/internal/testenv"
)

const (
	adminName     = "root"
	adminPassword = "correct horse battery staple"
)

// childVariable makes this test binary a process of its own that has an instance:
// it holds the Registration as JSON.
const childVariable = "BACKPLANE_CLIENT_TEST_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		os.Exit(beInstance(text))
	}
	os.Exit(runWithExamples(m))
}

// order is what a child process must do.
type order struct {
	URLs  []string
	Token string
	Reg   client.Registration
}

// beInstance registers, says so, and says how it ended; it leaves when its
// standard input is closed.
func beInstance(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stdout, "order", err)
		return 1
	}
	c, err := client.New(client.Config{URLs: o.URLs, Token: o.Token})
	if err != nil {
		fmt.Fprintln(os.Stdout, "new", err)
		return 1
	}
	r, err := c.Register(context.Background(), o.Reg)
	if err != nil {
		fmt.Fprintln(os.Stdout, "refused", client.Code(err))
		return 1
	}
	fmt.Fprintln(os.Stdout, "registered", r.State().Incarnation)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = r.Close(context.Background())
	}()
	<-r.Done()
	fmt.Fprintln(os.Stdout, "ended", client.Code(r.Err()))
	return 0
}

// child is a process that has an instance.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	lines chan string
}

// startPiped starts a process and returns its standard input and output.
func startPiped(t *testing.T, cmd *exec.Cmd) (stdin io.WriteCloser, stdout io.Reader) {
	t.Helper()
	var err error
	stdin, err = cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return stdin, stdout
}

// spawn starts a process with the instance. It ends with the test.
func spawn(t *testing.T, o order) *child {
	t.Helper()
	o.Reg.Inflight = nil
	text, err := json.Marshal(struct {
		URLs  []string
		Token string
		Reg   map[string]any
	}{o.URLs, o.Token, map[string]any{"Service": o.Reg.Service, "Instance": o.Reg.Instance, "URL": o.Reg.URL, "TTL": o.Reg.TTL, "Drain": o.Reg.Drain}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	stdin, stdout := startPiped(t, cmd)
	c := &child{t, cmd, stdin, make(chan string, 16)}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()
	})
	return c
}

// says waits for what the process says next.
func (c *child) says() string {
	c.t.Helper()
	select {
	case line := <-c.lines:
		return line
	case <-time.After(time.Minute):
		c.t.Fatal("the process says nothing")
		return ""
	}
}

func (c *child) send(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// registry is a server with an ADMIN, and what tests ask of it.
type registry struct {
	*testenv.Process
	t     testing.TB
	token string // of ADMIN
}

var settings = []string{
	"BACKPLANE_SECRET_KEY=" + strings.Repeat("k", 43), "BACKPLANE_RATE_LIMIT=off",
	"BACKPLANE_ADMIN_USERNAME=" + adminName, "BACKPLANE_ADMIN_PASSWORD=" + adminPassword,
}

func startRegistry(t testing.TB, env ...string) *registry {
	t.Helper()
	r := &registry{Process: testenv.ServerWith(t, []string{"--migrate"}, append(slices.Clip(settings), env...)...), t: t}
	r.signIn()
	return r
}

// signIn signs ADMIN in: its token lasts for five minutes.
func (r *registry) signIn() {
	r.t.Helper()
	data := r.do(`mutation($p: String!) { signIn(input: {login: "root", password: $p}) { session { accessToken } userErrors { code } } }`, map[string]any{"p": adminPassword})
	r.token = find[string](data, "signIn", "session", "accessToken")
}

// do sends an operation that must be answered without errors.
func (r *registry) do(query string, vars map[string]any) map[string]any {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": vars})
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, r.BaseURL+"/graphql", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct {
		Data   map[string]any
		Errors []map[string]any
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || len(a.Errors) > 0 {
		r.t.Fatalf("%s gave %v, %v", query, a.Errors, err)
	}
	return a.Data
}

// find walks into decoded JSON; it returns the zero value if there is none.
func find[T any](v any, path ...string) T {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	found, _ := v.(T)
	return found
}

// key makes an API key of ADMIN with the scopes.
func (r *registry) key(scopes string) string {
	r.t.Helper()
	out, err := r.Run("apikey", "--user", adminName, "--name", "test", "--scopes", scopes)
	if err != nil {
		r.t.Fatalf("apikey: %v: %s", err, out)
	}
	key, _, _ := strings.Cut(out, "\n")
	return key
}

// revoke revokes all keys of ADMIN.
func (r *registry) revoke() {
	r.t.Helper()
	data := r.do(`{ viewer { apiKeys { id revokedAt } } }`, nil)
	for _, k := range find[[]any](data, "viewer", "apiKeys") {
		if id := find[string](k, "id"); find[string](k, "revokedAt") == "" {
			r.do(`mutation($id: ID!) { revokeApiKey(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})
		}
	}
}

// define makes a service, and returns a client that may do all with it.
func (r *registry) define(s client.Service) *client.Client {
	r.t.Helper()
	c := r.client(client.Config{URLs: []string{r.BaseURL}, Token: r.key("service:" + s.Name)})
	if err := c.DefineService(r.t.Context(), s); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *registry) client(cfg client.Config) *client.Client {
	r.t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// status is what the registry says of an instance: its status and reason, empty
// if there is none.
func (r *registry) status(service, instance string) string {
	r.t.Helper()
	data := r.do(`query($n: String!) { service(name: $n) { instances { nodes { instanceId status statusReason } } } }`, map[string]any{"n": service})
	for _, n := range find[[]any](data, "service", "instances", "nodes") {
		if find[string](n, "instanceId") == instance {
			return strings.TrimSpace(find[string](n, "status") + " " + find[string](n, "statusReason"))
		}
	}
	return ""
}

// register registers an instance that leaves at the end of the test.
func register(t *testing.T, c *client.Client, reg client.Registration) *client.Registered {
	t.Helper()
	r, err := c.Register(t.Context(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second) // the server may be gone
		defer cancel()
		_ = r.Close(ctx)
	})
	return r
}

func watch(t *testing.T, c *client.Client, service string) *client.Watch {
	t.Helper()
	w, err := c.Watch(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// until waits for a set of the watch that is as it should be.
func until(t *testing.T, w *client.Watch, what string, holds func(*client.Set) bool) *client.Set {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for set := w.Set(); ; {
		if holds(set) {
			return set
		}
		next, err := w.Next(ctx, set)
		if err != nil {
			t.Fatalf("waited in vain until %s: %v; the set is %+v", what, err, *set)
		}
		set = next
	}
}

// ids are the instances of a set by the ids that their owners gave them.
func ids(set *client.Set) string {
	var all []string
	for _, i := range set.Instances {
		all = append(all, i.InstanceID)
	}
	return strings.Join(all, " ")
}

// ended waits until the channel is closed.
func ended(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("waited in vain until %s", what)
	}
}

// exampleRegistry is what examples speak with: a real server, started when the
// first of them asks.
var exampleRegistry = struct {
	sync.Mutex
	tb *processTB
	*registry
}{}

// processTB lets what is made for tests serve examples, which have no testing.T.
type processTB struct {
	testing.TB // of none; only what is below is used
	cleanups   []func()
}

func (p *processTB) Helper()                   {}
func (p *processTB) Failed() bool              { return false }
func (p *processTB) Logf(string, ...any)       {}
func (p *processTB) Cleanup(f func())          { p.cleanups = append(p.cleanups, f) }
func (p *processTB) Context() context.Context  { return context.Background() }
func (p *processTB) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (p *processTB) Fatalf(s string, a ...any) { panic(fmt.Sprintf(s, a...)) }

func (p *processTB) TempDir() string {
	dir, err := os.MkdirTemp("", "backplane-example")
	if err != nil {
		panic(err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// runWithExamples runs the tests, and ends what examples have started.
func runWithExamples(m *testing.M) int {
	defer func() {
		if tb := exampleRegistry.tb; tb != nil {
			for _, end := range slices.Backward(tb.cleanups) {
				end()
			}
		}
	}()
	return m.Run()
}

// registryFor returns the URL of a registry, and an API key for the service.
func registryFor(service string) (url, key string) {
	exampleRegistry.Lock()
	defer exampleRegistry.Unlock()
	if exampleRegistry.tb == nil {
		exampleRegistry.tb = &processTB{}
		exampleRegistry.registry = startRegistry(exampleRegistry.tb)
	}
	return exampleRegistry.BaseURL, exampleRegistry.key("service:" + service)
}
