package client_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/client"
	"github.com/backplane-dev/backplane/client/policy"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// otherLanguage says how the client of another language is run.
type otherLanguage struct {
	interpreter func(testing.TB) string
	driver      []string // its arguments; it does what a test asks for
	tests       []string // the arguments that run the client's own tests
	dir         string
}

// languages are the clients of other languages.
var languages = map[string]otherLanguage{
	"Node.js": {testenv.Node, []string{"test/driver.mjs"}, []string{"--test", "test/client.test.mjs", "test/policy.test.mjs"}, "../../clients/node"},
	"Python":  {testenv.Python, []string{"-B", "tests/driver.py"}, []string{"-B", "-m", "unittest", "discover", "-s", "tests"}, "../../clients/python"},
}

func TestLanguages_pass_their_own_tests(t *testing.T) {
	t.Parallel()
	eachLanguage(t, func(t *testing.T, l otherLanguage) {
		cmd := exec.CommandContext(t.Context(), l.interpreter(t), l.tests...)
		cmd.Dir = l.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestLanguages_do_as_the_client_in_Go runs the same cases with the clients of all languages, each on a server of its own.
func TestLanguages_do_as_the_client_in_Go(t *testing.T) {
	t.Parallel()
	eachLanguage(t, func(t *testing.T, of otherLanguage) {
		l := &language{command: append([]string{of.interpreter(t)}, of.driver...), dir: of.dir, registry: startRegistry(t)}
		t.Run("while the server runs", func(t *testing.T) {
			for name, test := range languageCases {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(t, l)
				})
			}
		})
		l.stops(t)
		l.survives(t)
	})
}

// eachLanguage runs a test for each language, side by side.
func eachLanguage(t *testing.T, test func(t *testing.T, l otherLanguage)) {
	t.Helper()
	if testing.Short() {
		t.Skip("short run: there are no races of ours in other programs")
	}
	for name, l := range languages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, l)
		})
	}
}

// language is a client of another language with a server.
type language struct {
	command []string
	dir     string
	*registry
}

// driver is a process that uses the client.
type driver struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// languageArgs are the arguments of a command of a driver.
type languageArgs = map[string]any

// start starts a driver whose client has the key.
func (l *language) start(t *testing.T, key string, urls ...string) *driver {
	t.Helper()
	cmd := exec.Command(l.command[0], l.command[1:]...)
	cmd.Dir, cmd.Stderr = l.dir, os.Stderr
	stdin, stdout := startPiped(t, cmd)
	d := &driver{t, cmd, stdin, bufio.NewScanner(stdout)}
	t.Cleanup(d.kill)
	d.must("new", languageArgs{"urls": append(urls, l.BaseURL), "token": key})
	return d
}

// of defines a service by a Go client, and starts a driver that may do all with it.
func (l *language) of(t *testing.T, s client.Service) (*driver, *client.Client) {
	t.Helper()
	key := l.key("service:" + s.Name)
	c := l.client(client.Config{URLs: []string{l.BaseURL}, Token: key})
	if err := c.DefineService(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return l.start(t, key), c
}

func (d *driver) kill() {
	_ = d.cmd.Process.Kill() // it may have ended already
	_ = d.cmd.Wait()
}

// do calls a command; code is that of the error.
func (d *driver) do(name string, args languageArgs) (value any, code string) {
	d.t.Helper()
	line := languageArgs{"do": name}
	maps.Copy(line, args)
	if err := json.NewEncoder(d.stdin).Encode(line); err != nil {
		d.t.Fatal(err)
	}
	var answer struct {
		Value          any
		Error, Message string
	}
	if !d.lines.Scan() {
		d.t.Fatalf("%s: the driver has ended", name)
	}
	if err := json.Unmarshal(d.lines.Bytes(), &answer); err != nil {
		d.t.Fatalf("%s: %v: %s", name, err, d.lines.Bytes())
	}
	if answer.Error != "" {
		d.t.Logf("%s: %s", name, answer.Message)
	}
	return answer.Value, answer.Error
}

func (d *driver) must(name string, args languageArgs) any {
	d.t.Helper()
	value, code := d.do(name, args)
	if code != "" {
		d.t.Fatalf("%s failed with %s", name, code)
	}
	return value
}

// register registers an instance of the service under its id as the key, and returns its incarnation.
func (d *driver) register(service, id string, more languageArgs) float64 {
	d.t.Helper()
	args := languageArgs{"key": id, "service": service, "instance": id, "url": "http://127.0.0.1:9/" + id, "ttl": 2, "drain": 0}
	maps.Copy(args, more)
	incarnation, _ := d.must("register", args).(float64)
	return incarnation
}

// state returns a field of the state of an instance.
func (d *driver) state(id, field string) string {
	d.t.Helper()
	return fmt.Sprint(find[any](d.must("state", languageArgs{"key": id}), field))
}

// set describes the set of a watch: its ids, and in what it is not as it should be.
func (d *driver) set(key string) string {
	d.t.Helper()
	v := d.must("set", languageArgs{"key": key})
	var words []string
	for _, id := range find[[]any](v, "ids") {
		words = append(words, fmt.Sprint(id))
	}
	for _, flag := range []string{"degraded", "stale"} {
		if find[bool](v, flag) {
			words = append(words, flag)
		}
	}
	return strings.Join(append(words, strings.Fields(find[string](v, "error"))...), " ")
}

func (d *driver) until(key, want string) {
	d.t.Helper()
	testenv.Eventually(d.t, "the set is "+want, func() bool { return d.set(key) == want })
}

func (d *driver) picks(args languageArgs) (ids []string) {
	d.t.Helper()
	list, _ := d.must("pick", args).([]any)
	for _, id := range list {
		ids = append(ids, fmt.Sprint(id))
	}
	return ids
}

var languageCases = map[string]func(*testing.T, *language){
	"an instance is seen by discovery and picks, and renews its lease": func(t *testing.T, l *language) {
		d, _ := l.of(t, client.Service{Name: "seen", Strategy: client.LeastConnections})
		d.must("watch", languageArgs{"key": "w", "service": "seen"})
		if got := d.set("w"); got != "" {
			t.Errorf("a service without instances is watched as %q", got)
		}
		d.register("seen", "a", languageArgs{"weight": 7, "metadata": languageArgs{"zone": "x"}, "inflight": 3})
		d.until("w", "a")
		if v := d.must("set", languageArgs{"key": "w"}); find[string](v, "strategy") != "LEAST_CONNECTIONS" || fmt.Sprint(find[any](v, "weights"), find[any](v, "metadata")) != "[7] [map[zone:x]]" {
			t.Errorf("discovery shows %v", v)
		}
		picked := l.do(`mutation { pickInstance(input: {service: "seen"}) { instance { instanceId } userErrors { code } } }`, nil)
		if got := find[string](picked, "pickInstance", "instance", "instanceId"); got != "a" {
			t.Errorf("a pick gave %v", picked)
		}
		testenv.Eventually(t, "a heartbeat reports the calls in flight", func() bool {
			nodes := find[[]any](l.do(`{ service(name: "seen") { instances { nodes { inflight } } } }`, nil), "service", "instances", "nodes")
			return len(nodes) == 1 && find[float64](nodes[0], "inflight") == 3
		})
		first := find[float64](d.must("state", languageArgs{"key": "a"}), "seen")
		testenv.Eventually(t, "heartbeats go on", func() bool { return find[float64](d.must("state", languageArgs{"key": "a"}), "seen") > first+4 })
		if got := l.status("seen", "a"); got != "PASSING" {
			t.Errorf("after two times its time to live it is %q", got)
		}
	},
	"what is refused is said at once": func(t *testing.T, l *language) {
		d, _ := l.of(t, client.Service{Name: "refused"})
		for want, args := range map[string]languageArgs{
			"FORBIDDEN":        {"service": "other", "instance": "a", "url": "http://127.0.0.1:9"},
			"INSTANCE_INVALID": {"service": "refused", "instance": "a", "url": "ftp://127.0.0.1"},
		} {
			args["key"] = "x"
			if _, code := d.do("register", args); code != want {
				t.Errorf("registering %v gave %q, want %s", args, code, want)
			}
		}
		if _, code := d.do("watch", languageArgs{"key": "w", "service": "none"}); code != client.CodeServiceNotFound {
			t.Errorf("watching an unknown service gave %q", code)
		}
		if _, code := l.start(t, "bpk_nothing").do("register", languageArgs{"key": "x", "service": "refused", "instance": "a", "url": "http://127.0.0.1:9"}); code != client.CodeUnauthenticated {
			t.Errorf("a wrong key gave %q", code)
		}
		if _, code := l.start(t, l.key("orders:read")).do("watch", languageArgs{"key": "w", "service": "refused"}); code != client.CodeForbidden {
			t.Errorf("watching with a key for orders gave %q", code)
		}
		if _, code := d.do("define", languageArgs{"name": "refused", "strategy": "FASTEST"}); code == "" {
			t.Error("a service has a strategy that there is not")
		}
	},
	"a service is defined": func(t *testing.T, l *language) {
		d := l.start(t, l.key("service:defined"))
		for range 2 {
			d.must("define", languageArgs{"name": "defined", "strategy": "CONSISTENT_HASH", "tags": []string{"a"}})
		}
		if got := find[string](l.do(`{ service(name: "defined") { strategy } }`, nil), "service", "strategy"); got != "CONSISTENT_HASH" {
			t.Errorf("the service has the strategy %q", got)
		}
	},
	"an instance that ends leaves the set": func(t *testing.T, l *language) {
		d, _ := l.of(t, client.Service{Name: "ends"})
		d.must("watch", languageArgs{"key": "w", "service": "ends"})
		d.must("balance", languageArgs{"key": "b", "watch": "w"})
		d.register("ends", "a", nil)
		d.until("w", "a")
		d.must("close", languageArgs{"key": "a"})
		d.until("w", "")
		if got := l.status("ends", "a"); got != "" {
			t.Errorf("after its close it is %q", got)
		}
		if _, code := d.do("pick", languageArgs{"key": "b", "count": 1}); code != "NoInstanceError" {
			t.Errorf("a pick of an empty set gave %q", code)
		}
		d.must("close", languageArgs{"key": "a"}) // once more
		if got := d.state("a", "error"); got != "ClosedError" {
			t.Errorf("a registration that was closed ended by %q", got)
		}
	},
	"an instance whose process is killed leaves the set, one that stops drains first": func(t *testing.T, l *language) {
		d, c := l.of(t, client.Service{Name: "drains"})
		w := watch(t, c, "drains")
		d.register("drains", "a", languageArgs{"drain": 1})
		d.register("drains", "b", nil)
		key := l.key("service:drains")
		killed := l.start(t, key)
		killed.register("drains", "c", nil)
		until(t, w, "all are there", func(s *client.Set) bool { return ids(s) == "a b c" })
		killed.kill()
		until(t, w, "the killed one is gone", func(s *client.Set) bool { return ids(s) == "a b" })
		closed := make(chan any, 1)
		go func() {
			_, code := d.do("close", languageArgs{"key": "a"})
			closed <- code
		}()
		until(t, w, "callers see that it drains", func(s *client.Set) bool { return ids(s) == "b" })
		if got := l.status("drains", "a"); got != "DRAINING stopping" && got != "" {
			t.Errorf("while it drains it is %q", got)
		}
		if code := <-closed; code != "" {
			t.Errorf("closing gave %v", code)
		}
		if got := l.status("drains", "a"); got != "" {
			t.Errorf("after its close it is %q", got)
		}
	},
	"an instance comes back after its removal": func(t *testing.T, l *language) {
		d, _ := l.of(t, client.Service{Name: "removed"})
		incarnation := d.register("removed", "a", nil)
		d.must("drain", languageArgs{"key": "a", "reason": "for a test"})
		l.do(`mutation { deregisterInstance(input: {service: "removed", instanceId: "a"}) { userErrors { code } } }`, nil)
		testenv.Eventually(t, "it is back, and still drains", func() bool { return l.status("removed", "a") == "DRAINING for a test" })
		if got := find[float64](d.must("state", languageArgs{"key": "a"}), "incarnation"); got != incarnation {
			t.Errorf("it came back as incarnation %v, was %v: the same start", got, incarnation)
		}
	},
	"one of two processes with one id ends": func(t *testing.T, l *language) {
		d, _ := l.of(t, client.Service{Name: "twice"})
		d.register("twice", "a", nil)
		second := l.start(t, l.key("service:twice"))
		second.register("twice", "a", nil)
		testenv.Eventually(t, "the first has ended", func() bool { return d.state("a", "error") == client.CodeStaleIncarnation })
		d.must("close", languageArgs{"key": "a"})
		if got := l.status("twice", "a"); got != "PASSING" || second.state("a", "error") != "" {
			t.Errorf("after the first has closed the second is %q", got)
		}
	},
	"a machine whose clock is behind starts anew": func(t *testing.T, l *language) {
		d, _ := l.of(t, client.Service{Name: "clock"})
		future := time.Now().Add(time.Hour).UnixMicro()
		l.do(`mutation($i: Long!) { registerInstance(input: {service: "clock", instanceId: "a", url: "http://127.0.0.1:9", incarnation: $i}) { userErrors { code } } }`, map[string]any{"i": future})
		if got := d.register("clock", "a", nil); int64(got) <= future {
			t.Errorf("it registered as %v, want more than %d", int64(got), future)
		}
	},
	"a service of many pages that ends and comes back": func(t *testing.T, l *language) {
		d, c := l.of(t, client.Service{Name: "many"})
		for n := range 60 {
			l.do(`mutation($id: String!) { registerInstance(input: {service: "many", instanceId: $id, url: "http://127.0.0.1:9", ttl: "5m"}) { userErrors { code } } }`, map[string]any{"id": fmt.Sprintf("till-%03d", n)})
		}
		want := ids(until(t, watch(t, c, "many"), "all are there", func(s *client.Set) bool { return len(s.Instances) == 60 }))
		d.must("watch", languageArgs{"key": "w", "service": "many"})
		if got := d.set("w"); got != want {
			t.Errorf("the set is %s, want %s", got, want)
		}
		id := find[string](l.do(`{ service(name: "many") { id } }`, nil), "service", "id")
		l.do(`mutation($id: ID!) { deregisterService(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})
		d.until("w", "")
		if err := c.DefineService(t.Context(), client.Service{Name: "many"}); err != nil {
			t.Fatal(err)
		}
		d.register("many", "a", nil)
		d.until("w", "a")
	},
	"the next node is used while one is away": func(t *testing.T, l *language) {
		_, _ = l.of(t, client.Service{Name: "nodes"})
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close() // it takes connections and never answers, which is worse than none
		d := l.start(t, l.key("service:nodes"), fmt.Sprintf("http://127.0.0.1:%d", testenv.FreePort(t)), "http://"+listener.Addr().String())
		d.must("watch", languageArgs{"key": "w", "service": "nodes"})
		d.register("nodes", "a", nil)
		d.until("w", "a")
	},
	"picks are fair by weight, and avoid instances that fail": func(t *testing.T, l *language) {
		d, c := l.of(t, client.Service{Name: "picks"})
		for n, id := range []string{"a", "b", "c"} {
			d.register("picks", id, languageArgs{"weight": n + 1})
		}
		d.must("watch", languageArgs{"key": "w", "service": "picks"})
		d.until("w", "a b c")
		count := func(ids []string, id string) (n int) {
			for _, picked := range ids {
				if picked == id {
					n++
				}
			}
			return n
		}
		for _, strategy := range []any{nil, "ROUND_ROBIN", "RANDOM", "LEAST_CONNECTIONS", "POWER_OF_TWO"} {
			d.must("balance", languageArgs{"key": "b", "watch": "w", "strategy": strategy})
			got := d.picks(languageArgs{"key": "b", "count": 600})
			for n, id := range []string{"a", "b", "c"} {
				if part := count(got, id); part < 60*(n+1) || part > 140*(n+1) {
					t.Errorf("%v: the weight %d got %d of 600 picks", strategy, n+1, part)
				}
			}
			failing := d.picks(languageArgs{"key": "b", "count": 100, "bad": "c"})
			if n := count(failing, "c"); n != 5 {
				t.Errorf("%v: an instance whose calls fail got %d, want 5, and to be ejected then", strategy, n)
			}
			if got := d.must("pickOther", languageArgs{"key": "b", "tried": []string{"a", "c"}}); got != "b" {
				t.Errorf("%v: a pick for a retry gave %v, want b", strategy, got)
			}
			if _, code := d.do("pickOther", languageArgs{"key": "b", "tried": []string{"a", "b", "c"}}); code != "NoInstanceError" {
				t.Errorf("%v: a pick for a retry when all were tried gave %q", strategy, code)
			}
		}
		keys := make([]string, 50)
		for n := range keys {
			keys[n] = fmt.Sprint("user-", n)
		}
		d.must("balance", languageArgs{"key": "b", "watch": "w", "strategy": "CONSISTENT_HASH"})
		mine, err := client.NewBalancer(watch(t, c, "picks"), client.ConsistentHash)
		if err != nil {
			t.Fatal(err)
		}
		for n, got := range d.picks(languageArgs{"key": "b", "count": len(keys), "keys": keys}) {
			pick, err := mine.Pick(keys[n])
			if err != nil || pick.Instance.InstanceID != got {
				t.Errorf("%s goes to %s, want %s as in Go: %v", keys[n], got, pick.Instance.InstanceID, err)
			}
			pick.Release()
		}
	},
	"keys go to the same instance in all languages": func(t *testing.T, l *language) {
		d := l.start(t, "bpk_nothing")
		for _, weights := range [][]int{{1}, {1, 1, 1, 1, 1, 1, 1}, {1, 20, 300, 4000}} {
			b, err := policy.New(time.Now, policy.Config{})
			if err != nil {
				t.Fatal(err)
			}
			instances := make([]policy.Instance, len(weights))
			for n, w := range weights {
				instances[n] = policy.Instance{ID: fmt.Sprint("id-", n), Name: fmt.Sprint("i", n), Weight: w, Incarnation: 1}
			}
			b.Update(instances)
			keys, want := []string{"", "é", "ключ"}, []any{}
			for n := range 200 {
				keys = append(keys, fmt.Sprint("key-", n))
			}
			for _, key := range keys {
				pick, err := b.Pick(policy.ConsistentHash, key)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, pick.Instance().Name)
			}
			if got, _ := d.must("ring", languageArgs{"weights": weights, "keys": keys}).([]any); !slices.Equal(got, want) {
				t.Errorf("of the weights %v the keys go to %v, want %v", weights, got, want)
			}
		}
	},
}

// survives has the server killed and started, under a watch, an instance, and calls that wait for it.
func (l *language) survives(t *testing.T) {
	t.Helper()
	d, _ := l.of(t, client.Service{Name: "till"})
	waiting := l.start(t, l.key("service:till"))
	d.register("till", "till-1", nil)
	d.must("watch", languageArgs{"key": "w", "service": "till"})
	d.until("w", "till-1")
	l.Kill()
	d.until("w", "till-1 stale")
	testenv.Eventually(t, "the instance notices", func() bool { return d.state("till-1", "trouble") != "" })
	if got := d.state("till-1", "error"); got != "" {
		t.Fatalf("it gave up: %s", got)
	}
	if _, code := waiting.do("register", languageArgs{"key": "x", "service": "till", "instance": "x", "url": "http://127.0.0.1:9", "timeout": 0.3}); code == "" {
		t.Error("without a server an instance is registered")
	}
	if _, code := waiting.do("watch", languageArgs{"key": "x", "service": "till", "timeout": 0.3}); code == "" {
		t.Error("without a server a service is watched")
	}
	registered := make(chan string, 1)
	go func() {
		_, code := waiting.do("register", languageArgs{"key": "y", "service": "till", "instance": "till-2", "url": "http://127.0.0.1:9", "ttl": 2})
		registered <- code
	}()
	l.Start()
	if code := <-registered; code != "" {
		t.Errorf("once there is a server registering gave %q", code)
	}
	d.until("w", "till-1 till-2")
	testenv.Eventually(t, "heartbeats are taken again", func() bool { return d.state("till-1", "trouble") == "" })
	l.signIn()
	if got := l.status("till", "till-1"); got != "PASSING" {
		t.Errorf("after the restart it is %q", got)
	}
	l.Freeze() // it takes calls and does not answer
	defer l.Kill()
	if _, code := d.do("close", languageArgs{"key": "till-1", "timeout": 0.5}); code == "" {
		t.Error("closing an instance gave no error, but the registry did not receive it")
	}
	if got := d.state("till-1", "error"); got != "ClosedError" {
		t.Errorf("after its close the instance ended by %q", got)
	}
}

// stops revokes the key of an instance and a watch.
func (l *language) stops(t *testing.T) {
	t.Helper()
	d, _ := l.of(t, client.Service{Name: "revoked"})
	d.register("revoked", "a", nil)
	d.must("watch", languageArgs{"key": "w", "service": "revoked"})
	d.must("watch", languageArgs{"key": "closed", "service": "revoked"})
	d.must("close", languageArgs{"key": "closed"})
	if got := d.set("closed"); got != "a stale ClosedError" {
		t.Errorf("a watch that was closed has the set %q", got)
	}
	l.revoke()
	testenv.Eventually(t, "the heartbeats end", func() bool { return d.state("a", "error") == client.CodeUnauthenticated })
	d.until("w", "a stale UNAUTHENTICATED")
	if _, code := d.do("next", languageArgs{"key": "w", "timeout": 60}); code != client.CodeUnauthenticated {
		t.Errorf("waiting for a watch that has ended gave %q", code)
	}
	d.must("close", languageArgs{"key": "a"})
}
