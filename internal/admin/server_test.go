package admin_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/admin"
	"github.com/backplane-dev/backplane/internal/hostcheck"
	"github.com/backplane-dev/backplane/internal/security"
)

func TestServer_serves_registered_metrics(t *testing.T) {
	t.Parallel()
	var ready error
	s := admin.New(hostcheck.New("", nil), func(context.Context) error { return ready }, func(context.Context, error) {}, slog.New(slog.DiscardHandler))
	n := 41.0
	s.Register(`things_total{kind="a"}`, func() float64 { n++; return n })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	for _, step := range []struct {
		path, want string
		status     int
		ready      error
	}{
		{"/metrics", "things_total{kind=\"a\"} 42\n", http.StatusOK, nil},
		{"/metrics", "go_goroutines", http.StatusOK, nil},
		{"/healthz", "ok", http.StatusOK, nil},
		{"/readyz", "ready", http.StatusOK, nil},
		{"/readyz", "not ready", http.StatusServiceUnavailable, errors.New("the database is gone")},
		{"/debug/pprof/goroutine?debug=1", "goroutine profile", http.StatusOK, nil},
		{"/", "404", http.StatusNotFound, nil},
	} {
		ready = step.ready
		resp, err := http.Get("http://" + ln.Addr().String() + step.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != step.status || !strings.Contains(string(body), step.want) {
			t.Errorf("%s answers %d with %.200q, want %d with %q", step.path, resp.StatusCode, body, step.status, step.want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v after its context ended, want nil", err)
	}
}

func TestServer_refuses_pages_of_other_origins(t *testing.T) {
	t.Parallel()
	refusals := make(chan security.Event, 10)
	s := admin.New(hostcheck.New("", []string{"ops.example"}), func(context.Context) error { return nil }, func(ctx context.Context, err error) {
		e, _ := security.EventOf(ctx, err, time.Now())
		refusals <- e
	}, slog.New(slog.DiscardHandler))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	for _, tt := range []struct {
		method, path, host, origin string
		status                     int
	}{
		{"GET", "/metrics", "evil.example", "", http.StatusMisdirectedRequest},
		{"GET", "/debug/pprof/goroutine", "evil.example", "", http.StatusMisdirectedRequest},
		{"GET", "/metrics", "ops.example", "", http.StatusOK},
		{"GET", "/healthz", "evil.example", "", http.StatusOK},
		{"POST", "/debug/pprof/symbol", "", "https://evil.example", http.StatusForbidden},
		{"POST", "/debug/pprof/symbol", "", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+ln.Addr().String()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tt.host
		if tt.origin != "" {
			req.Header.Set("Origin", tt.origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s under the name %q from %q: %d, want %d", tt.method, tt.path, tt.host, tt.origin, resp.StatusCode, tt.status)
		}
	}
	for _, want := range []security.EventType{security.HostRefused, security.HostRefused, security.CrossOriginRefused} {
		if e := <-refusals; e.Type != want || e.Address != "127.0.0.1" || e.Detail != "ADMIN_LISTENER" {
			t.Errorf("a refusal is the event %+v, want %s", e, want)
		}
	}
	if len(refusals) > 0 {
		t.Errorf("%d events more than refusals", len(refusals))
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}
