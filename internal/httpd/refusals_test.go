package httpd_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/security"
)

// TestServer_reports_what_it_refuses_by_itself once, as the security event that it is.
func TestServer_reports_what_it_refuses_by_itself(t *testing.T) {
	t.Parallel()
	const upgrade = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	for _, tt := range []struct {
		name, line, headers string
		want                security.EventType
		detail              string
	}{
		{"another scheme", "POST /graphql", "Authorization: Basic YTpi", security.CredentialRefused, "MALFORMED"},
		{"two credentials", "GET /graphql?query={hello}", "Authorization: Bearer good\nAuthorization: Bearer good", security.CredentialRefused, "MALFORMED"},
		{"a socket with another scheme", "GET /graphql", upgrade + "\nAuthorization: Basic YTpi", security.CredentialRefused, "MALFORMED"},
		{"an event stream with another scheme", "GET /graphql?query={hello}", "Accept: text/event-stream\nAuthorization: Basic YTpi", security.CredentialRefused, "MALFORMED"},
		{"a ticket by POST", "POST /graphql?ticket=bpt_x", "Content-Type: application/json", security.CredentialRefused, "MISUSED"},
		{"a ticket without a server of tickets", "GET /graphql?ticket=bpt_x", "Accept: text/event-stream", security.CredentialRefused, "MISUSED"},
		{"a socket of another origin", "GET /graphql", upgrade + "\nOrigin: https://evil.example", security.CrossOriginRefused, ""},
		{"a page of another origin", "POST /graphql", "Origin: https://evil.example", security.CrossOriginRefused, ""},
		{"another host", "GET http://evil.example/graphql", "", security.HostRefused, ""},
		{"an operation", "GET /graphql?query={hello}", "Authorization: Bearer good", "", ""},
		{"a mistake", "GET /graphql?query={", "", "", ""},
		{"a credential that cannot be checked", "GET /graphql?query={hello}", "Authorization: Bearer down", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var events []security.Event
			s := newServer(t, httpd.Config{}, httpd.Deps{Auth: tokens{}, OnError: func(ctx context.Context, err error) {
				if e, ok := security.EventOf(ctx, err, time.Now()); ok {
					events = append(events, e)
				}
			}})
			answer(s, request(tt.line, tt.headers, ""))
			switch {
			case tt.want == "" && len(events) == 0:
			case len(events) != 1 || events[0].Type != tt.want || events[0].Detail != tt.detail || events[0].Address != "192.0.2.1" || events[0].RequestID == "":
				t.Errorf("the security events are %+v, want one %s %s", events, tt.want, tt.detail)
			}
		})
	}
}

func TestServer_names_the_caller_in_the_access_log(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, line, headers, want string }{
		{"a session", "GET /graphql?query={hello}", "Authorization: Bearer good", "user=usr_1 session=ses_1"},
		{"an event stream", "GET /graphql?query={hello}", "Accept: text/event-stream\nAuthorization: Bearer good", "user=usr_1 session=ses_1"},
		{"an anonymous caller", "GET /graphql?query={hello}", "", ""},
		{"a refused credential", "GET /graphql?query={hello}", "Authorization: Bearer bad", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := slog.New(slog.NewTextHandler(&out, nil))
			x, err := executor.New(schema(), executor.Config{}, log)
			if err != nil {
				t.Fatal(err)
			}
			s, err := httpd.New(httpd.Config{AllowedHosts: []string{"example.com"}}, x, httpd.Deps{Auth: tokens{}}, log)
			if err != nil {
				t.Fatal(err)
			}
			answer(s, request(tt.line, tt.headers, ""))
			_, record, found := strings.Cut(out.String(), "msg=request ")
			if !found || strings.Count(record, "user=") != min(len(tt.want), 1) || !strings.Contains(record, tt.want) {
				t.Errorf("the record of the access log is\n%s\nwant %q in it once", record, tt.want)
			}
		})
	}
}
