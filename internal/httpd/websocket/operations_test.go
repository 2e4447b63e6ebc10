package websocket_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

const fullMessage = `{"type":"error","id":"d","payload":[{"message":"This connection has 3 live operations, which is the most that one may have.","extensions":{"code":"LIMIT_REACHED"}}]}`

func TestSocket_counts_operations_until_they_finish(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{Operations: 3}}, func(e *streamtest.Env) {
		c := e.DialUnread() // with one operation
		<-e.Sources
		ask := func(id string) {
			c.Subscribe(id, "{hello}")
			synctest.Wait()
		}
		stop := func(id string) {
			c.Send(`{"id":"` + id + `","type":"complete"}`)
			synctest.Wait()
		}
		ask("a") // is being written, which cannot be undone
		stop("a")
		for range 100 {
			ask("b") // waits to be written
			stop("b")
		}
		ask("c")
		ask("d") // finds no permit as long as a holds one
		time.Sleep(2 * time.Second)
		got := map[string]bool{}
		for range 4 {
			f, err := streamtest.ReadFrame(c.Conn)
			if err != nil {
				t.Fatal(err)
			}
			got[string(f.Data)] = true
		}
		want := map[string]bool{
			`{"type":"next","id":"a","payload":{"data":{"hello":"hi anonymous"}}}`: true,
			`{"type":"next","id":"c","payload":{"data":{"hello":"hi anonymous"}}}`: true,
			`{"type":"complete","id":"c"}`:                                         true,
			fullMessage:                                                            true,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("messages of the server (-want +got):\n%s", diff)
		}
	})
}

func TestSocket_waits_for_permits_of_stopped_operations(t *testing.T) {
	t.Parallel()
	for _, subprotocol := range []string{"graphql-transport-ws", "graphql-ws"} {
		t.Run(subprotocol, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{Streams: connection.Config{Operations: 1}}, func(e *streamtest.Env) {
				c := e.DialWebSocket(subprotocol, nil)
				c.Send(streamtest.InitMessage)
				c.Want(streamtest.AckMessage)
				start, next := "subscribe", "next"
				if subprotocol == "graphql-ws" {
					start, next = "start", "data"
					c.Want(`{"type":"ka"}`)
				}
				ask := func(query string) {
					c.Send(`{"id":"a","type":"` + start + `","payload":{"query":"` + query + `"}}`)
				}
				ask("{many{fail}}")
				synctest.Wait()
				if start == "subscribe" {
					c.Send(`{"id":"a","type":"complete"}`)
				}
				begun := time.Now()
				ask("{hello}") // in the other subprotocol it replaces the first
				c.Want(strings.Replace(`{"type":"next","id":"a","payload":{"data":{"hello":"hi anonymous"}}}`, "next", next, 1))
				if took := time.Since(begun); took != streamtest.StopDelay {
					t.Errorf("the second operation began after %s, want %s", took, streamtest.StopDelay)
				}
			})
		})
	}
}
