package connection_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

func TestSocket_slowClientsSlowNobodyElse(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute}}, func(w *world) {
		quick := w.connect("")
		quick.subscribe("s", "subscription{ticks}")
		lively := <-w.opened
		slow := w.dialSilently()
		stuck := <-w.opened
		stuck <- strings.Repeat("x", 1<<20) // nobody reads it
		synctest.Wait()
		lively <- 1
		quick.want(`{"type":"next","id":"s","payload":{"data":{"ticks":1}}}`)
		select {
		case stuck <- 2:
			t.Error("more is taken from the source of a client that does not read")
		case <-time.After(59 * time.Second):
		}
		time.Sleep(10 * time.Second) // past the time that a write may take
		synctest.Wait()
		if _, err := slow.conn.Write([]byte("x")); err == nil {
			t.Error("a client that does not read keeps its socket")
		}
	})
}

func TestServer_givesBackSlotsOfClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(w *world){
		"a socket": func(w *world) {
			c := w.dialSilently()
			<-w.opened
			c.subscribe("a", "{hello}")
			c.subscribe("b", "{hello}")
		},
		"event streams": func(w *world) {
			for range 2 {
				resp := w.request("GET", "/graphql?query={hello}", asEvents, "")
				wantEvents(w.t, bufio.NewReader(resp.Body), ":")
			}
		},
		"a single connection": func(w *world) {
			token := w.reserve(nil)
			resp := w.request("GET", "/graphql?token="+token, asEvents, "")
			wantEvents(w.t, bufio.NewReader(resp.Body), ":")
			w.operate(token, "a", "{hello}")
			w.operate(token, "b", "{hello}")
		},
		"a single connection that is never opened": func(w *world) {
			token := w.reserve(nil)
			w.operate(token, "a", "{hello}")
			w.operate(token, "b", "{hello}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{Operations: 1}, func(w *world) {
				ask(w)
				synctest.Wait()
				begun := time.Now()
				resp := w.request("GET", "/graphql?query={hello}", nil, "")
				if took := time.Since(begun); resp.StatusCode != http.StatusOK || took > 0 {
					t.Errorf("others get %d after %s, want 200 at once", resp.StatusCode, took)
				}
			})
		})
	}
}

// dialSilently returns a client that has subscribed to ticks and then neither
// reads nor answers.
func (w *world) dialSilently() *client {
	w.t.Helper()
	conn, err := w.ln.dial()
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{w: w, conn: conn}
	_, _ = conn.Write([]byte("GET /graphql HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"))
	for head := []byte{}; !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		var b [1]byte
		if _, err := conn.Read(b[:]); err != nil {
			w.t.Fatal(err)
		}
		head = append(head, b[0])
	}
	c.send(initMessage)
	if f, err := readFrame(conn); err != nil || string(f.data) != ackMessage {
		w.t.Fatalf("the server sent %s, %v", f, err)
	}
	c.subscribe("s", "subscription{ticks}")
	return c
}

func TestSocket_dropsClientsThatAnswerNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		c := w.dialSilently()
		<-w.opened
		go func() {
			for { // reads, but does not answer pings
				if _, err := readFrame(c.conn); err != nil {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := c.conn.Write([]byte("x")); err == nil {
			t.Error("a client that answers no ping keeps its socket")
		}
	})
}

func TestSocket_keepsClientsThatReadSlowly(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		c := w.dialSilently()
		source := <-w.opened
		over := make(chan struct{})
		go func() {
			for {
				select {
				case source <- 1:
				case <-over:
					return
				}
			}
		}()
		defer close(over)
		for n := range 30 { // a message every 40 s, and an answer to what was asked minutes ago
			time.Sleep(40 * time.Second)
			f, err := readFrame(c.conn)
			if err != nil {
				t.Fatalf("message %d: %v", n, err)
			}
			if n%7 == 6 {
				c.frame(pongFrame, f.data)
			}
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if _, err := c.conn.Write([]byte("x")); err == nil {
			t.Error("a client that has stopped to read keeps its socket")
		}
	})
}

func TestServer_keepsClientsThatReadALongMessageSlowly(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(w *world) net.Conn{
		"a socket": func(w *world) net.Conn { return w.dialSilently().conn },
		"an event stream": func(w *world) net.Conn {
			return w.request("GET", "/graphql?query=subscription{ticks}", asEvents, "").Body.(hungUp).conn
		},
		"an event stream for an old client": func(w *world) net.Conn {
			conn, err := w.ln.dial()
			if err != nil {
				w.t.Fatal(err)
			}
			_, _ = conn.Write([]byte("GET /graphql?query=subscription{ticks} HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n"))
			return conn
		},
		"a single connection": func(w *world) net.Conn {
			token := w.reserve(nil)
			w.operate(token, "s", "subscription{ticks}")
			return w.request("GET", "/graphql?token="+token, asEvents, "").Body.(hungUp).conn
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute, KeepAlive: 20 * time.Second}}, func(w *world) {
				conn := open(w)
				go func() { (<-w.opened) <- strings.Repeat("x", 2<<20) }()
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

func TestSocket_answersTheLastPingOfAClientThatReadsSlowly(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		c := w.dialSilently()
		<-w.opened
		for n := range 5 {
			c.frame(pingFrame, []byte{byte('a' + n)})
		}
		time.Sleep(10 * time.Second)
		for _, want := range "ae" {
			f, err := readFrame(c.conn)
			if err != nil || f.op != pongFrame || string(f.data) != string(want) {
				t.Errorf("the server sent %v, %v, want an answer to the ping %c", f, err, want)
			}
		}
	})
}
