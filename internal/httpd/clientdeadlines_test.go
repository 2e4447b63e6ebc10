package httpd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
)

// pipeServer is a server on in-memory connections without a buffer, in a synctest bubble.
type pipeServer struct {
	t     *testing.T
	queue chan net.Conn
	ctx   context.Context // until the server is to stop
}

// runOnPipes runs the test against a server that waits a minute for clients that do
// not read, and 40 s for a body.
func runOnPipes(t *testing.T, cfg httpd.Config, test func(w *pipeServer)) {
	t.Helper()
	cfg.BodyTime, cfg.WriteTime, cfg.IdleTime, cfg.Streams.StallTime = 40*time.Second, time.Minute, time.Hour, time.Minute
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := &pipeServer{t: t, queue: make(chan net.Conn), ctx: ctx}
		s := newServer(t, cfg, httpd.Deps{REST: restRoutes{}, Gateway: noDeadlines{}, JWKS: func() []byte { return []byte(`{"keys":[]}`) }})
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx, w) }()
		test(w)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

// Accept implements net.Listener.
func (w *pipeServer) Accept() (net.Conn, error) {
	select {
	case c := <-w.queue:
		return c, nil
	case <-w.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (w *pipeServer) Close() error { return nil }

// Addr implements net.Listener.
func (w *pipeServer) Addr() net.Addr { return &net.TCPAddr{} }

// dial returns a connection on which the text is sent.
func (w *pipeServer) dial(text string) net.Conn {
	w.t.Helper()
	client, server := net.Pipe()
	w.t.Cleanup(func() { _ = client.Close() })
	w.queue <- server
	w.send(client, text)
	return client
}

func (w *pipeServer) send(conn net.Conn, text string) {
	w.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		w.t.Fatal(err)
	}
}

// receive returns the status of the next answer, for which it waits ten minutes at most.
func (w *pipeServer) receive(conn net.Conn) int {
	w.t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Minute))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Errorf("there is no answer: %v", err)
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		w.t.Errorf("half an answer of status %d: %v", resp.StatusCode, err)
	}
	return resp.StatusCode
}

// wantClosed expects that the server closes the connection and sends nothing more.
func (w *pipeServer) wantClosed(conn net.Conn) {
	w.t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Minute))
	if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
		w.t.Errorf("the connection gave %d bytes more and %v, want its end", n, err)
	}
}

// restRoutes is a RESTHandler with a route at /things, of a long answer, and a page at /page.
type restRoutes struct{}

func (restRoutes) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, strings.Repeat("thing ", 2000))
}
func (restRoutes) Patterns() []string                               { return []string{"/things"} }
func (restRoutes) ServePage(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }
func (restRoutes) Pages() []string                                  { return []string{"GET /page"} }
func (restRoutes) Follow(*http.Request) (*executor.Operation, func(*graphql.Response) (string, []byte), error) {
	return nil, nil, fault.New(fault.BadRequest, "No.")
}

// noDeadlines is a gateway that clears the deadlines of its requests.
type noDeadlines struct{}

func (noDeadlines) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctl := http.NewResponseController(w)
	if err := errors.Join(ctl.SetReadDeadline(time.Time{}), ctl.SetWriteDeadline(time.Time{})); err != nil {
		panic(err)
	}
	_, _ = io.Copy(w, r.Body)
}

func (noDeadlines) Drain(context.Context) error { return nil }

// requestHead returns the head of a request that announces a body.
func requestHead(line, headers string, length int) string {
	return fmt.Sprintf("%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n", line, length, headers)
}

const socketHeaders = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

func TestServer_Run_bounds_the_wait_for_a_body(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, line, headers string
		status              int
	}{
		{"of a query", "POST /graphql", "Content-Type: application/json\r\n", 408},
		{"of a query by GET", "GET /graphql?query={hello}", "", 408},
		{"of a request that is refused unread", "POST /graphql", "Content-Type: text/plain\r\n", 415},
		{"of a socket", "GET /graphql", socketHeaders, 408},
		{"of an event stream", "GET /graphql?query=subscription{ticks}", "Accept: text/event-stream\r\n", 408},
		{"of stopping an operation", "DELETE /graphql?token=x&operationId=1", "", 404},
		{"of a route", "PUT /things", "", 408},
		{"of a route by GET", "GET /things", "", 408},
		{"of a route by OPTIONS", "OPTIONS /things", "", 408},
		{"of a page", "GET /page", "", 408},
		{"of a health check", "GET /healthz", "", 408},
		{"of an unknown path", "POST /nothing", "", 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			runOnPipes(t, httpd.Config{}, func(w *pipeServer) {
				conn, begun := w.dial(requestHead(tt.line, tt.headers, 10)), time.Now()
				if status := w.receive(conn); status != tt.status {
					t.Errorf("status = %d, want %d", status, tt.status)
				}
				w.wantClosed(conn)
				if took := time.Since(begun); took > 40*time.Second {
					t.Errorf("the connection lasted %s", took)
				}
			})
		})
	}
}

// longQuery returns a query whose answer is longer than all buffers between a
// handler and the connection.
func longQuery() string {
	var q strings.Builder
	for n := range 25 {
		fmt.Fprintf(&q, ",a%d%s:hello", n, strings.Repeat("x", 190))
	}
	return "{hello" + q.String() + "}"
}

func TestServer_Run_gives_slots_to_requests_that_have_arrived(t *testing.T) {
	t.Parallel()
	runOnPipes(t, httpd.Config{Operations: 1}, func(w *pipeServer) {
		for _, line := range []string{"GET /graphql?query=" + longQuery(), "GET /things"} {
			w.dial(requestHead(line, "", 10))
			synctest.Wait()
			begun := time.Now()
			if status := w.receive(w.dial(requestHead("GET /graphql?query={hello}", "", 0))); status != 200 || time.Since(begun) > 0 {
				t.Errorf("%.20s: others get %d after %s, want 200 at once", line, status, time.Since(begun))
			}
		}
	})
}

func TestServer_Run_releases_slots_of_clients_that_do_not_read(t *testing.T) {
	t.Parallel()
	query := `{"query":"` + longQuery() + `"}`
	runOnPipes(t, httpd.Config{Operations: 1, Batch: 2}, func(w *pipeServer) {
		for _, text := range []string{
			requestHead("GET /graphql?query="+longQuery(), "", 0),
			requestHead("POST /graphql", isJSON+"\r\n", len(query)) + query,
			requestHead("POST /graphql", isJSON+"\r\n", len(query)+2) + "[" + query + "]",
			requestHead("GET /things", "", 0),
		} {
			w.dial(text)
			synctest.Wait()
			begun := time.Now()
			if status := w.receive(w.dial(requestHead("GET /graphql?query={hello}", "", 0))); status != 200 || time.Since(begun) > 0 {
				t.Errorf("%.20s: others get %d after %s, want 200 at once", text, status, time.Since(begun))
			}
		}
	})
}

func TestServer_Run_discards_bodies_of_safe_methods(t *testing.T) {
	t.Parallel()
	runOnPipes(t, httpd.Config{BodyBytes: 100}, func(w *pipeServer) {
		conn := w.dial(requestHead("GET /graphql?query={hello}", "", 10))
		time.Sleep(30 * time.Second)
		w.send(conn, "0123456789")
		for range 3 {
			if status := w.receive(conn); status != 200 {
				t.Errorf("status = %d, want 200", status)
			}
			time.Sleep(2 * time.Minute) // past the time for the body, but not the idle time of the connection
			w.send(conn, requestHead("GET /things", "", 5)+"01234")
		}
		_ = w.receive(conn)
		w.send(conn, requestHead("GET /things", "", 101))
		if status := w.receive(conn); status != 413 {
			t.Errorf("a body that is too long gets %d, want 413", status)
		}
	})
}

func TestServer_Run_cuts_clients_that_do_not_read(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"GET /graphql?query={hello}", "GET /graphql?query={helo}", "POST /graphql", "PUT /graphql", "GET /things", "GET /page",
		"GET /", "GET /graphiql/graphiql.js", "GET /healthz", "GET /readyz", "GET /.well-known/jwks.json", "GET /nothing", "POST /",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			runOnPipes(t, httpd.Config{}, func(w *pipeServer) {
				conn := w.dial(requestHead(line, "", 0))
				time.Sleep(61 * time.Second)
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("a client that does not read keeps its connection: %v", err)
				}
			})
		})
	}
}

func TestServer_Run_leaves_deadlines_to_the_gateway(t *testing.T) {
	t.Parallel()
	runOnPipes(t, httpd.Config{}, func(w *pipeServer) {
		for _, method := range []string{"GET", "POST"} {
			conn := w.dial(requestHead(method+" /gateway/shop/", "", 10))
			time.Sleep(5 * time.Minute)
			w.send(conn, "0123456789")
			time.Sleep(5 * time.Minute)
			if status := w.receive(conn); status != 200 {
				t.Errorf("status = %d, want 200", status)
			}
		}
	})
}

func TestServer_Run_gives_each_answer_its_write_time(t *testing.T) {
	t.Parallel()
	runOnPipes(t, httpd.Config{}, func(w *pipeServer) {
		conn := w.dial(requestHead("GET /healthz", "", 0))
		for range 5 {
			time.Sleep(50 * time.Second)
			if status := w.receive(conn); status != 200 {
				t.Fatalf("status = %d, want 200", status)
			}
			time.Sleep(50 * time.Second)
			w.send(conn, requestHead("GET /graphql?query={hello}", "", 0))
		}
	})
}
