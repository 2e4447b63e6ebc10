package sse_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

// complete is the block that ends a stream.
const complete = "event: complete\ndata: "

func TestStream_carries_one_operation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, target, body string
		blocks               []string
	}{
		"a query by POST":        {"POST", "/graphql", `{"query":"{hello}"}`, []string{"event: next\ndata: {\"data\":{\"hello\":\"hi anonymous\"}}", complete}},
		"a query by GET":         {"GET", "/graphql?query={hello}", "", []string{"event: next\ndata: {\"data\":{\"hello\":\"hi anonymous\"}}", complete}},
		"a mutation by POST":     {"POST", "/graphql", `{"query":"mutation{touch}"}`, []string{"event: next\ndata: {\"data\":{\"touch\":\"touched\"}}", complete}},
		"a subscription by POST": {"POST", "/graphql", `{"query":"subscription{tocks}"}`, []string{"event: next\ndata: {\"data\":{\"tocks\":1}}", "event: next\ndata: {\"data\":{\"tocks\":2}}", complete}},
		"a subscription by GET": {
			"GET", "/graphql?query=subscription($n:Int){ticks(upTo:$n)}&variables={%22n%22:7}", "",
			[]string{"event: next\ndata: {\"data\":{\"ticks\":7}}", complete},
		},
		"a wrong document": {
			"GET", "/graphql?query={", "",
			[]string{"event: next\ndata: {\"errors\":[{\"message\":\"Expected Name, found <EOF>\",\"locations\":[{\"line\":1,\"column\":2}],\"extensions\":{\"code\":\"GRAPHQL_PARSE_FAILED\"}}]}", complete},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
				headers := streamtest.AcceptEvents
				if tt.body != "" {
					headers = streamtest.JSONAcceptEvents
				}
				resp := e.Request(tt.method, tt.target, headers, tt.body)
				if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream; charset=utf-8" {
					t.Errorf("status %d, content type %q, want 200, text/event-stream", resp.StatusCode, got)
				}
				body := bufio.NewReader(resp.Body)
				e.WantEvents(body, append([]string{":"}, tt.blocks...)...)
				if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
					t.Errorf("after complete came %q, %v", rest, err)
				}
			})
		})
	}
}

func TestStream_refuses_bad_requests(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, target, body string
		headers              map[string]string
		status               int
	}{
		"a mutation by GET":        {"GET", "/graphql?query=mutation{touch}", "", streamtest.AcceptEvents, 405},
		"no JSON":                  {"POST", "/graphql", "x", streamtest.JSONAcceptEvents, 400},
		"a form":                   {"POST", "/graphql", "query={hello}", map[string]string{"Accept": "text/event-stream", "Content-Type": "application/x-www-form-urlencoded"}, 415},
		"an idempotency key":       {"POST", "/graphql", `{"query":"mutation{touch}"}`, map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json", "Idempotency-Key": "k"}, 400},
		"another method":           {"PATCH", "/graphql", "", streamtest.AcceptEvents, 405},
		"a reservation not made":   {"GET", "/graphql?token=x", "", streamtest.AcceptEvents, 404},
		"an operation without one": {"POST", "/graphql?token=x", `{"query":"{hello}","extensions":{"operationId":"1"}}`, streamtest.JSONAcceptEvents, 404},
		"a stop without one":       {"DELETE", "/graphql?token=x&operationId=1", "", nil, 404},
		"a stop of nothing":        {"DELETE", "/graphql", "", nil, 405},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
				resp := e.Request(tt.method, tt.target, tt.headers, tt.body)
				text, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != tt.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
					t.Errorf("status %d, content type %q, want %d in JSON: %s", resp.StatusCode, resp.Header.Get("Content-Type"), tt.status, text)
				}
			})
		})
	}
}

func TestStream_sends_cursors(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		resp := e.Request("GET", "/graphql?query=subscription{ticks}", streamtest.AcceptEvents, "")
		body := bufio.NewReader(resp.Body)
		e.WantEvents(body, ":")
		source := <-e.Sources
		source <- streamtest.EventAt("c1", 1)
		e.WantEvents(body, "event: next\nid: c1\ndata: {\"data\":{\"ticks\":1},\"extensions\":{\"cursor\":\"c1\"}}")
		e.WantEvents(body, ":") // still alive
		source <- streamtest.Progress("c2")
		source <- streamtest.Progress("c3")
		e.WantEvents(body, "id: c3", ":") // once, with the keep-alive
		source <- streamtest.Progress("c4")
		source <- streamtest.EventAt("c5", "a\nb")
		e.WantEvents(body, "event: next\nid: c5\ndata: {\"data\":{\"ticks\":\"a\\nb\"},\"extensions\":{\"cursor\":\"c5\"}}", ":")
		source <- streamtest.EventAt("broken\ncursor", 6)
		e.WantEvents(body, "event: next\ndata: {\"data\":{\"ticks\":6},\"extensions\":{\"cursor\":\"broken\\ncursor\"}}")
		close(source)
		e.WantEvents(body, complete)
	})
}

func TestStream_resumes_after_Last_Event_ID(t *testing.T) {
	t.Parallel()
	const target = "/graphql?query=subscription($after:Int){ticks(upTo:$after)}"
	for name, tt := range map[string]struct{ target, last, want string }{
		"the header alone":                   {target, "5", `Variable \"$after\" must be`}, // it is text, which the test's type is not
		"the header is younger than the URL": {target + "&variables={%22after%22:1}", "5", `Variable \"$after\" must be`},
		"no header":                          {target + "&variables={%22after%22:1}", "", `{"data":{"ticks":1}}`},
		"a document without the variable":    {"/graphql?query=subscription{tocks}", "5", `{"data":{"tocks":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
				headers := map[string]string{"Accept": "text/event-stream"}
				if tt.last != "" {
					headers["Last-Event-Id"] = tt.last
				}
				body := bufio.NewReader(e.Request("GET", tt.target, headers, "").Body)
				e.WantEvents(body, ":")
				if got, err := streamtest.ReadEvent(body); err != nil || !strings.Contains(got, tt.want) {
					t.Errorf("the stream has %q, %v, want something with %s", got, err, tt.want)
				}
			})
		})
	}
}

func TestStream_stops_when_the_client_hangs_up(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		resp := e.Request("GET", "/graphql?query=subscription{ticks}", streamtest.AcceptEvents, "")
		e.WantEvents(bufio.NewReader(resp.Body), ":")
		source := <-e.Sources
		_ = resp.Body.Close()
		synctest.Wait()
		select {
		case source <- 1:
			t.Error("the source of a stream without a client is still read")
		default:
		}
	})
}

func TestStream_cuts_clients_that_stall(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute}}, func(e *streamtest.Env) {
		e.WantEvents(bufio.NewReader(e.Request("GET", "/graphql?query=subscription{ticks}", streamtest.AcceptEvents, "").Body), ":")
		source := <-e.Sources // the client reads no more
		source <- strings.Repeat("x", 1<<20)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		select {
		case source <- 1:
			t.Error("the source of a client that does not read is still read")
		default:
		}
	})
}

func TestStream_cuts_clients_that_do_not_read_the_head(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(e *streamtest.Env) string{
		"a stream": func(*streamtest.Env) string { return "/graphql?query=subscription{ticks}" },
		"a single connection": func(e *streamtest.Env) string {
			return "/graphql?token=" + e.Reserve(map[string]string{"Authorization": "Bearer a"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute, Connections: 1}}, func(e *streamtest.Env) {
				e.Tokens.Set("a", "usr_1")
				head := "GET " + target(e) + " HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAuthorization: Bearer a\r\n\r\n"
				conn, err := e.Listener.Dial()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write([]byte(head))
				time.Sleep(50 * time.Second)
				if resp := e.Request("PUT", "/graphql", nil, ""); resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("while the client may still read: status = %d, want 503", resp.StatusCode)
				}
				if n := e.Tokens.Checks(); n < 50 {
					t.Errorf("the credential was looked at %d times in 50 s, want two times a second", n)
				}
				time.Sleep(11 * time.Second)
				e.Reserve(nil) // there is room for it
			})
		})
	}
}
