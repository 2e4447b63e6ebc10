package connection_test

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
	"github.com/backplane-dev/backplane/internal/uid"
)

func TestServer_Recheck_checks_affected_credentials_at_once(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{CheckTime: time.Hour, KeepAlive: time.Hour, IdleTime: 24 * time.Hour}}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		e.Tokens.Set("b", "usr_2")
		sock, other := e.Connect("a"), e.Connect("b")
		for _, c := range []*streamtest.Client{sock, other} {
			c.Subscribe("s", "subscription{ticks}")
			<-e.Sources
		}
		body := bufio.NewReader(e.Request("GET", "/graphql?query=subscription{ticks}", map[string]string{"Accept": "text/event-stream", "Authorization": "Bearer a"}, "").Body)
		e.WantEvents(body, ":")
		<-e.Sources
		start := time.Now()
		e.Tokens.Set("a", "")
		e.Tokens.Set("b", "")
		sock.WantNothing()
		e.Server.Recheck(auth.Revocation{User: "usr_1"})
		sock.WantClose(4403, "The credential is no longer valid.")
		if block, err := streamtest.ReadEvent(body); err != nil || !strings.Contains(block, "UNAUTHENTICATED") {
			t.Errorf("the event stream says %q, %v, want that the credential has ended", block, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the streams ended after %v, want at once", took)
		}
		other.WantNothing()
	})
}

func TestServer_Recheck_works_during_an_upgrade(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		user uid.User // of the token from then on
		want string
	}{
		"and the credential is good":     {"usr_1", (streamtest.Frame{Op: streamtest.TextFrame, Data: []byte(streamtest.AckMessage)}).String()},
		"and the credential was revoked": {"", `close 4403 "The credential is no longer valid."`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{Streams: connection.Config{CheckTime: time.Hour}}, func(e *streamtest.Env) {
				e.Tokens.Set("a", "usr_1")
				hooked := *e
				hooked.Listener = streamtest.NewListener()
				srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					e.Server.Handler().ServeHTTP(hijackHook{rw, func() {
						e.Tokens.Set("a", tt.user)
						e.Server.Recheck(auth.Revocation{})
						time.Sleep(time.Second) // in which whatever that has begun comes to its end
					}}, r)
				})}
				go srv.Serve(hooked.Listener) //nolint:errcheck // it is closed below
				defer srv.Close()
				defer hooked.Listener.HangUp()
				c := hooked.DialWebSocket("graphql-transport-ws", map[string]string{"Authorization": "Bearer a"})
				synctest.Wait()
				c.Send(streamtest.InitMessage)
				if f := <-c.Frames; f.String() != tt.want {
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
