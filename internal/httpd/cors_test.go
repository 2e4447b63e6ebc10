package httpd_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
)

func TestServer_logs_a_refused_preflight_once_with_its_setting(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	x, err := executor.New(schema(), executor.Config{}, logger)
	if err != nil {
		t.Fatal(err)
	}
	s, err := httpd.New(httpd.Config{AllowedOrigins: []string{"https://shop.example"}, AllowedHosts: []string{"example.com"}}, x, httpd.Deps{}, logger)
	if err != nil {
		t.Fatal(err)
	}
	preflight := func(origin, headers string) {
		answer(s, request("OPTIONS /graphql", "Origin: "+origin+"\nAccess-Control-Request-Method: POST\nAccess-Control-Request-Headers: "+headers, ""))
	}
	for range 3 {
		preflight("https://new.example", "content-type")
		preflight("https://shop.example", "content-type")
	}
	if got := log.String(); strings.Count(got, "BACKPLANE_CORS_ORIGINS") != 1 || !strings.Contains(got, "https://new.example") || strings.Contains(got, "BACKPLANE_CORS_HEADERS") {
		t.Errorf("the log is %s, want one line about https://new.example", got)
	}
	preflight("https://shop.example", "x-other")
	if got := log.String(); strings.Count(got, "BACKPLANE_CORS_HEADERS") != 1 || !strings.Contains(got, "x-other") {
		t.Errorf("the log is %s, want one line about x-other", got)
	}
	for i := range 300 {
		preflight(fmt.Sprintf("https://%d.example", i), "content-type")
	}
	if n := strings.Count(log.String(), "BACKPLANE_CORS_"); n > 100 {
		t.Errorf("%d lines, want at most 100", n)
	}
}

func TestServer_lets_local_pages_call_if_it_is_told_to(t *testing.T) {
	t.Parallel()
	local := newServer(t, httpd.Config{AllowLocalOrigins: true}, httpd.Deps{})
	closed := newServer(t, httpd.Config{}, httpd.Deps{})
	for origin, allowed := range map[string]bool{
		"http://localhost:5173": true, "https://localhost": true, "http://127.0.0.1:3000": true, "http://[::1]:3000": true,
		"http://localhost.evil.example": false, "http://127.0.0.1.evil.example": false, "https://evil.example": false, "null": false, "file://localhost": false,
	} {
		call := request("POST /graphql", "Content-Type: application/json\nSec-Fetch-Site: cross-site\nOrigin: "+origin, `{"query":"{hello}"}`)
		if w := answer(local, call); (w.Code == 200) != allowed || (w.Header().Get("Access-Control-Allow-Origin") != "") != allowed {
			t.Errorf("a page of %s: %d, want it allowed: %v", origin, w.Code, allowed)
		}
		call = request("POST /graphql", "Content-Type: application/json\nSec-Fetch-Site: cross-site\nOrigin: "+origin, `{"query":"{hello}"}`)
		if w := answer(closed, call); w.Code != 403 {
			t.Errorf("a page of %s without the option: %d, want 403", origin, w.Code)
		}
	}
}
