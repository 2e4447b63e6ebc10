package streamtest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing/synctest"
)

// The messages that begin a socket.
const (
	InitMessage = `{"type":"connection_init"}`
	AckMessage  = `{"type":"connection_ack"}`
)

// Client is a WebSocket client that sends frames as it likes. Frames of the server wait for
// the test in a queue.
type Client struct {
	Conn     net.Conn
	Response *http.Response // to the upgrade; nil if the client was made without Dial
	Frames   chan Frame

	env *Env
}

// Frame is a WebSocket frame.
type Frame struct {
	Op   byte // and 0x80 for the last one of a message
	Data []byte
}

// The opcodes of frames, each as the last of its message.
const (
	TextFrame   = 0x81
	BinaryFrame = 0x82
	CloseFrame  = 0x88
	PingFrame   = 0x89
	PongFrame   = 0x8a
)

// DialWebSocket asks for a socket. The client may be one that was refused: see its Response.
func (e *Env) DialWebSocket(subprotocol string, headers map[string]string) *Client {
	e.T.Helper()
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	all := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": base64.StdEncoding.EncodeToString(key)}
	if subprotocol != "" {
		all["Sec-WebSocket-Protocol"] = subprotocol
	}
	maps.Copy(all, headers)
	resp := e.Request(http.MethodGet, "/graphql", all, "")
	c := &Client{env: e, Response: resp, Conn: resp.Body.(Body).Conn, Frames: make(chan Frame, 1000)}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		go c.readFrames()
	}
	return c
}

// Connect opens a socket with graphql-transport-ws and has it acknowledged.
func (e *Env) Connect(token string) *Client {
	e.T.Helper()
	c := e.DialWebSocket("graphql-transport-ws", nil)
	payload := "{}"
	if token != "" {
		payload = fmt.Sprintf(`{"authorization":"Bearer %s"}`, token)
	}
	c.Send(`{"type":"connection_init","payload":` + payload + `}`)
	c.Want(AckMessage)
	return c
}

// DialUnread returns a client that has subscribed to ticks and then neither reads nor answers.
func (e *Env) DialUnread() *Client {
	e.T.Helper()
	conn, err := e.Listener.Dial()
	if err != nil {
		e.T.Fatal(err)
	}
	c := &Client{env: e, Conn: conn}
	_, _ = conn.Write([]byte("GET /graphql HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"))
	for head := []byte{}; !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		var b [1]byte
		if _, err := conn.Read(b[:]); err != nil {
			e.T.Fatal(err)
		}
		head = append(head, b[0])
	}
	c.Send(InitMessage)
	if f, err := ReadFrame(conn); err != nil || string(f.Data) != AckMessage {
		e.T.Fatalf("the server sent %s, %v", f, err)
	}
	c.Subscribe("s", "subscription{ticks}")
	return c
}

// readFrames reads frames, and answers pings and the closing one as a browser does.
func (c *Client) readFrames() {
	defer close(c.Frames)
	for {
		f, err := ReadFrame(c.Conn)
		if err != nil {
			return
		}
		if f.Op == PingFrame {
			go c.SendFrame(PongFrame, f.Data)
			continue
		}
		c.Frames <- f
		if f.Op == CloseFrame {
			c.SendFrame(CloseFrame, f.Data)
			_ = c.Conn.Close()
			return
		}
	}
}

// ReadFrame reads one frame of a server.
func ReadFrame(r io.Reader) (f Frame, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var long [2]byte
		_, err = io.ReadFull(r, long[:])
		size = uint64(binary.BigEndian.Uint16(long[:]))
	case 127:
		var long [8]byte
		_, err = io.ReadFull(r, long[:])
		size = binary.BigEndian.Uint64(long[:])
	}
	if err != nil {
		return f, err
	}
	f = Frame{head[0], make([]byte, size)}
	_, err = io.ReadFull(r, f.Data)
	return f, err
}

// SendFrame sends one frame, masked with zeros. A closed connection is no error.
func (c *Client) SendFrame(op byte, data []byte) {
	var out []byte
	switch n := len(data); {
	case n < 126:
		out = []byte{op, 0x80 | byte(n)}
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16([]byte{op, 0x80 | 126}, uint16(n))
	default:
		out = binary.BigEndian.AppendUint64([]byte{op, 0x80 | 127}, uint64(n))
	}
	_, _ = c.Conn.Write(append(append(out, 0, 0, 0, 0), data...))
}

// Send sends a text message.
func (c *Client) Send(text string) { c.SendFrame(TextFrame, []byte(text)) }

// Subscribe sends a subscribe message.
func (c *Client) Subscribe(id, query string) {
	c.Send(fmt.Sprintf(`{"id":%q,"type":"subscribe","payload":{"query":%q}}`, id, query))
}

// Want expects a message.
func (c *Client) Want(text string) {
	c.env.T.Helper()
	f, ok := <-c.Frames
	if !ok || f.Op != TextFrame || string(f.Data) != text {
		c.env.T.Fatalf("the server sent %s, want %s", f, text)
	}
}

// WantContaining expects a message with a part.
func (c *Client) WantContaining(part string) {
	c.env.T.Helper()
	f, ok := <-c.Frames
	if !ok || f.Op != TextFrame || !strings.Contains(string(f.Data), part) {
		c.env.T.Fatalf("the server sent %s, want something with %s", f, part)
	}
}

// WantClose expects the close frame of the socket.
func (c *Client) WantClose(code int, reason string) {
	c.env.T.Helper()
	f, ok := <-c.Frames
	if want := (Frame{CloseFrame, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)}); !ok || f.String() != want.String() {
		c.env.T.Fatalf("the server sent %s, want %s", f, want)
	}
}

// WantNothing expects that the server sends nothing for now.
func (c *Client) WantNothing() {
	c.env.T.Helper()
	synctest.Wait()
	select {
	case f := <-c.Frames:
		c.env.T.Fatalf("the server sent %s, want nothing", f)
	default:
	}
}

// Play plays a script: what the client sends (>), what it must get (<), a part of what it must
// get (~), and the close code and reason of the socket (!), if it closes.
func (c *Client) Play(script string) {
	c.env.T.Helper()
	for line := range strings.SplitSeq(strings.TrimPrefix(script, "\n"), "\n") {
		switch what, text := line[0], line[2:]; what {
		case '>':
			c.Send(text)
		case '<':
			c.Want(text)
		case '~':
			c.WantContaining(text)
		case '!':
			number, reason, _ := strings.Cut(text, " ")
			code, _ := strconv.Atoi(number)
			c.WantClose(code, reason)
		}
	}
	if !strings.Contains(script, "\n! ") && script[0] != '!' {
		c.WantNothing()
	}
}

// String returns the frame as failures print it.
func (f Frame) String() string {
	if f.Op == CloseFrame && len(f.Data) >= 2 {
		return fmt.Sprintf("close %d %q", binary.BigEndian.Uint16(f.Data), f.Data[2:])
	}
	return fmt.Sprintf("frame %x %s", f.Op, f.Data)
}
