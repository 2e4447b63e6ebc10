package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

const followEvents = `subscription($after: Cursor, $types: [EventType!]) { events(after: $after, types: $types) { cursor type subjectId data } }`

// message is what a subscription brings: a response, with the cursor that its
// transport shows, how far the stream has come, as a cursor alone, or how it ended.
type message struct {
	cursor string
	field  map[string]any // the event; nil if there is none
	code   string         // of the first error
	end    string         // what the transport says at the end; then the rest is empty
}

// isProgress reports whether the message is nothing but a cursor.
func (m message) isProgress() bool { return m.cursor != "" && m.field == nil && m.code == "" }

// listener is a live subscription over some transport. An error of next means
// that the connection was lost.
type listener interface {
	next() (message, error)
}

// transport is a way to listen that resumes as its clients do.
type transport func(ctx context.Context, c caller, query string, vars map[string]any) (listener, error)

var transports = transportsOver(http.DefaultClient)

// transportsOver are the ways to listen whose connections the client opens.
func transportsOver(client *http.Client) map[string]transport {
	return map[string]transport{
		"event stream": func(ctx context.Context, c caller, query string, vars map[string]any) (listener, error) {
			return listenByEvents(ctx, client, c, query, vars)
		},
		"socket": func(ctx context.Context, c caller, query string, vars map[string]any) (listener, error) {
			return listenBySocket(ctx, client, c, query, vars)
		},
	}
}

func listen(t *testing.T, transport string, c caller, query string, vars map[string]any) listener {
	t.Helper()
	l, err := transports[transport](t.Context(), c, query, vars)
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

func (p payload) message() message {
	m := message{cursor: p.Extensions.Cursor}
	for _, field := range p.Data {
		m.field = field
	}
	if len(p.Errors) > 0 {
		m.code = text(p.Errors[0].Extensions, "code")
	}
	return m
}

// eventStream listens by server-sent events.
type eventStream struct{ lines *bufio.Reader }

// listenByEvents gives a cursor to go on from as a browser does.
func listenByEvents(ctx context.Context, client *http.Client, c caller, query string, vars map[string]any) (listener, error) {
	after, _ := vars["after"].(string)
	body, err := json.Marshal(map[string]any{"query": query, "variables": vars})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/graphql", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
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
	return eventStream{bufio.NewReader(resp.Body)}, nil
}

// next implements listener.
func (s eventStream) next() (message, error) {
	var name, id, data string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return message{}, err
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
			return message{end: value}, nil
		case line == "\n" && name == "complete":
			return message{end: name}, nil
		case line == "\n" && name == "next":
			return s.message(id, data)
		case line == "\n" && id != "":
			return message{cursor: id}, nil
		}
	}
}

func (s eventStream) message(id, data string) (message, error) {
	var p payload
	if err := json.Unmarshal([]byte(data), &p); err != nil {
		return message{}, err
	}
	m := p.message()
	m.cursor = id
	return m, nil
}

// socket listens by graphql-transport-ws.
type socket struct {
	ctx  context.Context //nolint:containedctx // it is the life of the socket
	conn *websocket.Conn
}

type frame struct {
	Type    string          `json:"type"`
	ID      string          `json:"id,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

func listenBySocket(ctx context.Context, client *http.Client, c caller, query string, vars map[string]any) (listener, error) {
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(c.base, "http")+"/graphql", //nolint:bodyclose // the socket is the body
		&websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.CloseNow() })
	s := &socket{ctx, conn}
	hello := map[string]any{}
	if c.token != "" {
		hello["authorization"] = "Bearer " + c.token
	}
	if err := s.send("connection_init", hello); err != nil {
		return nil, err
	}
	if f, err := s.receive(); err != nil || f.Type != "connection_ack" {
		return nil, fmt.Errorf("instead of connection_ack: %v %w", f, err)
	}
	return s, s.send("subscribe", map[string]any{"query": query, "variables": vars})
}

func (s *socket) send(kind string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return wsjson.Write(s.ctx, s.conn, frame{kind, "1", text})
}

func (s *socket) receive() (f frame, err error) {
	return f, wsjson.Read(s.ctx, s.conn, &f)
}

// next implements listener.
func (s *socket) next() (message, error) {
	for {
		f, err := s.receive()
		if end, ok := errors.AsType[websocket.CloseError](err); ok {
			return message{end: fmt.Sprint(int(end.Code), " ", end.Reason)}, nil
		}
		if err != nil {
			return message{}, err
		}
		switch f.Type {
		case "next":
			var p payload
			if err := json.Unmarshal(f.Payload, &p); err != nil {
				return message{}, err
			}
			return p.message(), nil
		case "error":
			var p payload
			if err := json.Unmarshal(f.Payload, &p.Errors); err != nil {
				return message{}, err
			}
			return p.message(), nil
		case "ping":
			var progress struct{ Cursor string }
			if err := json.Unmarshal(f.Payload, &progress); err == nil && progress.Cursor != "" {
				return message{cursor: progress.Cursor}, nil
			}
		case "complete":
			return message{end: f.Type}, nil
		}
	}
}

// mustNext returns the next message that is more than a cursor, from a connection
// that must not be lost.
func mustNext(t *testing.T, l listener) message {
	t.Helper()
	for {
		m, err := l.next()
		if err != nil {
			t.Fatalf("the connection was lost: %v", err)
		}
		if !m.isProgress() {
			return m
		}
	}
}
