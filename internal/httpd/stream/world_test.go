package stream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backplane/internal/auth"
	"backplane/internal/fault"
	"backplane/internal/httpd"
	"backplane/internal/httpd/stream"
	"backplane/internal/operation"
	"backplane/internal/operation/operationtest"
	"backplane/internal/uid"
)

// world is a server on connections without a network, in a bubble of its own
// time. The bubble ends only once every goroutine has, so each test proves that
// none is left.
type world struct {
	t      *testing.T
	ln     *pipes
	tokens *tokens
	opened chan chan any // the source of each subscription to ticks
	log    *buffer
	stop   context.CancelFunc
	ended  chan error // of the server
}

// inWorld runs the test against a server of the configuration.
func inWorld(t *testing.T, cfg httpd.Config, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, ln: newPipes(), tokens: &tokens{users: map[string]uid.User{}}, opened: make(chan chan any, 100), log: &buffer{}, ended: make(chan error, 1)}
		log := slog.New(slog.NewTextHandler(w.log, nil))
		x, err := operation.New(w.schema(), operation.Config{}, log)
		if err != nil {
			t.Fatal(err)
		}
		s, err := httpd.New(cfg, x, httpd.Deps{Auth: w.tokens, Tickets: w.tokens}, log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		w.stop = stop
		go func() { w.ended <- s.Run(ctx, w.ln) }()
		defer func() {
			w.ln.hangUp()
			stop()
			if err := <-w.ended; err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		}()
		test(w)
	})
}

func (w *world) schema() *operationtest.Schema {
	return operationtest.New(operationtest.Object{
		"hello": operationtest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { return "hi " + callerOf(ctx), nil }),
		"panic": operationtest.Resolver(func(context.Context, map[string]any) (any, error) { panic("secret") }),
		"wait": operationtest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}),
	}, operationtest.Object{
		"touch": operationtest.Resolver(func(context.Context, map[string]any) (any, error) { return "touched", nil }),
	}, operationtest.Object{
		"tocks": []any{1, 2},
		"ticks": operationtest.Resolver(func(_ context.Context, args map[string]any) (any, error) {
			if args["upTo"] != nil {
				return []any{args["upTo"]}, nil
			}
			source := make(chan any)
			w.opened <- source
			return source, nil
		}),
	})
}

func callerOf(ctx context.Context) string {
	if p := auth.From(ctx); p != nil {
		return string(p.UserID)
	}
	return "stranger"
}

// at is an event with a cursor.
func at(cursor string, value any) operationtest.Resolver {
	return func(ctx context.Context, _ map[string]any) (any, error) {
		operation.NoteCursor(ctx, cursor)
		return value, nil
	}
}

// progress is no event, but a cursor.
func progress(cursor string) operationtest.Resolver {
	return func(ctx context.Context, _ map[string]any) (any, error) {
		operation.NoteProgress(ctx, cursor)
		return nil, nil
	}
}

// tokens knows whose tokens are good, and is told when they are not any more.
type tokens struct {
	mu     sync.Mutex
	users  map[string]uid.User
	expiry time.Time
	down   bool
	asked  int
}

func (k *tokens) set(token string, user uid.User) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.users[token] = user
}

func (k *tokens) fail(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

func (k *tokens) expire(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expiry = at
}

func (k *tokens) Authenticate(_ context.Context, token string) (*auth.Principal, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	switch user := k.users[token]; {
	case k.down:
		return nil, fault.New(fault.Unavailable, fault.ServiceUnavailable, "The database is away.")
	case user == "":
		return nil, fault.New(fault.Unauthenticated, fault.Unauthorized, "No.")
	default:
		return &auth.Principal{UserID: user}, nil
	}
}

func (k *tokens) Expiry(string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.expiry
}

func (k *tokens) AuthenticateTicket(ctx context.Context, ticket string, req operation.Request) (*auth.Principal, stream.Standing, error) {
	if !strings.Contains(req.Query, "ticks") {
		return nil, nil, fault.New(fault.Unauthenticated, fault.Unauthorized, "The ticket is for another document.")
	}
	standing := func(ctx context.Context) (*auth.Principal, error) { return k.Authenticate(ctx, ticket) }
	p, err := standing(ctx)
	return p, standing, err
}

// pipes is a listener whose connections are pipes.
type pipes struct {
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	open   []net.Conn
}

func newPipes() *pipes { return &pipes{queue: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// peer gives a pipe an address.
type peer struct{ net.Conn }

func (peer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func (p *pipes) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.queue <- peer{server}:
	case <-p.closed:
		return nil, net.ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, client)
	return client, nil
}

// hangUp closes the clients' ends.
func (p *pipes) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
}

// buffer is a log that goroutines share.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// request sends a request and returns the answer with its head read.
func (w *world) request(method, target string, headers map[string]string, body string) *http.Response {
	w.t.Helper()
	conn, err := w.ln.dial()
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://api.example"+target, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	go r.Write(conn) //nolint:errcheck // the answer tells
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		w.t.Fatal(err)
	}
	resp.Body = hungUp{resp.Body, conn}
	return resp
}

// hungUp is a body whose end is that of its connection.
type hungUp struct {
	io.ReadCloser
	conn net.Conn
}

func (b hungUp) Close() error { return b.conn.Close() }

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
	for name, value := range headers {
		all[name] = value
	}
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

var errNoEvent = errors.New("the stream has ended")

// readEvent returns the next block of an event stream, without its empty line.
func readEvent(r *bufio.Reader) (string, error) {
	var block strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return block.String(), errNoEvent
		}
		if line == "\n" {
			return strings.TrimSuffix(block.String(), "\n"), nil
		}
		block.WriteString(line)
	}
}
