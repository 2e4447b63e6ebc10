package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
)

// rawConn is a connection to the gateway on which a test writes any bytes.
type rawConn struct {
	t    *testing.T
	conn net.Conn
	from *bufio.Reader
}

func (w *fixture) dialRaw() *rawConn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &rawConn{w.t, conn, bufio.NewReader(conn)}
}

// write sends the text; readResponse reads a response.
func (l *rawConn) write(text string) { _, _ = io.WriteString(l.conn, text) }

func (l *rawConn) readResponse() (r response) {
	resp, err := http.ReadResponse(l.from, nil)
	if err != nil {
		return response{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(body), err}
}

// earlyResponder returns the URL of an instance that responds before it has read the body.
func earlyResponder(t *testing.T) string {
	t.Helper()
	return startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nearly")
		_, _ = io.Copy(io.Discard, conn) // until the gateway hangs up
	})
}

func TestGateway_does_not_read_the_rest_of_a_body_as_a_request(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, earlyResponder(t))
	const hidden = "GET /gateway/absent/ HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, begin := range []string{"Content-Length: 100000\r\n\r\n0123456789", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"} {
		l := w.dialRaw()
		l.write("POST /gateway/echo/ HTTP/1.1\r\nHost: x\r\n" + begin)
		if got := l.readResponse(); got.status != http.StatusUnauthorized || got.body != "early" {
			t.Errorf("after %q: %+v", begin, got)
		}
		l.write(hidden)
		if got := l.readResponse(); got.err == nil || errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("the rest of a body that began with %q was answered with %d, %v; want a closed connection", begin, got.status, got.err)
		}
	}
}

func TestGateway_keeps_the_connection_after_a_complete_body(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(echoRequest)
	l := w.dialRaw()
	for range 2 {
		l.write("POST /gateway/echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		if got := l.readResponse(); got.status != http.StatusOK {
			t.Errorf("%+v", got)
		}
	}
}

func TestGateway_closes_the_connection_after_a_timeout(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	for name, cfg := range map[string]Config{"idle": {IdleTime: 100 * time.Millisecond}, "total": {TotalTime: 100 * time.Millisecond}} {
		w := newFixture(t, cfg)
		w.registerEcho(func(http.ResponseWriter, *http.Request) { <-hang })
		l := w.dialRaw()
		l.write("GET /gateway/echo/ HTTP/1.1\r\nHost: x\r\n\r\n")
		got := l.readResponse()
		if got.status != http.StatusGatewayTimeout {
			t.Errorf("%s: %+v", name, got)
		}
		l.write("GET /gateway/absent/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if got := l.readResponse(); got.err == nil {
			t.Errorf("%s: the connection is still open after its context ended: %d", name, got.status)
		}
	}
}
