package connection_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing/synctest"
)

// client is a client of a socket that sends frames as it likes. Frames from the
// server wait for the test in a queue.
type client struct {
	w     *world
	conn  net.Conn
	resp  *http.Response
	queue chan frame
}

type frame struct {
	op   byte // and 0x80 for the last one of a message
	data []byte
}

// The opcodes of frames, each as the last of its message.
const (
	textFrame   = 0x81
	binaryFrame = 0x82
	closeFrame  = 0x88
	pingFrame   = 0x89
	pongFrame   = 0x8a
)

// dial asks for a socket. The client may be one that was refused: see its resp.
func (w *world) dial(subprotocol string, headers map[string]string) *client {
	w.t.Helper()
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	all := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": base64.StdEncoding.EncodeToString(key)}
	if subprotocol != "" {
		all["Sec-WebSocket-Protocol"] = subprotocol
	}
	maps.Copy(all, headers)
	resp := w.request(http.MethodGet, "/graphql", all, "")
	c := &client{w: w, resp: resp, conn: resp.Body.(hungUp).conn, queue: make(chan frame, 1000)}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		go c.pump()
	}
	return c
}

// connect opens a socket with graphql-transport-ws and has it acknowledged.
func (w *world) connect(token string) *client {
	w.t.Helper()
	c := w.dial("graphql-transport-ws", nil)
	payload := "{}"
	if token != "" {
		payload = fmt.Sprintf(`{"authorization":"Bearer %s"}`, token)
	}
	c.send(`{"type":"connection_init","payload":` + payload + `}`)
	c.want(`{"type":"connection_ack"}`)
	return c
}

// pump reads frames, and answers pings and the closing one as a browser does.
func (c *client) pump() {
	defer close(c.queue)
	for {
		f, err := readFrame(c.conn)
		if err != nil {
			return
		}
		if f.op == pingFrame {
			go c.frame(pongFrame, f.data)
			continue
		}
		c.queue <- f
		if f.op == closeFrame {
			c.frame(closeFrame, f.data)
			_ = c.conn.Close()
			return
		}
	}
}

func readFrame(r io.Reader) (f frame, err error) {
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
	f = frame{head[0], make([]byte, size)}
	_, err = io.ReadFull(r, f.data)
	return f, err
}

// frame sends one frame, masked with zeros. A server that is gone is no error.
func (c *client) frame(op byte, data []byte) {
	var out []byte
	switch n := len(data); {
	case n < 126:
		out = []byte{op, 0x80 | byte(n)}
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16([]byte{op, 0x80 | 126}, uint16(n))
	default:
		out = binary.BigEndian.AppendUint64([]byte{op, 0x80 | 127}, uint64(n))
	}
	_, _ = c.conn.Write(append(append(out, 0, 0, 0, 0), data...))
}

func (c *client) send(text string) { c.frame(textFrame, []byte(text)) }

func (c *client) subscribe(id, query string) {
	c.send(fmt.Sprintf(`{"id":%q,"type":"subscribe","payload":{"query":%q}}`, id, query))
}

// want expects a message.
func (c *client) want(text string) {
	c.w.t.Helper()
	f, ok := <-c.queue
	if !ok || f.op != textFrame || string(f.data) != text {
		c.w.t.Fatalf("the server sent %s, want %s", f, text)
	}
}

// wantPart expects a message with a part.
func (c *client) wantPart(part string) {
	c.w.t.Helper()
	f, ok := <-c.queue
	if !ok || f.op != textFrame || !strings.Contains(string(f.data), part) {
		c.w.t.Fatalf("the server sent %s, want something with %s", f, part)
	}
}

// wantClose expects the end of the socket.
func (c *client) wantClose(code int, reason string) {
	c.w.t.Helper()
	f, ok := <-c.queue
	if want := (frame{closeFrame, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)}); !ok || f.String() != want.String() {
		c.w.t.Fatalf("the server sent %s, want %s", f, want)
	}
}

// wantNothing expects that the server has nothing to say for now.
func (c *client) wantNothing() {
	c.w.t.Helper()
	synctest.Wait()
	select {
	case f := <-c.queue:
		c.w.t.Fatalf("the server sent %s, want nothing", f)
	default:
	}
}

func (f frame) String() string {
	if f.op == closeFrame && len(f.data) >= 2 {
		return fmt.Sprintf("close %d %q", binary.BigEndian.Uint16(f.data), f.data[2:])
	}
	return fmt.Sprintf("frame %x %s", f.op, f.data)
}
