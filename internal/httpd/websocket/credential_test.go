package websocket_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestSocket_authenticates_its_caller(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		header := e.DialWebSocket("graphql-transport-ws", map[string]string{"Authorization": "Bearer a"})
		header.Send(streamtest.InitMessage)
		header.Want(streamtest.AckMessage)
		for _, c := range []*streamtest.Client{header, e.Connect("a")} {
			c.Subscribe("q", "{hello}")
			c.Want(`{"type":"next","id":"q","payload":{"data":{"hello":"hi usr_1"}}}`)
		}
		if c := e.DialWebSocket("graphql-transport-ws", map[string]string{"Authorization": "Bearer bad"}); c.Response.StatusCode != http.StatusUnauthorized {
			t.Errorf("an upgrade with an invalid token: status = %d, want 401", c.Response.StatusCode)
		}
		if c := e.DialWebSocket("graphql-transport-ws", map[string]string{"Cookie": "Authorization=Bearer a"}); c.Response.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("an upgrade with a cookie: status = %d, want 101", c.Response.StatusCode)
		} else {
			c.Send(streamtest.InitMessage)
			c.Want(streamtest.AckMessage)
			c.Subscribe("q", "{hello}")
			c.Want(`{"type":"next","id":"q","payload":{"data":{"hello":"hi anonymous"}}}`)
		}
	})
}

func TestSocket_closes_when_its_credential_ends(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		happens func(k *streamtest.Tokens)
		code    int
		reason  string
		within  time.Duration
	}{
		"when it is revoked":                 {func(k *streamtest.Tokens) { k.Set("a", "") }, 4403, "The credential is no longer valid.", time.Second},
		"when it has expired":                {func(k *streamtest.Tokens) { k.Expire(time.Now().Add(time.Minute)) }, 4403, "The access token has expired.", time.Minute + time.Second},
		"when it cannot be checked for long": {func(k *streamtest.Tokens) { k.Fail(true) }, 1013, "Credentials cannot be checked right now.", 15 * time.Second},
		"when it is another's token":         {func(k *streamtest.Tokens) { k.Set("a", "") }, 4403, "The credential is no longer valid.", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
				e.Tokens.Set("a", "usr_1")
				if tt.within > 20*time.Second {
					tt.happens(e.Tokens)
				}
				c := e.Connect("a")
				c.Subscribe("s", "subscription{ticks}")
				<-e.Sources
				at := time.Now()
				tt.happens(e.Tokens)
				c.WantClose(tt.code, tt.reason)
				if took := time.Since(at); took > tt.within {
					t.Errorf("the socket ended after %v, want at most %v", took, tt.within)
				}
			})
		})
	}
}

func TestSocket_outlives_short_failures_of_the_check(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		c := e.Connect("a")
		for range 3 {
			e.Tokens.Fail(true)
			time.Sleep(7 * time.Second)
			e.Tokens.Fail(false)
			time.Sleep(2 * time.Second)
		}
		c.WantNothing()
	})
}

func TestSocket_renews_its_token_without_interrupting_streams(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		e.Tokens.Set("b", "usr_1")
		e.Tokens.Expire(time.Now().Add(time.Minute))
		c := e.Connect("a")
		c.Subscribe("s", "subscription{ticks}")
		source := <-e.Sources
		until := time.Now().Add(time.Hour)
		e.Tokens.Expire(until)
		c.Send(`{"type":"ping","payload":{"authorization":"Bearer b"}}`)
		c.Want(fmt.Sprintf(`{"type":"pong","payload":{"expiresAt":%q}}`, until.UTC().Format(time.RFC3339)))
		e.Tokens.Set("a", "") // its session may end now
		time.Sleep(30 * time.Minute)
		source <- 1
		c.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":1}}}`)
		c.WantClose(4403, "The access token has expired.")
		if late := time.Since(until); late < 0 || late > time.Second {
			t.Errorf("the socket ended %v after its second token, want at once", late)
		}
	})
}

func TestSocket_refuses_a_token_of_another_user(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		e.Tokens.Set("b", "usr_2")
		c := e.Connect("a")
		c.Send(`{"type":"ping","payload":{"authorization":"b"}}`)
		c.WantClose(4403, "The new token belongs to another user.")
	})
}

func TestSocket_resolves_events_with_current_rights(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.Connect("")
		e.Tokens.Set("a", "usr_1")
		c.Subscribe("s", "subscription{ticks}")
		source := <-e.Sources
		source <- streamtest.CallerEvent
		c.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":"anonymous"}}}`)
		c.Send(`{"type":"ping","payload":{"authorization":"a"}}`) // an anonymous caller may authenticate later
		c.Want(`{"type":"pong","payload":{"expiresAt":null}}`)
		source <- streamtest.CallerEvent
		c.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":"usr_1"}}}`)
	})
}

func TestSocket_checks_its_credential_once_a_second(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{CheckTime: time.Second}}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		e.Connect("a")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := e.Tokens.Checks(); n < 59 || n > 62 {
			t.Errorf("a socket checked its credential %d times in a minute, want once a second", n)
		}
	})
}
