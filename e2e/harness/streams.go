package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// FollowEvents subscribes to all events that the caller may see.
const FollowEvents = `subscription($after: Cursor, $types: [EventType!]) { events(after: $after, types: $types) { cursor type subjectId data } }`

// Message is what a subscription brings: a response, with the cursor that its
// transport shows, how far the stream has come, as a cursor alone, or how it ended.
type Message struct {
	Cursor string
	Event  map[string]any // the event; nil if there is none
	Code   string         // of the first error
	End    string         // what the transport says at the end; then the rest is empty
}

// IsProgress reports whether the message is nothing but a cursor.
func (m Message) IsProgress() bool { return m.Cursor != "" && m.Event == nil && m.Code == "" }

// Subscription is a live subscription over some transport. An error of next means
// that the connection was lost.
type Subscription interface {
	Next() (Message, error)
}

// Transport is a way to listen that resumes as its clients do.
type Transport func(ctx context.Context, c Caller, query string, vars map[string]any) (Subscription, error)

// Transports are the ways to subscribe, by name.
var Transports = NewTransports(http.DefaultClient)

// NewTransports are the ways to listen whose connections the client opens.
func NewTransports(client *http.Client) map[string]Transport {
	return map[string]Transport{
		"event stream": func(ctx context.Context, c Caller, query string, vars map[string]any) (Subscription, error) {
			return subscribeBySSE(ctx, client, c, query, vars)
		},
		"socket": func(ctx context.Context, c Caller, query string, vars map[string]any) (Subscription, error) {
			return subscribeByWebSocket(ctx, client, c, query, vars)
		},
	}
}

// Subscribe opens a subscription over the transport.
func Subscribe(t *testing.T, transport string, c Caller, query string, vars map[string]any) Subscription {
	t.Helper()
	l, err := Transports[transport](t.Context(), c, query, vars)
	if err != nil {
		t.Fatalf("listen by %s: %v", transport, err)
	}
	return l
}

// payload is a GraphQL response.
type payload struct {
	Data       map[string]map[string]any `json:"data"`
	Errors     []struct{ Extensions map[string]any }
	Extensions struct{ Cursor string }
}

func (p payload) message() Message {
	m := Message{Cursor: p.Extensions.Cursor}
	for _, field := range p.Data {
		m.Event = field
	}
	if len(p.Errors) > 0 {
		m.Code = Text(p.Errors[0].Extensions, "code")
	}
	return m
}

// eventStream listens by server-sent events.
type eventStream struct{ lines *bufio.Reader }

// subscribeBySSE gives a cursor to go on from as a browser does.
func subscribeBySSE(ctx context.Context, client *http.Client, c Caller, query string, vars map[string]any) (Subscription, error) {
	after, _ := vars["after"].(string)
	body, err := json.Marshal(map[string]any{"query": query, "variables": vars})
	if err != nil {
		return nil, err
	}
	req, err := c.newRequest(ctx, http.MethodPost, "/graphql", bytes.NewReader(body), "Content-Type", "application/json", "Accept", "text/event-stream")
	if err != nil {
		return nil, err
	}
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return NewSSESubscription(resp.Body), nil
}

// Next implements listener.
func (s eventStream) Next() (Message, error) {
	var name, id, data string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return Message{}, err
		}
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case key == "event":
			name = value
		case key == "id":
			id = value
		case key == "data":
			data = value
		case line != "\n" && key == "" && value != "": // a comment for people
			return Message{End: value}, nil
		case line == "\n" && name == "complete":
			return Message{End: name}, nil
		case line == "\n" && name == "next":
			return s.message(id, data)
		case line == "\n" && id != "":
			return Message{Cursor: id}, nil
		}
	}
}

func (s eventStream) message(id, data string) (Message, error) {
	var p payload
	if err := json.Unmarshal([]byte(data), &p); err != nil {
		return Message{}, err
	}
	m := p.message()
	m.Cursor = id
	return m, nil
}

// webSocket listens by graphql-transport-ws.
type webSocket struct {
	ctx  context.Context //nolint:containedctx // it is the life of the socket
	conn *websocket.Conn
}

type frame struct {
	Type    string          `json:"type"`
	ID      string          `json:"id,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

func subscribeByWebSocket(ctx context.Context, client *http.Client, c Caller, query string, vars map[string]any) (Subscription, error) {
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(c.BaseURL, "http")+"/graphql", //nolint:bodyclose // the socket is the body
		&websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.CloseNow() })
	s := &webSocket{ctx, conn}
	hello := map[string]any{}
	if c.Token != "" {
		hello["authorization"] = "Bearer " + c.Token
	}
	if err := s.send("connection_init", hello); err != nil {
		return nil, err
	}
	if f, err := s.receive(); err != nil || f.Type != "connection_ack" {
		return nil, fmt.Errorf("instead of connection_ack: %v %w", f, err)
	}
	return s, s.send("subscribe", map[string]any{"query": query, "variables": vars})
}

func (s *webSocket) send(kind string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return wsjson.Write(s.ctx, s.conn, frame{kind, "1", text})
}

func (s *webSocket) receive() (f frame, err error) {
	return f, wsjson.Read(s.ctx, s.conn, &f)
}

// Next implements listener.
func (s *webSocket) Next() (Message, error) {
	for {
		f, err := s.receive()
		if end, ok := errors.AsType[websocket.CloseError](err); ok {
			return Message{End: fmt.Sprint(int(end.Code), " ", end.Reason)}, nil
		}
		if err != nil {
			return Message{}, err
		}
		switch f.Type {
		case "next":
			var p payload
			if err := json.Unmarshal(f.Payload, &p); err != nil {
				return Message{}, err
			}
			return p.message(), nil
		case "error":
			var p payload
			if err := json.Unmarshal(f.Payload, &p.Errors); err != nil {
				return Message{}, err
			}
			return p.message(), nil
		case "ping":
			var progress struct{ Cursor string }
			if err := json.Unmarshal(f.Payload, &progress); err == nil && progress.Cursor != "" {
				return Message{Cursor: progress.Cursor}, nil
			}
		case "complete":
			return Message{End: f.Type}, nil
		}
	}
}

// MustNext returns the next message that is more than a cursor, from a connection
// that must not be lost.
func MustNext(t *testing.T, l Subscription) Message {
	t.Helper()
	for {
		m, err := l.Next()
		if err != nil {
			t.Fatalf("the connection was lost: %v", err)
		}
		if !m.IsProgress() {
			return m
		}
	}
}

// NewSSESubscription reads a subscription from the body of an event stream.
func NewSSESubscription(body io.Reader) Subscription { return eventStream{bufio.NewReader(body)} }
