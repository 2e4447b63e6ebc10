package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/client"
)

// TestHealth_pleases_the_checks_of_the_registry lets the server check an instance.
func TestHealth_pleases_the_checks_of_the_registry(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	var broken atomic.Bool
	h, err := client.NewHealth(client.HealthConfig{Checks: map[string]client.Check{"own": func(context.Context) error {
		if broken.Load() {
			return errors.New("broken")
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := r.define(client.Service{Name: "till", HealthCheck: &client.HealthCheck{Path: "/healthz", Interval: time.Second, Timeout: 900 * time.Millisecond}})
	for _, id := range []string{"a", "b"} { // which stay healthy, so that the service is not degraded
		register(t, c, client.Registration{Service: "till", Instance: id, URL: okServer(t), TTL: 10 * time.Second, Drain: -1})
	}
	register(t, c, client.Registration{Service: "till", Instance: "till-1", URL: s.URL, TTL: 10 * time.Second, Drain: -1})
	w := watch(t, c, "till")
	until(t, w, "all pass", func(s *client.Set) bool { return ids(s) == "a b till-1" })
	broken.Store(true)
	until(t, w, "its checks fail", func(s *client.Set) bool { return ids(s) == "a b" })
	if got := r.status("till", "till-1"); got != "CRITICAL its check failed: status 503" {
		t.Errorf("it is %q", got)
	}
	broken.Store(false)
	until(t, w, "its checks pass", func(s *client.Set) bool { return ids(s) == "a b till-1" })
}

func okServer(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	return s.URL
}
