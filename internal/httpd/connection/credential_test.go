package connection_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/uid"
)

// whoAsks is an event that says for whom it is resolved.
var whoAsks = executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { return callerOf(ctx), nil })

func TestSocket_knowsItsCaller(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		header := w.dial("graphql-transport-ws", map[string]string{"Authorization": "Bearer a"})
		header.send(initMessage)
		header.want(ackMessage)
		for _, c := range []*client{header, w.connect("a")} {
			c.subscribe("q", "{hello}")
			c.want(`{"type":"next","id":"q","payload":{"data":{"hello":"hi usr_1"}}}`)
		}
		if c := w.dial("graphql-transport-ws", map[string]string{"Authorization": "Bearer bad"}); c.resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("an upgrade with a token that is not good: status = %d, want 401", c.resp.StatusCode)
		}
		if c := w.dial("graphql-transport-ws", map[string]string{"Cookie": "Authorization=Bearer a"}); c.resp.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("an upgrade with a cookie: status = %d, want 101", c.resp.StatusCode)
		} else {
			c.send(initMessage)
			c.want(ackMessage)
			c.subscribe("q", "{hello}")
			c.want(`{"type":"next","id":"q","payload":{"data":{"hello":"hi stranger"}}}`)
		}
	})
}

func TestSocket_endsWithItsCredential(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		happens func(k *tokens)
		code    int
		reason  string
		within  time.Duration
	}{
		"when it is revoked":         {func(k *tokens) { k.set("a", "") }, 4403, "The credential is no longer valid.", time.Second},
		"when it has expired":        {func(k *tokens) { k.expire(time.Now().Add(time.Minute)) }, 4403, "The access token has expired.", time.Minute + time.Second},
		"when nobody can tell long":  {func(k *tokens) { k.fail(true) }, 1013, "Credentials cannot be checked right now.", 15 * time.Second},
		"when it is another's token": {func(k *tokens) { k.set("a", "") }, 4403, "The credential is no longer valid.", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{}, func(w *world) {
				w.tokens.set("a", "usr_1")
				if tt.within > 20*time.Second {
					tt.happens(w.tokens)
				}
				c := w.connect("a")
				c.subscribe("s", "subscription{ticks}")
				<-w.opened
				at := time.Now()
				tt.happens(w.tokens)
				c.wantClose(tt.code, tt.reason)
				if took := time.Since(at); took > tt.within {
					t.Errorf("the socket ended after %v, want at most %v", took, tt.within)
				}
			})
		})
	}
}

func TestSocket_outlivesShortDoubts(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		c := w.connect("a")
		for range 3 {
			w.tokens.fail(true)
			time.Sleep(7 * time.Second)
			w.tokens.fail(false)
			time.Sleep(2 * time.Second)
		}
		c.wantNothing()
	})
}

func TestSocket_takesANewTokenWithoutLosingStreams(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		w.tokens.set("b", "usr_1")
		w.tokens.expire(time.Now().Add(time.Minute))
		c := w.connect("a")
		c.subscribe("s", "subscription{ticks}")
		source := <-w.opened
		until := time.Now().Add(time.Hour)
		w.tokens.expire(until)
		c.send(`{"type":"ping","payload":{"authorization":"Bearer b"}}`)
		c.want(fmt.Sprintf(`{"type":"pong","payload":{"expiresAt":%q}}`, until.UTC().Format(time.RFC3339)))
		w.tokens.set("a", "") // its session may end now
		time.Sleep(30 * time.Minute)
		source <- 1
		c.want(`{"type":"next","id":"s","payload":{"data":{"ticks":1}}}`)
		c.wantClose(4403, "The access token has expired.")
		if late := time.Since(until); late < 0 || late > time.Second {
			t.Errorf("the socket ended %v after its second token, want at once", late)
		}
	})
}

func TestSocket_takesNoTokenOfAnotherUser(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		w.tokens.set("b", "usr_2")
		c := w.connect("a")
		c.send(`{"type":"ping","payload":{"authorization":"b"}}`)
		c.wantClose(4403, "The new token belongs to another user.")
	})
}

func TestSocket_goesByTheRightsOfTheMoment(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		c := w.connect("")
		w.tokens.set("a", "usr_1")
		c.subscribe("s", "subscription{ticks}")
		source := <-w.opened
		source <- whoAsks
		c.want(`{"type":"next","id":"s","payload":{"data":{"ticks":"stranger"}}}`)
		c.send(`{"type":"ping","payload":{"authorization":"a"}}`) // a stranger may become somebody
		c.want(`{"type":"pong","payload":{"expiresAt":null}}`)
		source <- whoAsks
		c.want(`{"type":"next","id":"s","payload":{"data":{"ticks":"usr_1"}}}`)
	})
}

func TestSocket_looksAtItsCredentialNowAndThen(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{CheckTime: time.Second}}, func(w *world) {
		w.tokens.set("a", "usr_1")
		w.connect("a")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.tokens.looks(); n < 59 || n > 62 {
			t.Errorf("a socket looked at its credential %d times in a minute, want once a second", n)
		}
	})
}

func TestEvents_endWithTheirCredential(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		token, ticket string
		happens       func(k *tokens)
		want          string
	}{
		"revoked": {token: "a", happens: func(k *tokens) { k.set("a", "") }, want: "The credential is no longer valid."},
		"expired": {token: "a", happens: func(k *tokens) { k.expire(time.Now()) }, want: ""},
		"ticket":  {ticket: "a", happens: func(k *tokens) { k.set("a", "") }, want: "The credential is no longer valid."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{}, func(w *world) {
				w.tokens.set("a", "usr_1")
				if name == "expired" {
					w.tokens.expire(time.Now().Add(time.Minute))
					tt.want = "The access token has expired."
				}
				headers, target := map[string]string{"Accept": "text/event-stream"}, "/graphql?query=subscription{ticks}"
				if tt.token != "" {
					headers["Authorization"] = "Bearer " + tt.token
				} else {
					target = "/graphql?ticket=" + tt.ticket
				}
				resp := w.request("GET", target, headers, "")
				body := bufio.NewReader(resp.Body)
				wantEvents(w.t, body, ":")
				source := <-w.opened
				source <- whoAsks
				wantEvents(w.t, body, "event: next\ndata: {\"data\":{\"ticks\":\"usr_1\"}}")
				tt.happens(w.tokens)
				for block := ":"; block == ":"; {
					block, _ = readEvent(body)
					if want := `event: next` + "\n" + `data: {"errors":[{"message":"` + tt.want + `","extensions":{"code":"UNAUTHENTICATED"}}]}`; block != ":" && block != want {
						t.Errorf("the stream ended with\n%s\nwant\n%s", block, want)
					}
				}
				wantEvents(w.t, body, "event: complete\ndata: ")
				if block, err := readEvent(body); err == nil {
					t.Errorf("after complete came %q", block)
				}
			})
		})
	}
}

func TestEvents_refuseWhoIsNotKnown(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		for _, tt := range []struct {
			name, method, target, authorization string
			status                              int
		}{
			{"a token that is not good", "GET", "?query=subscription{ticks}", "Bearer bad", http.StatusUnauthorized},
			{"a ticket that is not good", "GET", "?ticket=bad", "", http.StatusUnauthorized},
			{"a ticket for another document", "GET", "?query=subscription{tocks}&ticket=a", "", http.StatusUnauthorized},
			{"a ticket for other variables", "GET", `?query=subscription{ticks}&variables={"a":1}&ticket=a`, "", http.StatusUnauthorized},
			{"a ticket with an extension", "GET", `?query=subscription{ticks}&extensions={"a":1}&ticket=a`, "", http.StatusUnauthorized},
			{"a ticket by POST", "POST", "?ticket=a", "", http.StatusUnauthorized},
			{"a ticket for a single connection", "GET", "?ticket=a&token=b", "", http.StatusUnauthorized},
			{"a ticket beside a token", "GET", "?ticket=a", "Bearer a", http.StatusBadRequest},
		} {
			headers := map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json"}
			if tt.authorization != "" {
				headers["Authorization"] = tt.authorization
			}
			body := ""
			if tt.method == "POST" {
				body = `{"query":"subscription{ticks}"}`
			}
			if resp := w.request(tt.method, "/graphql"+tt.target, headers, body); resp.StatusCode != tt.status {
				t.Errorf("%s: status = %d, want %d", tt.name, resp.StatusCode, tt.status)
			}
		}
		for name, headers := range map[string]map[string]string{
			"a socket": {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="},
			"a query":  {"Accept": "application/json"},
		} {
			if resp := w.request("GET", "/graphql?ticket=a&query={hello}", headers, ""); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with a ticket: status = %d, want 401", name, resp.StatusCode)
			}
		}
		if strings.Contains(w.log.String(), "ticket=") {
			t.Errorf("the log shows tickets:\n%s", w.log)
		}
	})
}

func TestEvents_takeTheirTicketAgain(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		w.tokens.set("a", "usr_1")
		for _, target := range []string{"?ticket=a", "?ticket=a", "?query=subscription{ticks}&ticket=a"} {
			body := bufio.NewReader(w.request("GET", "/graphql"+target, map[string]string{"Accept": "text/event-stream"}, "").Body)
			wantEvents(w.t, body, ":")
			source := <-w.opened
			source <- whoAsks
			wantEvents(w.t, body, "event: next\ndata: {\"data\":{\"ticks\":\"usr_1\"}}")
		}
	})
}

func TestServer_Recheck_looks_at_whom_it_concerns_at_once(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{CheckTime: time.Hour, KeepAlive: time.Hour, IdleTime: 24 * time.Hour}}, func(w *world) {
		w.tokens.set("a", "usr_1")
		w.tokens.set("b", "usr_2")
		sock, other := w.connect("a"), w.connect("b")
		for _, c := range []*client{sock, other} {
			c.subscribe("s", "subscription{ticks}")
			<-w.opened
		}
		body := bufio.NewReader(w.request("GET", "/graphql?query=subscription{ticks}", map[string]string{"Accept": "text/event-stream", "Authorization": "Bearer a"}, "").Body)
		wantEvents(w.t, body, ":")
		<-w.opened
		start := time.Now()
		w.tokens.set("a", "")
		w.tokens.set("b", "")
		sock.wantNothing()
		w.server.Recheck(func(p *auth.Principal) bool { return p != nil && p.UserID == "usr_1" })
		sock.wantClose(4403, "The credential is no longer valid.")
		if block, err := readEvent(body); err != nil || !strings.Contains(block, "UNAUTHENTICATED") {
			t.Errorf("the event stream says %q, %v, want that the credential has ended", block, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the streams ended after %v, want at once", took)
		}
		other.wantNothing()
	})
}

func TestServer_Recheck_comes_while_a_socket_is_made(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		user uid.User // of the token from then on
		want string
	}{
		"and the credential is good":     {"usr_1", (frame{textFrame, []byte(ackMessage)}).String()},
		"and the credential was revoked": {"", `close 4403 "The credential is no longer valid."`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{Streams: connection.Config{CheckTime: time.Hour}}, func(w *world) {
				w.tokens.set("a", "usr_1")
				hooked := *w
				hooked.ln = newPipes()
				srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					w.server.Handler().ServeHTTP(hijackHook{rw, func() {
						w.tokens.set("a", tt.user)
						w.server.Recheck(func(p *auth.Principal) bool { return p != nil })
						time.Sleep(time.Second) // in which whatever that has begun comes to its end
					}}, r)
				})}
				go srv.Serve(hooked.ln) //nolint:errcheck // it is closed below
				defer srv.Close()
				defer hooked.ln.hangUp()
				c := hooked.dial("graphql-transport-ws", map[string]string{"Authorization": "Bearer a"})
				synctest.Wait()
				c.send(initMessage)
				if f := <-c.queue; f.String() != tt.want {
					t.Errorf("the server sent %s, want %s", f, tt.want)
				}
			})
		})
	}
}

// hijackHook does something just before a connection is taken over.
type hijackHook struct {
	http.ResponseWriter
	before func()
}

func (h hijackHook) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.before()
	return http.NewResponseController(h.ResponseWriter).Hijack()
}
