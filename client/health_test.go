package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/client"
)

func newHealth(t *testing.T, cfg client.HealthConfig) *client.Health {
	t.Helper()
	h, err := client.NewHealth(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(h http.Handler, method string) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/healthz", nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestHealth_tells_how_the_instance_is(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	checks := map[string]client.Check{
		"database": func(context.Context) error {
			if broken.Load() {
				return errors.New("dial tcp 10.0.0.3:5432: a secret")
			}
			return nil
		},
		"disk": func(context.Context) error {
			if broken.Load() {
				panic("no disk")
			}
			return nil
		},
		"queue": func(context.Context) error { return nil },
	}
	h := newHealth(t, client.HealthConfig{Checks: checks})
	want := func(what string, status int, body string) {
		t.Helper()
		if code, got := ask(h, http.MethodGet); code != status || got != body {
			t.Errorf("%s: %d %s, want %d %s", what, code, got, status, body)
		}
	}
	want("all well", http.StatusOK, `{"status":"healthy"}`)
	h.SetDraining(true)
	want("draining", http.StatusServiceUnavailable, `{"status":"draining"}`)
	broken.Store(true)
	want("failing", http.StatusServiceUnavailable, `{"status":"failing","failing":["database","disk"]}`)
	broken.Store(false)
	h.SetDraining(false)
	want("well again", http.StatusOK, `{"status":"healthy"}`)
	if code, _ := ask(h, http.MethodPost); code != http.StatusMethodNotAllowed {
		t.Errorf("a POST is answered %d, want 405", code)
	}
}

// TestHealth_bounds_its_checks has one that heeds nothing: it costs a time limit once, one
// goroutine in all, and counts as failing until it returns.
func TestHealth_bounds_its_checks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most, runs atomic.Int64
		release := make(chan struct{})
		checks := map[string]client.Check{
			"stuck": func(context.Context) error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				<-release
				return nil
			},
			"quick": func(context.Context) error { runs.Add(1); return nil },
		}
		h := newHealth(t, client.HealthConfig{Checks: checks, Timeout: 2 * time.Second})
		for range 3 {
			began := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if code, body := ask(h, http.MethodGet); code != http.StatusServiceUnavailable || body != `{"status":"failing","failing":["stuck"]}` {
						t.Errorf("%d %s", code, body)
					}
				})
			}
			wg.Wait()
			if took := time.Since(began); took != 2*time.Second {
				t.Errorf("the answer took %v, want the time limit", took)
			}
		}
		if most.Load() != 1 || runs.Load() != 3 {
			t.Errorf("the stuck check ran %d times at once and the quick one %d times, want 1 and 3: requests share", most.Load(), runs.Load())
		}
		close(release)
		synctest.Wait()
		if code, _ := ask(h, http.MethodGet); code != http.StatusOK {
			t.Errorf("once it returns the answer is %d", code)
		}
	})
}

func TestNewHealth_refuses_what_makes_no_sense(t *testing.T) {
	t.Parallel()
	if _, err := client.NewHealth(client.HealthConfig{Timeout: -1}); err == nil {
		t.Error("NewHealth takes a negative Timeout")
	}
}
