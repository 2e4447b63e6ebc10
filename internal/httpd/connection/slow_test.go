package connection_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestServer_releases_slots_of_clients_that_do_not_read(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(e *streamtest.Env){
		"a socket": func(e *streamtest.Env) {
			c := e.DialUnread()
			<-e.Sources
			c.Subscribe("a", "{hello}")
			c.Subscribe("b", "{hello}")
		},
		"event streams": func(e *streamtest.Env) {
			for range 2 {
				resp := e.Request("GET", "/graphql?query={hello}", streamtest.AcceptEvents, "")
				e.WantEvents(bufio.NewReader(resp.Body), ":")
			}
		},
		"a single connection": func(e *streamtest.Env) {
			token := e.Reserve(nil)
			resp := e.Request("GET", "/graphql?token="+token, streamtest.AcceptEvents, "")
			e.WantEvents(bufio.NewReader(resp.Body), ":")
			e.StartOperation(token, "a", "{hello}")
			e.StartOperation(token, "b", "{hello}")
		},
		"a single connection that is never opened": func(e *streamtest.Env) {
			token := e.Reserve(nil)
			e.StartOperation(token, "a", "{hello}")
			e.StartOperation(token, "b", "{hello}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{Operations: 1}, func(e *streamtest.Env) {
				ask(e)
				synctest.Wait()
				begun := time.Now()
				resp := e.Request("GET", "/graphql?query={hello}", nil, "")
				if took := time.Since(begun); resp.StatusCode != http.StatusOK || took > 0 {
					t.Errorf("others get %d after %s, want 200 at once", resp.StatusCode, took)
				}
			})
		})
	}
}

func TestServer_keeps_clients_that_read_a_long_message_slowly(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(e *streamtest.Env) net.Conn{
		"a socket": func(e *streamtest.Env) net.Conn { return e.DialUnread().Conn },
		"an event stream": func(e *streamtest.Env) net.Conn {
			return e.Request("GET", "/graphql?query=subscription{ticks}", streamtest.AcceptEvents, "").Body.(streamtest.Body).Conn
		},
		"an event stream for an old client": func(e *streamtest.Env) net.Conn {
			conn, err := e.Listener.Dial()
			if err != nil {
				e.T.Fatal(err)
			}
			_, _ = conn.Write([]byte("GET /graphql?query=subscription{ticks} HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n"))
			return conn
		},
		"a single connection": func(e *streamtest.Env) net.Conn {
			token := e.Reserve(nil)
			e.StartOperation(token, "s", "subscription{ticks}")
			return e.Request("GET", "/graphql?token="+token, streamtest.AcceptEvents, "").Body.(streamtest.Body).Conn
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute, KeepAlive: 20 * time.Second}}, func(e *streamtest.Env) {
				conn := open(e)
				go func() { (<-e.Sources) <- strings.Repeat("x", 2<<20) }()
				var some [32 << 10]byte // in 10 s: the message takes ten times as long as a client may take nothing
				for got := 0; got < 2<<20; {
					n, err := io.ReadFull(conn, some[:])
					if got += n; err != nil {
						t.Fatalf("after %d bytes: %v", got, err)
					}
					time.Sleep(10 * time.Second)
				}
			})
		})
	}
}
