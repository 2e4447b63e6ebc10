package websocket_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

// TestSocket_follows_graphql_transport_ws plays what a client sends (>) and what it must get (<), the
// last line being how the socket ends, if it does.
func TestSocket_follows_graphql_transport_ws(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, script string }{
		{"a query is one result", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"q","type":"subscribe","payload":{"query":"{hello}"}}
< {"type":"next","id":"q","payload":{"data":{"hello":"hi anonymous"}}}
< {"type":"complete","id":"q"}`},
		{"a mutation too", `
> {"type":"connection_init","payload":null}
< {"type":"connection_ack"}
> {"id":"m","type":"subscribe","payload":{"query":"mutation M{touch} query Q{hello}","operationName":"M","variables":null,"extensions":null}}
< {"type":"next","id":"m","payload":{"data":{"touch":"touched"}}}
< {"type":"complete","id":"m"}`},
		{"a subscription is a result per event, and its id is free afterwards", `
> {"type":"connection_init","payload":{}}
< {"type":"connection_ack"}
> {"id":"s","type":"subscribe","payload":{"query":"subscription{tocks}"}}
< {"type":"next","id":"s","payload":{"data":{"tocks":1}}}
< {"type":"next","id":"s","payload":{"data":{"tocks":2}}}
< {"type":"complete","id":"s"}
> {"id":"s","type":"subscribe","payload":{"query":"subscription($n:Int){ticks(upTo:$n)}","variables":{"n":3}}}
< {"type":"next","id":"s","payload":{"data":{"ticks":3}}}
< {"type":"complete","id":"s"}`},
		{"a wrong document is an error of its id alone, without complete", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"1","type":"subscribe","payload":{"query":"{"}}
~ {"type":"error","id":"1","payload":[{"message":
> {"id":"1","type":"subscribe","payload":{"query":"{nothing}"}}
~ "code":"GRAPHQL_VALIDATION_FAILED"
> {"id":"1","type":"subscribe","payload":{"query":"query($a:Int!){echo(number:$a)}"}}
~ {"type":"error","id":"1"
> {"id":"1","type":"subscribe","payload":{"query":"query A{hello} query B{hello}"}}
~ "code":"OPERATION_RESOLUTION_FAILURE"
> {"id":"2","type":"subscribe","payload":{"query":"{hello}"}}
< {"type":"next","id":"2","payload":{"data":{"hello":"hi anonymous"}}}
< {"type":"complete","id":"2"}`},
		{"an id of 4 KiB is served, and a longer one ends its operation alone", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"` + strings.Repeat("x", 4096) + `","type":"subscribe","payload":{"query":"{hello}"}}
< {"type":"next","id":"` + strings.Repeat("x", 4096) + `","payload":{"data":{"hello":"hi anonymous"}}}
< {"type":"complete","id":"` + strings.Repeat("x", 4096) + `"}
> {"id":"` + strings.Repeat("x", 4097) + `","type":"subscribe","payload":{"query":"{hello}"}}
< {"type":"error","id":"` + strings.Repeat("x", 4097) + `","payload":[{"message":"The id of an operation may have at most 4096 bytes.","extensions":{"code":"BAD_REQUEST"}}]}
> {"id":"` + strings.Repeat("x", 4097) + `","type":"complete"}
> {"id":"2","type":"subscribe","payload":{"query":"{hello}"}}
< {"type":"next","id":"2","payload":{"data":{"hello":"hi anonymous"}}}
< {"type":"complete","id":"2"}`},
		{"a resolver's panic is an error of its field", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"1","type":"subscribe","payload":{"query":"{panic}"}}
~ {"type":"next","id":"1","payload":{"errors":[{"message":"Something went wrong on our side."
< {"type":"complete","id":"1"}`},
		{"a ping is answered with its payload, before the init too", `
> {"type":"ping"}
< {"type":"pong"}
> {"type":"ping","payload":{"a":1.50}}
< {"type":"pong","payload":{"a":1.50}}
> {"type":"pong","payload":{"a":1}}
> {"type":"connection_init"}
< {"type":"connection_ack"}`},
		{"a persisted document needs no text", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"1","type":"subscribe","payload":{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"` + strings.Repeat("0", 64) + `"}}}}
~ "code":"PERSISTED_QUERY_NOT_FOUND"`},
		{"a complete for an unknown id is ignored", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"x","type":"complete"}
> {"type":"ping"}
< {"type":"pong"}`},
		{"4400 no JSON", "> x\n! 4400 The request is not valid JSON."},
		{"4400 nothing", "> \n! 4400 The request is not valid JSON."},
		{"4400 two values", "> {\"type\":\"ping\"}{}\n! 4400 The request has something behind its JSON value."},
		{"4400 a name twice", "> {\"type\":\"ping\",\"type\":\"pong\"}\n! 4400 The request's JSON has an object with the same name twice."},
		{"4400 an array", "> []\n! 4400 The message must be a JSON object."},
		{"4400 no type", "> {\"id\":\"1\"}\n! 4400 The message must have a type, which is text."},
		{"4400 an unknown type", "> {\"type\":\"start\"}\n! 4400 There is no message of this type for a server."},
		{"4400 a message of servers", "> {\"type\":\"connection_ack\"}\n! 4400 There is no message of this type for a server."},
		{"4400 a ping with text", "> {\"type\":\"ping\",\"payload\":\"x\"}\n! 4400 The payload of ping must be a JSON object."},
		{"4400 a pong with a list", "> {\"type\":\"pong\",\"payload\":[]}\n! 4400 The payload of pong must be a JSON object."},
		{"4400 an init with text", "> {\"type\":\"connection_init\",\"payload\":\"x\"}\n! 4400 The payload of connection_init must be a JSON object."},
		{"4400 an id that is no text", "> {\"type\":\"complete\",\"id\":1}\n! 4400 The id of a message must be text."},
		{"4400 a complete of nothing", "> {\"type\":\"complete\"}\n! 4400 A message of the type complete must have an id."},
		{"4400 an authorization that is no text", "> {\"type\":\"connection_init\",\"payload\":{\"authorization\":1}}\n! 4400 The authorization in a payload must be text."},
		{"4400 a subscribe without id", script(`{"type":"subscribe","payload":{"query":"{hello}"}}`, "4400 A message of the type subscribe must have an id and a payload, which is a JSON object.")},
		{"4400 a subscribe without payload", script(`{"id":"1","type":"subscribe"}`, "4400 A message of the type subscribe must have an id and a payload, which is a JSON object.")},
		{"4400 a subscribe without query", script(`{"id":"1","type":"subscribe","payload":{}}`, "4400 The payload of subscribe must have a query, which is text.")},
		{"4400 a query that is no text", script(`{"id":"1","type":"subscribe","payload":{"query":1}}`, "4400 The parameter query must be text.")},
		{"4400 variables that are no object", script(`{"id":"1","type":"subscribe","payload":{"query":"{hello}","variables":[]}}`, "4400 The parameter variables must be a JSON object.")},
		{"4400 extensions that are no object", script(`{"id":"1","type":"subscribe","payload":{"query":"{hello}","extensions":1}}`, "4400 The parameter extensions must be a JSON object.")},
		{"4400 an operation's name that is no text", script(`{"id":"1","type":"subscribe","payload":{"query":"{hello}","operationName":1}}`, "4400 The parameter operationName must be text.")},
		{"4401 an operation before the init", "> {\"id\":\"1\",\"type\":\"subscribe\",\"payload\":{\"query\":\"{hello}\"}}\n! 4401 Unauthorized"},
		{"4403 an invalid token", "> {\"type\":\"connection_init\",\"payload\":{\"authorization\":\"Bearer bad\"}}\n! 4403 No."},
		{"4403 a new invalid token", script(`{"type":"ping","payload":{"authorization":"bad"}}`, "4403 No.")},
		{"4408 no init", "! 4408 Connection initialisation timeout"},
		{"4408 pings are no init", "> {\"type\":\"ping\"}\n< {\"type\":\"pong\"}\n! 4408 Connection initialisation timeout"},
		{"4409 a live id", `
> {"type":"connection_init"}
< {"type":"connection_ack"}
> {"id":"q","type":"subscribe","payload":{"query":"{wait}"}}
> {"id":"q","type":"subscribe","payload":{"query":"{hello}"}}
! 4409 Subscriber for q already exists`},
		{"4429 two inits", script(streamtest.InitMessage, "4429 Too many initialisation requests")},
		{"4429 two inits, the first of which failed to be alone", "> " + streamtest.InitMessage + "\n< " + streamtest.AckMessage + "\n> {\"type\":\"connection_init\",\"payload\":1}\n! 4429 Too many initialisation requests"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) { e.DialWebSocket("graphql-transport-ws", nil).Play(tt.script) })
		})
	}
}

// script is that of a message after the init that ends the socket.
func script(message, ending string) string {
	return "> " + streamtest.InitMessage + "\n< " + streamtest.AckMessage + "\n> " + message + "\n! " + ending
}

func TestSocket_chooses_the_subprotocol(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		offered, chosen string
		code            int
	}{
		"an unknown one":    {"mqtt", "", 4406},
		"none":              {"", "", 4406},
		"the better of two": {"graphql-ws, graphql-transport-ws", "graphql-transport-ws", 0},
		"the legacy one":    {"graphql-ws", "graphql-ws", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
				c := e.DialWebSocket(tt.offered, nil)
				if got := c.Response.Header.Get("Sec-WebSocket-Protocol"); got != tt.chosen {
					t.Errorf("subprotocol = %q, want %q", got, tt.chosen)
				}
				if tt.code != 0 {
					c.WantClose(tt.code, "Subprotocol not acceptable")
				}
			})
		})
	}
}

func TestSocket_checks_the_origin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		origin, allowed string
		status          int
	}{
		{"", "", 101},
		{"https://api.example", "", 101},
		{"https://evil.example", "", 403},
		{"null", "", 403},
		{"https://api.example.evil.example", "", 403},
		{"https://shop.example", "https://shop.example", 101},
		{"http://shop.example", "https://shop.example", 403},
		{"https://any.example", "*", 101},
	} {
		t.Run(tt.origin+" where "+tt.allowed+" is allowed", func(t *testing.T) {
			t.Parallel()
			cfg := httpd.Config{}
			if tt.allowed != "" {
				cfg.AllowedOrigins = []string{tt.allowed}
			}
			streamtest.Run(t, cfg, func(e *streamtest.Env) {
				headers := map[string]string{"Cookie": "session=good"}
				if tt.origin != "" {
					headers["Origin"] = tt.origin
				}
				if got := e.DialWebSocket("graphql-transport-ws", headers).Response.StatusCode; got != tt.status {
					t.Errorf("status = %d, want %d", got, tt.status)
				}
			})
		})
	}
}

func TestSocket_checks_frames(t *testing.T) {
	t.Parallel()
	cfg := httpd.Config{Streams: connection.Config{MessageBytes: 1000}}
	ping := `{"type":"ping","payload":{"a":"` + strings.Repeat("x", 1000-len(`{"type":"ping","payload":{"a":""}}`)) + `"}}`
	for name, tt := range map[string]struct {
		send func(c *streamtest.Client)
		want string // a message, unless code is set
		code int
	}{
		"a message in fragments, with a ping between": {send: func(c *streamtest.Client) {
			c.SendFrame(0x01, []byte(`{"type":`))
			c.SendFrame(streamtest.PingFrame, []byte("p"))
			c.SendFrame(0x00, []byte(`"ping"`))
			c.SendFrame(0x80, []byte(`}`))
		}, want: `{"type":"pong"}`},
		"a character in two fragments": {send: func(c *streamtest.Client) {
			c.SendFrame(0x01, []byte("{\"type\":\"ping\",\"payload\":{\"a\":\"\xc3"))
			c.SendFrame(0x80, []byte("\xa4\"}}"))
		}, want: `{"type":"pong","payload":{"a":"ä"}}`},
		"the longest message":            {send: func(c *streamtest.Client) { c.Send(ping) }, want: strings.Replace(ping, "ping", "pong", 1)},
		"1009 a longer one":              {send: func(c *streamtest.Client) { c.Send(ping + " ") }, code: 1009},
		"1009 a longer one in fragments": {send: func(c *streamtest.Client) { c.SendFrame(0x01, []byte(ping)); c.SendFrame(0x80, []byte(" ")) }, code: 1009},
		"1007 no UTF-8": {send: func(c *streamtest.Client) {
			c.SendFrame(streamtest.TextFrame, []byte("{\"type\":\"ping\",\"payload\":{\"a\":\"\xff\"}}"))
		}, code: 1007},
		"1007 half a surrogate":          {send: func(c *streamtest.Client) { c.SendFrame(streamtest.TextFrame, []byte("\xed\xa0\x80")) }, code: 1007},
		"4400 a binary message":          {send: func(c *streamtest.Client) { c.SendFrame(streamtest.BinaryFrame, []byte(`{"type":"ping"}`)) }, code: 4400},
		"1002 a continuation of nothing": {send: func(c *streamtest.Client) { c.SendFrame(0x80, []byte("x")) }, code: 1002},
		"1002 a message within another": {send: func(c *streamtest.Client) {
			c.SendFrame(0x01, []byte("x"))
			c.SendFrame(streamtest.TextFrame, []byte("x"))
		}, code: 1002},
		"1002 an unknown opcode":            {send: func(c *streamtest.Client) { c.SendFrame(0x83, nil) }, code: 1002},
		"1002 a reserved bit":               {send: func(c *streamtest.Client) { c.SendFrame(0xc1, []byte("x")) }, code: 1002},
		"1002 a control frame in fragments": {send: func(c *streamtest.Client) { c.SendFrame(0x09, []byte("x")) }, code: 1002},
		"1002 a frame that is not masked":   {send: func(c *streamtest.Client) { _, _ = c.Conn.Write([]byte{streamtest.TextFrame, 1, 'x'}) }, code: 1002},
		"1008 a message that stops":         {send: func(c *streamtest.Client) { _, _ = c.Conn.Write([]byte{streamtest.TextFrame, 0x85, 0, 0, 0, 0, 'x'}) }, code: 1008},
		"1008 fragments that stop":          {send: func(c *streamtest.Client) { c.SendFrame(0x01, []byte("x")) }, code: 1008},
		"1000 a client that leaves":         {send: func(c *streamtest.Client) { c.SendFrame(streamtest.CloseFrame, []byte{3, 232}) }, code: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Run(t, cfg, func(e *streamtest.Env) {
				c := e.Connect("")
				tt.send(c)
				f := <-c.Frames
				for f.Op == streamtest.PongFrame {
					f = <-c.Frames
				}
				switch {
				case tt.code != 0 && (f.Op != streamtest.CloseFrame || !strings.HasPrefix(f.String(), "close "+strconv.Itoa(tt.code))):
					t.Errorf("the server sent %s, want close %d", f, tt.code)
				case tt.code == 0 && string(f.Data) != tt.want:
					t.Errorf("the server sent %s, want %s", f, tt.want)
				}
			})
		})
	}
}

func TestSocket_stops_operations_that_the_client_completes(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.Connect("")
		c.Subscribe("s", "subscription{ticks}")
		source := <-e.Sources
		source <- 1
		c.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":1}}}`)
		c.Send(`{"id":"s","type":"complete"}`)
		synctest.Wait()
		select {
		case source <- 2:
			t.Error("the source of a completed operation is still read")
		default:
		}
		c.WantNothing()
		c.Subscribe("s", "subscription{ticks}") // the id is free
		again := <-e.Sources
		again <- 3
		c.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":3}}}`)
		close(again)
		c.Want(`{"type":"complete","id":"s"}`)
		c.WantNothing()
	})
}

func TestSocket_caps_operations(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{Operations: 2}}, func(e *streamtest.Env) {
		c := e.Connect("")
		c.Subscribe("1", "subscription{ticks}")
		c.Subscribe("2", "subscription{ticks}")
		c.Subscribe("3", "subscription{ticks}")
		c.Want(`{"type":"error","id":"3","payload":[{"message":"This connection has 2 live operations, which is the most that one may have.","extensions":{"code":"LIMIT_REACHED"}}]}`)
		c.Send(`{"id":"1","type":"complete"}`)
		c.Subscribe("3", "{hello}")
		c.Want(`{"type":"next","id":"3","payload":{"data":{"hello":"hi anonymous"}}}`)
		c.Want(`{"type":"complete","id":"3"}`)
	})
}

func TestSocket_caps_connections(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{Connections: 3, PerPrincipal: 2}}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		bearer := map[string]string{"Authorization": "Bearer a"}
		one, two := e.DialWebSocket("graphql-transport-ws", bearer), e.Connect("a")
		if c := e.DialWebSocket("graphql-transport-ws", bearer); c.Response.StatusCode != http.StatusTooManyRequests {
			t.Errorf("a third socket of one user: status = %d, want 429", c.Response.StatusCode)
		}
		c := e.DialWebSocket("graphql-transport-ws", nil) // counts for its address until it authenticates
		if c := e.DialWebSocket("graphql-transport-ws", nil); c.Response.StatusCode != http.StatusServiceUnavailable || c.Response.Header.Get("Retry-After") != "1" {
			t.Errorf("a fourth socket: status = %d, Retry-After = %q, want 503 after 1 s", c.Response.StatusCode, c.Response.Header.Get("Retry-After"))
		}
		c.Send(`{"type":"connection_init","payload":{"authorization":"a"}}`)
		c.WantClose(1013, "You have 2 open connections, which is the most that one may have.")
		_, _ = one.Conn.Close(), two.Conn.Close()
		synctest.Wait()
		if c := e.DialWebSocket("graphql-transport-ws", bearer); c.Response.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("after others have gone: status = %d, want 101", c.Response.StatusCode)
		}
	})
}

func TestSocket_is_not_idle_while_its_last_operation_finishes(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{IdleTime: time.Minute}}, func(e *streamtest.Env) {
		c := e.DialUnread()
		source := <-e.Sources
		close(source)
		time.Sleep(3 * time.Minute) // in which the client does not take the last message
		read := func(want string) {
			t.Helper()
			if f, err := streamtest.ReadFrame(c.Conn); err != nil || f.String() != want {
				t.Fatalf("the server sent %s, %v, want %s", f, err, want)
			}
		}
		read((streamtest.Frame{Op: streamtest.TextFrame, Data: []byte(`{"type":"complete","id":"s"}`)}).String())
		for range 3 { // of which the first was waiting, too
			read((streamtest.Frame{Op: streamtest.PingFrame}).String())
			c.SendFrame(streamtest.PongFrame, nil)
		}
	})
}

func TestSocket_closes_when_idle(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{IdleTime: time.Minute}}, func(e *streamtest.Env) {
		c := e.Connect("")
		c.Subscribe("s", "subscription{ticks}")
		source := <-e.Sources
		time.Sleep(time.Hour) // an operation is live
		c.WantNothing()
		close(source)
		c.Want(`{"type":"complete","id":"s"}`)
		ended := time.Now()
		c.WantClose(1000, "Idle: no operation and no message.")
		if after := time.Since(ended); after < time.Minute || after > 2*time.Minute {
			t.Errorf("the socket ended %v after its last operation, want a minute", after)
		}
	})
}

func TestSocket_caps_subscriptions_of_a_principal_and_of_the_node(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{PrincipalSubscriptions: 2, Subscriptions: 3}}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		first, second, other := e.Connect(""), e.Connect(""), e.Connect("a")
		subscribe := func(c *streamtest.Client, id string) {
			c.Subscribe(id, "subscription{ticks}")
			<-e.Sources
		}
		subscribe(first, "1")
		subscribe(second, "1") // of the same principal, on another connection
		first.Subscribe("2", "subscription{ticks}")
		first.Want(`{"type":"error","id":"2","payload":[{"message":"You have 2 live subscriptions, which is the most that one may have.","extensions":{"code":"LIMIT_REACHED"}}]}`)
		subscribe(other, "1")
		other.Subscribe("2", "subscription{ticks}")
		other.Want(`{"type":"error","id":"2","payload":[{"message":"The server has as many live subscriptions as it takes; try again in a moment.","extensions":{"code":"SERVER_BUSY","retryAfter":1}}]}`)
		first.Send(`{"id":"1","type":"complete"}`)
		synctest.Wait()
		subscribe(other, "3")
	})
}
