package httpd_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/httpd"
)

func TestServer_streams_without_hijacking(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{}, httpd.Deps{})
	w := answer(s, request("GET /graphql?query=subscription{ticks}", "Accept: text/event-stream", ""))
	want := ":\n\nevent: next\ndata: {\"data\":{\"ticks\":1}}\n\nevent: complete\ndata: \n\n"
	if got := w.Body.String(); w.Code != http.StatusOK || got != want || !w.Flushed {
		t.Errorf("answer = %d %q, flushed %v, want %q", w.Code, got, w.Flushed, want)
	}
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("content type = %q, want text/event-stream", got)
	}
}

func TestServer_refuses_WebSockets_of_other_versions(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{}, httpd.Deps{})
	headers := "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 12\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
	if w := answer(s, request("GET /graphql", headers, "")); w.Code != http.StatusBadRequest {
		t.Errorf("an upgrade to another version: status = %d, want 400", w.Code)
	}
}
