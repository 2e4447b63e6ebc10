package sse_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestStream_ends_with_its_credential(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		token, ticket string
		happens       func(k *streamtest.Tokens)
		want          string
	}{
		"revoked": {token: "a", happens: func(k *streamtest.Tokens) { k.Set("a", "") }, want: "The credential is no longer valid."},
		"expired": {token: "a", happens: func(k *streamtest.Tokens) { k.Expire(time.Now()) }, want: ""},
		"ticket":  {ticket: "a", happens: func(k *streamtest.Tokens) { k.Set("a", "") }, want: "The credential is no longer valid."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
				e.Tokens.Set("a", "usr_1")
				if name == "expired" {
					e.Tokens.Expire(time.Now().Add(time.Minute))
					tt.want = "The access token has expired."
				}
				headers, target := map[string]string{"Accept": "text/event-stream"}, "/graphql?query=subscription{ticks}"
				if tt.token != "" {
					headers["Authorization"] = "Bearer " + tt.token
				} else {
					target = "/graphql?ticket=" + tt.ticket
				}
				resp := e.Request("GET", target, headers, "")
				body := bufio.NewReader(resp.Body)
				e.WantEvents(body, ":")
				source := <-e.Sources
				source <- streamtest.CallerEvent
				e.WantEvents(body, "event: next\ndata: {\"data\":{\"ticks\":\"usr_1\"}}")
				tt.happens(e.Tokens)
				for block := ":"; block == ":"; {
					block, _ = streamtest.ReadEvent(body)
					if want := `event: next` + "\n" + `data: {"errors":[{"message":"` + tt.want + `","extensions":{"code":"UNAUTHENTICATED"}}]}`; block != ":" && block != want {
						t.Errorf("the stream ended with\n%s\nwant\n%s", block, want)
					}
				}
				e.WantEvents(body, "event: complete\ndata: ")
				if block, err := streamtest.ReadEvent(body); err == nil {
					t.Errorf("after complete came %q", block)
				}
			})
		})
	}
}

func TestStream_refuses_invalid_tokens_and_tickets(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		for _, tt := range []struct {
			name, method, target, authorization string
			status                              int
		}{
			{"an invalid token", "GET", "?query=subscription{ticks}", "Bearer bad", http.StatusUnauthorized},
			{"an invalid ticket", "GET", "?ticket=bad", "", http.StatusUnauthorized},
			{"a ticket for another document", "GET", "?query=subscription{tocks}&ticket=a", "", http.StatusUnauthorized},
			{"a ticket for other variables", "GET", `?query=subscription{ticks}&variables={"a":1}&ticket=a`, "", http.StatusUnauthorized},
			{"a ticket with an extension", "GET", `?query=subscription{ticks}&extensions={"a":1}&ticket=a`, "", http.StatusUnauthorized},
			{"a ticket by POST", "POST", "?ticket=a", "", http.StatusUnauthorized},
			{"a ticket for a single connection", "GET", "?ticket=a&token=b", "", http.StatusUnauthorized},
			{"a ticket and a token", "GET", "?ticket=a", "Bearer a", http.StatusBadRequest},
		} {
			headers := map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json"}
			if tt.authorization != "" {
				headers["Authorization"] = tt.authorization
			}
			body := ""
			if tt.method == "POST" {
				body = `{"query":"subscription{ticks}"}`
			}
			if resp := e.Request(tt.method, "/graphql"+tt.target, headers, body); resp.StatusCode != tt.status {
				t.Errorf("%s: status = %d, want %d", tt.name, resp.StatusCode, tt.status)
			}
		}
		for name, headers := range map[string]map[string]string{
			"a socket": {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="},
			"a query":  {"Accept": "application/json"},
		} {
			if resp := e.Request("GET", "/graphql?ticket=a&query={hello}", headers, ""); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with a ticket: status = %d, want 401", name, resp.StatusCode)
			}
		}
		if strings.Contains(e.Log.String(), "ticket=") {
			t.Errorf("the log shows tickets:\n%s", e.Log)
		}
	})
}

func TestStream_accepts_its_ticket_again(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		for _, target := range []string{"?ticket=a", "?ticket=a", "?query=subscription{ticks}&ticket=a"} {
			body := bufio.NewReader(e.Request("GET", "/graphql"+target, map[string]string{"Accept": "text/event-stream"}, "").Body)
			e.WantEvents(body, ":")
			source := <-e.Sources
			source <- streamtest.CallerEvent
			e.WantEvents(body, "event: next\ndata: {\"data\":{\"ticks\":\"usr_1\"}}")
		}
	})
}
