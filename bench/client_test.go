package bench_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A listener is the cheapest client that there can be: it counts messages and
// reads little of them, so that what is measured is the server.
type listener struct {
	conn net.Conn
	in   *bufio.Reader
	next func(in *bufio.Reader) (message []byte, err error)
	last []byte
}

func dial(b *testing.B, addr, head string) *listener {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		b.Fatal(err)
	}
	l := &listener{conn: conn, in: bufio.NewReaderSize(conn, 2048)}
	for line := "-"; line != "\r\n"; {
		if line, err = l.in.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
		if strings.HasPrefix(line, "HTTP/1.1") && !strings.Contains(line, " 101 ") && !strings.Contains(line, " 200 ") {
			b.Fatalf("%s answered %s", addr, line)
		}
	}
	return l
}

// bySocket opens a socket; with a token it subscribes as well.
func bySocket(b *testing.B, addr, token, query string) *listener {
	b.Helper()
	l := dial(b, addr, "GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n")
	l.next = func(in *bufio.Reader) ([]byte, error) { return nextFrame(l.conn, in) }
	if token == "" {
		return l
	}
	l.say(b, map[string]any{"type": "connection_init", "payload": map[string]any{"authorization": token}})
	if text, err := nextFrame(l.conn, l.in); err != nil || !bytes.Contains(text, []byte("connection_ack")) {
		b.Fatalf("the server said %s, %v", text, err)
	}
	l.say(b, map[string]any{"type": "subscribe", "id": "1", "payload": map[string]any{"query": query}})
	return l
}

// say sends a message, masked with zeros.
func (l *listener) say(b *testing.B, message any) {
	b.Helper()
	text, err := json.Marshal(message)
	if err != nil {
		b.Fatal(err)
	}
	head := binary.BigEndian.AppendUint16([]byte{0x81, 0x80 | 126}, uint16(len(text)))
	if _, err := l.conn.Write(append(append(head, 0, 0, 0, 0), text...)); err != nil {
		b.Fatal(err)
	}
}

// nextFrame returns the next text message, which is valid until the next call. It
// answers pings, since the server closes connections that do not.
func nextFrame(conn net.Conn, in *bufio.Reader) ([]byte, error) {
	for {
		head, err := in.Peek(2)
		if err != nil {
			return nil, err
		}
		kind, n, skip := head[0], int(head[1]), 2
		if n == 126 {
			if head, err = in.Peek(4); err != nil {
				return nil, err
			}
			n, skip = int(binary.BigEndian.Uint16(head[2:])), 4
		}
		if _, err := in.Discard(skip); err != nil {
			return nil, err
		}
		text, err := in.Peek(n) // ours fit the buffer
		if err != nil {
			return nil, err
		}
		_, _ = in.Discard(n) // it is there
		if kind == 0x89 {
			if _, err := conn.Write(append([]byte{0x8a, 0x80 | byte(n), 0, 0, 0, 0}, text...)); err != nil {
				return nil, err
			}
		}
		if kind == 0x81 && !bytes.HasPrefix(text, []byte(`{"type":"ping"`)) {
			return text, nil
		}
	}
}

// byEvents opens an event stream.
func byEvents(b *testing.B, addr, token, query string) *listener {
	b.Helper()
	l := dial(b, addr, "GET /graphql?query="+url.QueryEscape(query)+" HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	l.next = func(in *bufio.Reader) ([]byte, error) {
		for {
			line, err := in.ReadSlice('\n')
			if err != nil || bytes.HasPrefix(line, []byte("data: {")) {
				return line, err
			}
		}
	}
	return l
}

// message returns the last message received. The caller sees to it that
// none is on its way.
func (l *listener) message() string { return string(l.last) }

// sentAt returns when the message was sent, as it says; zero if it does not.
func sentAt(message []byte) time.Time {
	const before = `"occurredAt":"`
	_, rest, _ := bytes.Cut(message, []byte(before))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	at, _ := time.Parse(time.RFC3339Nano, string(text))
	return at
}

func awaitReady(b *testing.B, addr string) {
	b.Helper()
	for range 500 {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Fatalf("%s does not answer", addr)
}

// memory returns the bytes that a process has in memory.
func memory(b *testing.B, pid int) int {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("there is no /proc")
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}
