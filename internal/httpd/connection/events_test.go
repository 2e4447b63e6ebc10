package connection_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// wantEvents expects the next blocks of an event stream.
func wantEvents(t *testing.T, body *bufio.Reader, blocks ...string) {
	t.Helper()
	for _, want := range blocks {
		if got, err := readEvent(body); err != nil || got != want {
			t.Fatalf("the stream has %q, %v, want %q", got, err, want)
		}
	}
}

var (
	asEvents     = map[string]string{"Accept": "text/event-stream"}
	jsonAsEvents = map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json"}
)

// complete is the block that ends a stream.
const complete = "event: complete\ndata: "

func TestEvents_oneStreamPerOperation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, target, body string
		blocks               []string
	}{
		"a query by POST":        {"POST", "/graphql", `{"query":"{hello}"}`, []string{"event: next\ndata: {\"data\":{\"hello\":\"hi stranger\"}}", complete}},
		"a query by GET":         {"GET", "/graphql?query={hello}", "", []string{"event: next\ndata: {\"data\":{\"hello\":\"hi stranger\"}}", complete}},
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
			inWorld(t, httpd.Config{}, func(w *world) {
				headers := asEvents
				if tt.body != "" {
					headers = jsonAsEvents
				}
				resp := w.request(tt.method, tt.target, headers, tt.body)
				if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream; charset=utf-8" {
					t.Errorf("status %d, content type %q, want 200, text/event-stream", resp.StatusCode, got)
				}
				body := bufio.NewReader(resp.Body)
				wantEvents(w.t, body, append([]string{":"}, tt.blocks...)...)
				if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
					t.Errorf("after complete came %q, %v", rest, err)
				}
			})
		})
	}
}

func TestEvents_refusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, target, body string
		headers              map[string]string
		status               int
	}{
		"a mutation by GET":        {"GET", "/graphql?query=mutation{touch}", "", asEvents, 405},
		"no JSON":                  {"POST", "/graphql", "x", jsonAsEvents, 400},
		"a form":                   {"POST", "/graphql", "query={hello}", map[string]string{"Accept": "text/event-stream", "Content-Type": "application/x-www-form-urlencoded"}, 415},
		"an idempotency key":       {"POST", "/graphql", `{"query":"mutation{touch}"}`, map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json", "Idempotency-Key": "k"}, 400},
		"another method":           {"PATCH", "/graphql", "", asEvents, 405},
		"a reservation not made":   {"GET", "/graphql?token=x", "", asEvents, 404},
		"an operation without one": {"POST", "/graphql?token=x", `{"query":"{hello}","extensions":{"operationId":"1"}}`, jsonAsEvents, 404},
		"a stop without one":       {"DELETE", "/graphql?token=x&operationId=1", "", nil, 404},
		"a stop of nothing":        {"DELETE", "/graphql", "", nil, 405},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{}, func(w *world) {
				resp := w.request(tt.method, tt.target, tt.headers, tt.body)
				text, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != tt.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
					t.Errorf("status %d, content type %q, want %d in JSON: %s", resp.StatusCode, resp.Header.Get("Content-Type"), tt.status, text)
				}
			})
		})
	}
}

func TestEvents_cursors(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		resp := w.request("GET", "/graphql?query=subscription{ticks}", asEvents, "")
		body := bufio.NewReader(resp.Body)
		wantEvents(w.t, body, ":")
		source := <-w.opened
		source <- at("c1", 1)
		wantEvents(w.t, body, "event: next\nid: c1\ndata: {\"data\":{\"ticks\":1},\"extensions\":{\"cursor\":\"c1\"}}")
		wantEvents(w.t, body, ":") // still alive
		source <- progress("c2")
		source <- progress("c3")
		wantEvents(w.t, body, "id: c3", ":") // once, with the keep-alive
		source <- progress("c4")
		source <- at("c5", "a\nb")
		wantEvents(w.t, body, "event: next\nid: c5\ndata: {\"data\":{\"ticks\":\"a\\nb\"},\"extensions\":{\"cursor\":\"c5\"}}", ":")
		source <- at("broken\ncursor", 6)
		wantEvents(w.t, body, "event: next\ndata: {\"data\":{\"ticks\":6},\"extensions\":{\"cursor\":\"broken\\ncursor\"}}")
		close(source)
		wantEvents(w.t, body, complete)
	})
}

func TestEvents_resumeAfterTheLastEvent(t *testing.T) {
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
			inWorld(t, httpd.Config{}, func(w *world) {
				headers := map[string]string{"Accept": "text/event-stream"}
				if tt.last != "" {
					headers["Last-Event-Id"] = tt.last
				}
				body := bufio.NewReader(w.request("GET", tt.target, headers, "").Body)
				wantEvents(w.t, body, ":")
				if got, err := readEvent(body); err != nil || !strings.Contains(got, tt.want) {
					t.Errorf("the stream has %q, %v, want something with %s", got, err, tt.want)
				}
			})
		})
	}
}

func TestSocket_cursors(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		c := w.connect("")
		c.subscribe("s", "subscription{ticks}")
		source := <-w.opened
		source <- at("c1", 1)
		c.want(`{"type":"next","id":"s","payload":{"data":{"ticks":1},"extensions":{"cursor":"c1"}}}`)
		source <- progress("c2")
		source <- progress("c3")
		c.wantNothing()
		time.Sleep(20 * time.Second)
		c.want(`{"type":"ping","payload":{"cursor":"c3","id":"s"}}`)
		time.Sleep(time.Minute) // nothing new, nothing to tell
		c.wantNothing()
	})
}

func TestEvents_stopWhenTheClientGoes(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		resp := w.request("GET", "/graphql?query=subscription{ticks}", asEvents, "")
		wantEvents(w.t, bufio.NewReader(resp.Body), ":")
		source := <-w.opened
		_ = resp.Body.Close()
		synctest.Wait()
		select {
		case source <- 1:
			t.Error("the source of a stream without a client is still read")
		default:
		}
	})
}

func TestEvents_slowClientsLoseTheirStream(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute}}, func(w *world) {
		wantEvents(w.t, bufio.NewReader(w.request("GET", "/graphql?query=subscription{ticks}", asEvents, "").Body), ":")
		source := <-w.opened // and from now on nobody reads
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

func TestEvents_endForClientsThatDoNotEvenReadTheHead(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]func(w *world) string{
		"a stream": func(*world) string { return "/graphql?query=subscription{ticks}" },
		"a single connection": func(w *world) string {
			return "/graphql?token=" + w.reserve(map[string]string{"Authorization": "Bearer a"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute, Connections: 1}}, func(w *world) {
				w.tokens.set("a", "usr_1")
				head := "GET " + target(w) + " HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAuthorization: Bearer a\r\n\r\n"
				conn, err := w.ln.dial()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write([]byte(head))
				time.Sleep(50 * time.Second)
				if resp := w.request("PUT", "/graphql", nil, ""); resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("while the client may still read: status = %d, want 503", resp.StatusCode)
				}
				if n := w.tokens.looks(); n < 50 {
					t.Errorf("the credential was looked at %d times in 50 s, want two times a second", n)
				}
				time.Sleep(11 * time.Second)
				w.reserve(nil) // there is room for it
			})
		})
	}
}

func TestReservation(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		token := w.reserve(nil)
		operate := func(id, query string) int { return w.operate(token, id, query) }
		if got := operate("early", "{hello}"); got != 202 { // waits for the stream
			t.Errorf("an operation before the stream: status = %d, want 202", got)
		}
		resp := w.request("GET", "/graphql?token="+token, asEvents, "")
		body := bufio.NewReader(resp.Body)
		wantEvents(w.t, body, ":", `event: next`+"\n"+`data: {"id":"early","payload":{"data":{"hello":"hi stranger"}}}`, `event: complete`+"\n"+`data: {"id":"early"}`)
		if second := w.request("GET", "/graphql?token="+token, asEvents, ""); second.StatusCode != http.StatusConflict {
			t.Errorf("a second stream of one reservation: status = %d, want 409", second.StatusCode)
		}
		if got := operate("s", "subscription{ticks}"); got != 202 {
			t.Errorf("a subscription: status = %d, want 202", got)
		}
		source := <-w.opened
		source <- at("c1", 1)
		wantEvents(w.t, body, `event: next`+"\n"+`data: {"id":"s","payload":{"data":{"ticks":1},"extensions":{"cursor":"c1"}}}`)
		for what, got := range map[string]int{
			"the id of a live operation": operate("s", "{hello}") - 409,
			"no id":                      operate("", "{hello}") - 400,
			"a wrong document":           operate("x", "{nothing}") - 400,
		} {
			if got != 0 {
				t.Errorf("%s: status is off by %d", what, got)
			}
		}
		if resp := w.request("GET", "/graphql?query={hello}&extensions={%22operationId%22:%22g%22}&token="+token, nil, ""); resp.StatusCode != http.StatusAccepted {
			t.Errorf("a query by GET: status = %d, want 202", resp.StatusCode)
		}
		wantEvents(w.t, body, `event: next`+"\n"+`data: {"id":"g","payload":{"data":{"hello":"hi stranger"}}}`, `event: complete`+"\n"+`data: {"id":"g"}`)
		if resp := w.request("DELETE", "/graphql?operationId=s&token="+token, nil, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("stopping an operation: status = %d, want 200", resp.StatusCode)
		}
		synctest.Wait()
		select {
		case source <- 2:
			t.Error("the source of a stopped operation is still read")
		default:
		}
		_ = resp.Body.Close()
		synctest.Wait()
		if got := operate("late", "{hello}"); got != 404 {
			t.Errorf("an operation after the stream: status = %d, want 404", got)
		}
	})
}

func TestReservation_endsUnlessItIsUsed(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{InitTime: time.Minute, Connections: 1}}, func(w *world) {
		token := w.reserve(nil)
		if resp := w.request("PUT", "/graphql", nil, ""); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a reservation past the cap: status = %d, want 503", resp.StatusCode)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if resp := w.request("GET", "/graphql?token="+token, asEvents, ""); resp.StatusCode != http.StatusNotFound {
			t.Errorf("a reservation that was not used in time: status = %d, want 404", resp.StatusCode)
		}
		w.reserve(nil)
	})
}

func TestReservation_belongsToItsUser(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		w.tokens.set("b", "usr_2")
		token := w.reserve(map[string]string{"Authorization": "Bearer a"})
		if resp := w.request("GET", "/graphql?token="+token, map[string]string{"Accept": "text/event-stream", "Authorization": "Bearer b"}, ""); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("another user's stream: status = %d, want 401", resp.StatusCode)
		}
		body := bufio.NewReader(w.request("GET", "/graphql?token="+token, asEvents, "").Body)
		wantEvents(w.t, body, ":")
		headers := map[string]string{"Content-Type": "application/json", "X-GraphQL-Event-Stream-Token": token}
		w.request("POST", "/graphql", headers, `{"query":"subscription{ticks}","extensions":{"operationId":"s"}}`)
		(<-w.opened) <- whoAsks
		wantEvents(w.t, body, `event: next`+"\n"+`data: {"id":"s","payload":{"data":{"ticks":"usr_1"}}}`)
		w.tokens.set("a", "")
		wantEvents(w.t, body,
			`event: next`+"\n"+`data: {"id":"s","payload":{"errors":[{"message":"The credential is no longer valid.","extensions":{"code":"UNAUTHENTICATED"}}]}}`,
			`event: complete`+"\n"+`data: {"id":"s"}`)
	})
}

// reserve makes a reservation and returns its token.
func (w *world) reserve(headers map[string]string) string {
	w.t.Helper()
	resp := w.request(http.MethodPut, "/graphql", headers, "")
	token, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated || len(token) < 20 {
		w.t.Fatalf("a reservation: status %d, token %q, %v", resp.StatusCode, token, err)
	}
	return string(token)
}

// operate begins an operation of a single connection and returns the status.
func (w *world) operate(token, id, query string) int {
	w.t.Helper()
	headers := map[string]string{"Content-Type": "application/json", "X-GraphQL-Event-Stream-Token": token}
	resp := w.request("POST", "/graphql", headers, fmt.Sprintf(`{"query":%q,"extensions":{"operationId":%q}}`, query, id))
	_ = resp.Body.Close()
	return resp.StatusCode
}
