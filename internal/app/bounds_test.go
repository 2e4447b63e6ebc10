package app_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/setting"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// extremes are values of numbers and durations at and beyond their bounds.
var extremes = []string{
	"-9223372036854775808", "-1", "0", "1", "1073741824", "9223372036854775807", "9223372036854775808", "1e3", "0x10",
	"-1s", "0s", "1ns", "1ms", "1h", "175680h", "2562047h47m16.854775807s", "2562048h", "s",
}

// TestSettings_at_their_bounds builds a server with each of the extremes of each setting, unless the
// setting refuses it, and sends it requests.
func TestSettings_at_their_bounds(t *testing.T) { //nolint:tparallel // the servers use one database file, one after the other
	t.Parallel()
	if testing.Short() {
		t.Skip("builds some hundred servers")
	}
	database := "BACKPLANE_DATABASE_URL=sqlite:" + filepath.Join(t.TempDir(), "bounds.db")
	accepted := 0
	for _, s := range config.Settings() { //nolint:paralleltest // as above
		if s.Name == "DATABASE_URL" || s.Name == "REST_OPERATIONS" { // the database of the test, and a folder
			continue
		}
		values := acceptedExtremes(t, s, database)
		if len(values) > 2 && !testenv.Soak() {
			values = []string{values[0], values[len(values)-1]}
		}
		for _, value := range values {
			accepted++
			t.Run(s.Name+"="+value, func(t *testing.T) { useServer(t, configWith(t, s, value, database)) })
		}
	}
	if accepted < 90 {
		t.Errorf("only %d values were accepted: the test tries too little", accepted)
	}
}

// acceptedExtremes returns those of the extremes that the setting accepts. It refuses the others by its name.
func acceptedExtremes(t *testing.T, s setting.Setting, database string) (accepted []string) {
	t.Helper()
	for _, value := range extremes {
		_, err := config.FromEnv([]string{database, s.Variable() + "=" + value}, nil)
		switch {
		case err == nil:
			accepted = append(accepted, value)
		case !strings.Contains(err.Error(), s.Variable()):
			t.Errorf("%s=%s is refused without its name: %v", s.Variable(), value, err)
		}
	}
	return accepted
}

func configWith(t *testing.T, s setting.Setting, value, database string) config.Config {
	t.Helper()
	cfg, err := config.FromEnv([]string{database, "BACKPLANE_LOG_LEVEL=error", s.Variable() + "=" + value}, nil)
	if err != nil {
		t.Skip(err) // the level of the log itself
	}
	return cfg
}

// useServer builds a server and sends it a query, a request of a route and a subscription.
func useServer(t *testing.T, cfg config.Config) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("panic: %v", r)
		}
	}()
	server, _, _ := newServer(t, app.Env{Config: cfg, Log: slog.New(slog.DiscardHandler), Out: io.Discard})
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodPost, "http://localhost/graphql", strings.NewReader(`{"query":"{ products(first: 1) { nodes { id } totalCount } }"}`)),
		httptest.NewRequest(http.MethodGet, "http://localhost/products?limit=1", nil),
		httptest.NewRequest(http.MethodGet, "http://localhost/graphql?query=subscription%7Bping%7D", nil),
	} {
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s is answered with %d %s", r.Method, r.URL.Path, w.Code, w.Body)
		}
	}
}
