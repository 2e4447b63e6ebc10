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

// line is a connection to the gateway on which a test writes what it likes.
type line struct {
	t    *testing.T
	conn net.Conn
	from *bufio.Reader
}

func (w *world) line() *line {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &line{w.t, conn, bufio.NewReader(conn)}
}

// ask sends the text; reply reads an answer.
func (l *line) ask(text string) { _, _ = io.WriteString(l.conn, text) }

func (l *line) reply() (r reply) {
	resp, err := http.ReadResponse(l.from, nil)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body), err}
}

// hasty is the URL of an instance that answers before it has read the body.
func hasty(t *testing.T) string {
	t.Helper()
	return server(t, func(w http.ResponseWriter, _ *http.Request) {
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

func TestGateway_takes_no_rest_of_a_body_for_a_request(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Config{})
	w.service(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, hasty(t))
	const hidden = "GET /gateway/nobody/ HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, begin := range []string{"Content-Length: 100000\r\n\r\n0123456789", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"} {
		l := w.line()
		l.ask("POST /gateway/echo/ HTTP/1.1\r\nHost: x\r\n" + begin)
		if got := l.reply(); got.status != http.StatusUnauthorized || got.body != "early" {
			t.Errorf("after %q: %+v", begin, got)
		}
		l.ask(hidden)
		if got := l.reply(); got.err == nil || errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("the rest of a body that began with %q was answered with %d, %v; want the connection closed", begin, got.status, got.err)
		}
	}
}

func TestGateway_keeps_the_connection_of_a_body_that_was_read(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Config{})
	w.echo(mirror)
	l := w.line()
	for range 2 {
		l.ask("POST /gateway/echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		if got := l.reply(); got.status != http.StatusOK {
			t.Errorf("%+v", got)
		}
	}
}

func TestGateway_does_not_let_a_call_that_took_too_long_spoil_the_next(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	for name, cfg := range map[string]Config{"idle": {IdleTime: 100 * time.Millisecond}, "total": {TotalTime: 100 * time.Millisecond}} {
		w := newWorld(t, cfg)
		w.echo(func(http.ResponseWriter, *http.Request) { <-hang })
		l := w.line()
		l.ask("GET /gateway/echo/ HTTP/1.1\r\nHost: x\r\n\r\n")
		got := l.reply()
		if got.status != http.StatusGatewayTimeout {
			t.Errorf("%s: %+v", name, got)
		}
		l.ask("GET /gateway/nobody/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if got := l.reply(); got.err == nil {
			t.Errorf("%s: the connection lives on, though its context is over: %d", name, got.status)
		}
	}
}
