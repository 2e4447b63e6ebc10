package connection_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

const fullMessage = `{"type":"error","id":"d","payload":[{"message":"This connection has 3 live operations, which is the most that one may have.","extensions":{"code":"LIMIT_REACHED"}}]}`

func TestSocket_countsOperationsUntilTheyEnd(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{Operations: 3}}, func(w *world) {
		c := w.dialSilently() // with one operation
		<-w.opened
		ask := func(id string) {
			c.subscribe(id, "{hello}")
			synctest.Wait()
		}
		stop := func(id string) {
			c.send(`{"id":"` + id + `","type":"complete"}`)
			synctest.Wait()
		}
		ask("a") // is being written, and cannot be taken back
		stop("a")
		for range 100 {
			ask("b") // waits to be written
			stop("b")
		}
		ask("c")
		ask("d") // has no place as long as a has one
		time.Sleep(2 * time.Second)
		got := map[string]bool{}
		for range 4 {
			f, err := readFrame(c.conn)
			if err != nil {
				t.Fatal(err)
			}
			got[string(f.data)] = true
		}
		for _, want := range []string{
			`{"type":"next","id":"a","payload":{"data":{"hello":"hi stranger"}}}`,
			`{"type":"next","id":"c","payload":{"data":{"hello":"hi stranger"}}}`, `{"type":"complete","id":"c"}`, fullMessage,
		} {
			if !got[want] {
				t.Errorf("the server did not send %s, but %v", want, got)
			}
		}
	})
}

func TestReservation_countsOperationsUntilTheyEnd(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{Streams: connection.Config{Operations: 2}}, func(w *world) {
		token := w.reserve(nil)
		body := bufio.NewReader(w.request("GET", "/graphql?token="+token, asEvents, "").Body)
		wantEvents(w.t, body, ":")
		ask := func(id string, want int) {
			if got := w.operate(token, id, "{hello}"); got != want {
				t.Errorf("status of %s = %d, want %d", id, got, want)
			}
			synctest.Wait()
		}
		stop := func(id string) {
			w.request("DELETE", "/graphql?operationId="+id+"&token="+token, nil, "")
			synctest.Wait()
		}
		ask("a", http.StatusAccepted) // is being written, and cannot be taken back
		stop("a")
		for range 100 {
			ask("b", http.StatusAccepted) // waits to be written
			stop("b")
		}
		ask("c", http.StatusAccepted)
		ask("d", http.StatusTooManyRequests) // has no place as long as a has one
		hello := func(id string) string {
			return "event: next\ndata: {\"id\":\"" + id + "\",\"payload\":{\"data\":{\"hello\":\"hi stranger\"}}}"
		}
		wantEvents(w.t, body, hello("a"), hello("c"), "event: complete\ndata: {\"id\":\"c\"}")
		synctest.Wait()
		ask("e", http.StatusAccepted)
		wantEvents(w.t, body, hello("e"))
	})
}

func TestSocket_waitsForPlacesThatAreBecomingFree(t *testing.T) {
	t.Parallel()
	for _, subprotocol := range []string{"graphql-transport-ws", "graphql-ws"} {
		t.Run(subprotocol, func(t *testing.T) {
			t.Parallel()
			inWorld(t, httpd.Config{Streams: connection.Config{Operations: 1}}, func(w *world) {
				c := w.dial(subprotocol, nil)
				c.send(initMessage)
				c.want(ackMessage)
				start, next := "subscribe", "next"
				if subprotocol == "graphql-ws" {
					start, next = "start", "data"
					c.want(`{"type":"ka"}`)
				}
				ask := func(query string) {
					c.send(`{"id":"a","type":"` + start + `","payload":{"query":"` + query + `"}}`)
				}
				ask("{many{fail}}")
				synctest.Wait()
				if start == "subscribe" {
					c.send(`{"id":"a","type":"complete"}`)
				}
				begun := time.Now()
				ask("{hello}") // in the other subprotocol it replaces the first
				c.want(strings.Replace(`{"type":"next","id":"a","payload":{"data":{"hello":"hi stranger"}}}`, "next", next, 1))
				if took := time.Since(begun); took != stopping {
					t.Errorf("the second operation began after %s, want %s", took, stopping)
				}
			})
		})
	}
}
