package websocket_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

const kaMessage = `{"type":"ka"}`

func TestSocket_follows_graphql_ws(t *testing.T) {
	t.Parallel()
	const begin = "> " + streamtest.InitMessage + "\n< " + streamtest.AckMessage + "\n< " + kaMessage + "\n"
	for _, tt := range []struct{ name, script string }{
		{"a query", begin + `> {"id":"1","type":"start","payload":{"query":"{hello}","variables":{},"operationName":null}}
< {"type":"data","id":"1","payload":{"data":{"hello":"hi anonymous"}}}
< {"type":"complete","id":"1"}`},
		{"a subscription", begin + `> {"id":"1","type":"start","payload":{"query":"subscription{tocks}"}}
< {"type":"data","id":"1","payload":{"data":{"tocks":1}}}
< {"type":"data","id":"1","payload":{"data":{"tocks":2}}}
< {"type":"complete","id":"1"}`},
		{"a wrong document is one error, without complete", begin + `> {"id":"1","type":"start","payload":{"query":"{nothing}"}}
~ {"type":"error","id":"1","payload":{"message":"Cannot query field
> {"id":"1","type":"start","payload":{"query":"{hello}"}}
< {"type":"data","id":"1","payload":{"data":{"hello":"hi anonymous"}}}
< {"type":"complete","id":"1"}`},
		{"an invalid token", `> {"type":"connection_init","payload":{"Authorization":"Bearer bad"}}
< {"type":"connection_error","payload":{"message":"No."}}
! 4403 No.`},
		{"a termination by the client", begin + "> {\"type\":\"connection_terminate\"}\n! 1000 "},
		{"an operation before the init", "> {\"id\":\"1\",\"type\":\"start\",\"payload\":{\"query\":\"{hello}\"}}\n! 4401 Unauthorized"},
		{"a message of the other subprotocol", begin + "> {\"type\":\"ping\"}\n! 4400 There is no message of this type for a server."},
		{"no init", "! 4408 Connection initialisation timeout"},
		{"two inits", begin + "> " + streamtest.InitMessage + "\n! 4429 Too many initialisation requests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) { e.DialWebSocket("graphql-ws", nil).Play(tt.script) })
		})
	}
}

func TestSocket_of_graphql_ws_sends_keep_alives(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.DialWebSocket("graphql-ws", nil)
		c.Play("> " + streamtest.InitMessage + "\n< " + streamtest.AckMessage + "\n< " + kaMessage)
		c.Send(`{"id":"s","type":"start","payload":{"query":"subscription{ticks}"}}`)
		first := <-e.Sources
		c.Send(`{"id":"s","type":"start","payload":{"query":"subscription{ticks}"}}`) // replaces the first
		second := <-e.Sources
		synctest.Wait()
		select {
		case first <- 1:
			t.Error("the source of a replaced operation is still read")
		default:
		}
		second <- 2
		c.Want(`{"type":"data","id":"s","payload":{"data":{"ticks":2}}}`)
		time.Sleep(20 * time.Second)
		c.Want(kaMessage)
		c.Send(`{"id":"s","type":"stop"}`)
		synctest.Wait()
		select {
		case second <- 3:
			t.Error("the source of a stopped operation is still read")
		default:
		}
		c.WantNothing()
	})
}
