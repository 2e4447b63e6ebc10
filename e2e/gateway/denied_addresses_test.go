package gateway

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// recordingProxy forwards connections to a server of ours, and counts those that carry
// an HTTP request.
type recordingProxy struct {
	addr     string
	target   string
	requests atomic.Int64
}

// startRecordingProxy returns the URL with the proxy in place of its host.
func startRecordingProxy(t *testing.T, server string) (*recordingProxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	s := &recordingProxy{addr: ln.Addr().String(), target: u.Host}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // the test is over
			}
			go s.forward(conn)
		}
	}()
	u.Host = s.addr
	return s, u.String()
}

func (s *recordingProxy) forward(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", s.target)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}()
	first := make([]byte, 4<<10)
	n, err := from.Read(first)
	if bytes.HasPrefix(first[:n], []byte("GET ")) || n == 0 && err != nil {
		s.requests.Add(1) // or a silent connection
	}
	_, _ = to.Write(first[:n])
	_, _ = io.Copy(to, from)
}

// TestServer_never_calls_its_own_servers registers instances where the database,
// Redis and the operator's listener are, under several names, and has them checked. Loopback
// addresses as such may be called.
func TestServer_never_calls_its_own_servers(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	harness.RunCommand(t, database, "migrate")
	db, databaseURL := startRecordingProxy(t, database)
	redis, redisURL := startRecordingProxy(t, testenv.Redis(t))
	adminAddr := local.Address(testenv.FreePort(t))
	sinkPort := testenv.FreePort(t) // no broker is there: its address is refused all the same
	p := testenv.Server(t, harness.Settings(databaseURL, "BACKPLANE_REDIS_URL="+redisURL, "BACKPLANE_SINKS=nats://"+local.Address(sinkPort), "BACKPLANE_ADMIN_LISTEN="+adminAddr, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8,::1/128")...)
	root := harness.SignInAdmin(t, p)
	sink := local.Address(sinkPort)
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(well.Close)
	before := db.requests.Load() + redis.requests.Load()
	root.Do(t, harness.RegisterService, harness.Input(harness.Fields{"name": "echo", "healthCheck": harness.Fields{"path": "/", "interval": "1s", "timeout": "500ms", "healthyThreshold": 1, "unhealthyThreshold": 1}}))
	refused := map[string]string{"own": strings.TrimPrefix(p.BaseURL, "http://"), "database": db.addr, "redis": redis.addr, "admin": adminAddr, "sink": sink}
	harness.CreateInstance(t, root, "echo", "well", harness.Fields{"url": well.URL})
	for id, addr := range refused {
		_, port, _ := net.SplitHostPort(addr)
		harness.CreateInstance(t, root, "echo", id, harness.Fields{"url": "http://" + addr})
		harness.CreateInstance(t, root, "echo", id+"-by-name", harness.Fields{"url": "http://localhost:" + port})
		harness.CreateInstance(t, root, "echo", id+"-mapped", harness.Fields{"url": "http://[::ffff:127.0.0.1]:" + port})
		harness.CreateInstance(t, root, "echo", id+"-neighbour", harness.Fields{"url": "http://127.0.0.2:" + port})
	}
	status := func() map[string]string {
		all := map[string]string{}
		nodes, _ := harness.At(root.Do(t, harness.ReadService, harness.Fields{"name": "echo"}), "service", "instances", "nodes").([]any)
		for _, n := range nodes {
			all[harness.Text(n, "instanceId")] = strings.TrimSpace(harness.Text(n, "status") + " " + harness.Text(n, "statusReason"))
		}
		return all
	}
	harness.Eventually(t, "all of them are refused", func() bool {
		for id, s := range status() {
			if id != "well" && s != "CRITICAL its check failed: this address may not be called" {
				return false
			}
		}
		return true
	})
	if got := status()["well"]; got != "PASSING" {
		t.Errorf("an instance at another loopback port is %s", got)
	}
	if n := db.requests.Load() + redis.requests.Load() - before; n != 0 {
		t.Errorf("the database and Redis got %d requests of checks", n)
	}
}

// TestServer_tells_customers_nothing_of_instances_live lets a customer follow a
// service while an instance registers.
func TestServer_tells_customers_nothing_of_instances_live(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_LIMIT_KEEP_ALIVE=1s")
	root := harness.SignInAdmin(t, p)
	harness.CreateService(t, root, "echo", "30s")
	customer := harness.SignUp(t, p, "carol")
	after := harness.Text(root.Do(t, `{ eventCursor }`, nil), "eventCursor")
	for name := range harness.Transports {
		follow := `subscription($after: Cursor) { serviceEvents(service: "echo", after: $after) { type data subject { id } cursor } }`
		l, staff := harness.Subscribe(t, name, customer, follow, harness.Fields{"after": after}), harness.Subscribe(t, name, root, follow, harness.Fields{"after": after})
		harness.CreateInstance(t, root, "echo", "i-"+strings.ReplaceAll(name, " ", "-"), nil)
		received := harness.MustNext(t, staff)
		for seen := after; seen != received.Cursor; {
			m, err := l.Next()
			if err != nil || m.Event != nil || m.Code != "" || m.End != "" {
				t.Fatalf("by %s a customer hears %+v, %v", name, m, err)
			}
			seen = m.Cursor
		}
		after = received.Cursor
	}
}
