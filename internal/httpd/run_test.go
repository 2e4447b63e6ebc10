package httpd_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/httpd"
)

// serve runs the server on a free port until the test ends and returns its
// address and what stops it.
func serve(t *testing.T, s *httpd.Server) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	t.Cleanup(cancel)
	return ln.Addr().String(), func() error {
		cancel()
		return <-done
	}
}

func TestServer_Run_cuts_slow_senders(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg        httpd.Config // with one short limit: another could cut the client before it has sent the head
		text, want string
	}{
		"a body that stops":   {httpd.Config{BodyTime: 50 * time.Millisecond}, "POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 408"},
		"a header that stops": {httpd.Config{HeaderTime: 50 * time.Millisecond}, "POST /graphql HTTP/1.1\r\nHost: a\r\n", ""},
	} {
		addr, _ := serve(t, newServer(t, tt.cfg, httpd.Deps{}))
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, tt.text); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn) // ends only if the server closes
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasPrefix(string(got), tt.want) {
			t.Errorf("%s: answer = %s, want %s", name, got, tt.want)
		}
	}
}

func TestServer_Run_refuses_HTTP_2_without_TLS(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, newServer(t, httpd.Config{AllowedHosts: []string{"a"}}, httpd.Deps{}))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn) // ends only if the server closes
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 505 ") || !strings.Contains(string(got), "use HTTP/1.1") {
		t.Errorf("the preface of HTTP/2 is answered with %q, %v; want 505 and what to use", got, err)
	}
}

func TestServer_Run_does_not_read_huge_bodies(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, newServer(t, httpd.Config{}, httpd.Deps{}))
	body := io.LimitReader(zeros{}, 50<<20) // without a Content-Length
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/graphql", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return // the server may cut the connection while the client sends
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status = %d, want 413", resp.StatusCode)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func TestServer_Run_finishes_requests_in_flight(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	slow := executortest.New(executortest.Object{"hello": executortest.Resolver(func(context.Context, map[string]any) (any, error) {
		close(entered)
		<-release
		return "done", nil
	})}, nil, nil)
	log := slog.New(slog.DiscardHandler)
	x, err := executor.New(slow, executor.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := httpd.New(httpd.Config{AllowedHosts: []string{"a"}}, x, httpd.Deps{}, log)
	if err != nil {
		t.Fatal(err)
	}
	addr, stop := serve(t, s)
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + addr + "/graphql?query={hello}")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		got <- strings.TrimSpace(string(text))
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for answer(s, request("GET /readyz", "", "")).Code != http.StatusServiceUnavailable {
		runtime.Gosched() // until the drain has begun
	}
	close(release)
	if text, want := <-got, `{"data":{"hello":"done"}}`; text != want {
		t.Errorf("the request in flight got %s, want %s", text, want)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the server still accepts connections")
	}
}
