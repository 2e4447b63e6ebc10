package httpd_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
)

func TestServer_hands_over_callbacks(t *testing.T) {
	t.Parallel()
	take := func(_ context.Context, h http.Header, body []byte) error {
		if h.Get("Webhook-Id") != "m1" || !strings.HasPrefix(string(body), "{}") {
			return fault.New(fault.Unauthenticated, "The callback is not accepted.")
		}
		return nil
	}
	for _, tt := range []struct {
		name, line, body string
		deps             httpd.Deps
		want             int
	}{
		{"one that is taken", "POST /callbacks/payments", "{}", httpd.Deps{Callback: take}, http.StatusNoContent},
		{"one that is refused", "POST /callbacks/payments", "[]", httpd.Deps{Callback: take}, http.StatusUnauthorized},
		{"one that is too large", "POST /callbacks/payments", "{}" + strings.Repeat(" ", 64<<10), httpd.Deps{Callback: take}, http.StatusRequestEntityTooLarge},
		{"a page that looks", "GET /callbacks/payments", "", httpd.Deps{Callback: take}, http.StatusMethodNotAllowed},
		{"none are expected", "POST /callbacks/payments", "{}", httpd.Deps{}, http.StatusNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, httpd.Config{}, tt.deps)
			if got := answer(s, request(tt.line, "Webhook-Id: m1", tt.body)); got.Code != tt.want {
				t.Errorf("%s answers %d %s, want %d", tt.line, got.Code, got.Body, tt.want)
			}
		})
	}
}
