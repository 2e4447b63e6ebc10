package websocket_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestSocket_slow_clients_do_not_delay_others(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{StallTime: time.Minute}}, func(e *streamtest.Env) {
		quick := e.Connect("")
		quick.Subscribe("s", "subscription{ticks}")
		lively := <-e.Sources
		slow := e.DialUnread()
		stuck := <-e.Sources
		stuck <- strings.Repeat("x", 1<<20) // the client does not read it
		synctest.Wait()
		lively <- 1
		quick.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":1}}}`)
		select {
		case stuck <- 2:
			t.Error("more is taken from the source of a client that does not read")
		case <-time.After(59 * time.Second):
		}
		time.Sleep(10 * time.Second) // past the time that a write may take
		synctest.Wait()
		if _, err := slow.Conn.Write([]byte("x")); err == nil {
			t.Error("a client that does not read keeps its socket")
		}
	})
}

func TestSocket_cuts_clients_that_answer_no_ping(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.DialUnread()
		<-e.Sources
		go func() {
			for { // reads, but does not answer pings
				if _, err := streamtest.ReadFrame(c.Conn); err != nil {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := c.Conn.Write([]byte("x")); err == nil {
			t.Error("a client that answers no ping keeps its socket")
		}
	})
}

func TestSocket_keeps_slow_clients(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.DialUnread()
		source := <-e.Sources
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
		for n := range 30 { // a message every 40 s, and a pong to a ping of minutes ago
			time.Sleep(40 * time.Second)
			f, err := streamtest.ReadFrame(c.Conn)
			if err != nil {
				t.Fatalf("message %d: %v", n, err)
			}
			if n%7 == 6 {
				c.SendFrame(streamtest.PongFrame, f.Data)
			}
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if _, err := c.Conn.Write([]byte("x")); err == nil {
			t.Error("a client that has stopped to read keeps its socket")
		}
	})
}

func TestSocket_answers_the_last_ping_of_a_slow_client(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.DialUnread()
		<-e.Sources
		for n := range 5 {
			c.SendFrame(streamtest.PingFrame, []byte{byte('a' + n)})
			synctest.Wait() // the pong to the first ping is being written before the next ping comes
		}
		time.Sleep(10 * time.Second)
		for _, want := range "ae" {
			f, err := streamtest.ReadFrame(c.Conn)
			if err != nil || f.Op != streamtest.PongFrame || string(f.Data) != string(want) {
				t.Errorf("the server sent %v, %v, want an answer to the ping %c", f, err, want)
			}
		}
	})
}
