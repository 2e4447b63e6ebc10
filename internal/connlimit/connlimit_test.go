package connlimit_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/connlimit"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// client is a keep-alive connection to a server.
type client struct {
	net.Conn
	in *bufio.Reader
}

// dialFrom connects from an address of the loopback network.
func dialFrom(t *testing.T, address, server string) client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return client{conn, bufio.NewReader(conn)}
}

// get reports whether a request is answered, after which the connection is idle.
func (c client) get() bool {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return false
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func startServer(t *testing.T, l *connlimit.Limiter) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = l.ConnState
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestLimiter_replaces_idle_connections_of_the_address(t *testing.T) {
	t.Parallel()
	l := connlimit.New(100, 3, nil)
	server := startServer(t, l)
	for range 10 {
		testenv.Eventually(t, "a new connection takes the place of an idle one", func() bool { return dialFrom(t, "127.0.0.1", server).get() })
	}
	if l.Refused() < 7 {
		t.Errorf("%d connections were closed, want all but the 3 that an address may have", l.Refused())
	}
}

func TestLimiter_refuses_connections_beyond_its_bounds(t *testing.T) {
	t.Parallel()
	l := connlimit.New(6, 3, func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.9") })
	server := startServer(t, l)
	for range 3 {
		dialFrom(t, "127.0.0.1", server) // sends nothing: it is not idle, but new
	}
	fourth := dialFrom(t, "127.0.0.1", server)
	if resp, err := http.ReadResponse(fourth.in, nil); err != nil || resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("a fourth connection of the address is answered with %+v, %v; want 503 and its end", resp, err)
	} else {
		resp.Body.Close()
	}
	if !dialFrom(t, "127.0.0.2", server).get() {
		t.Error("another address is refused")
	}
	for range 5 { // idle ones make room, once the server has seen that they are idle
		testenv.Eventually(t, "a connection of a proxy is served", func() bool { return dialFrom(t, "127.0.0.9", server).get() })
	}
}

func TestLimiter_counts_closed_connections_no_more(t *testing.T) {
	t.Parallel()
	const limit = 5
	l := connlimit.New(100, limit, nil)
	server := startServer(t, l)
	for range limit {
		dialFrom(t, "127.0.0.1", server).Close() // they send nothing, so they are never idle
	}
	testenv.Eventually(t, "the closed connections are counted no more", func() bool { return dialFrom(t, "127.0.0.1", server).get() })
}
