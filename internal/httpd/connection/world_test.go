package connection_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/uid"
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
	server *httpd.Server
	stop   context.CancelFunc
	ended  chan error // of the server
}

// inWorld runs the test against a server of the configuration.
func inWorld(t *testing.T, cfg httpd.Config, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, ln: newPipes(), tokens: &tokens{users: map[string]uid.User{}}, opened: make(chan chan any, 100), log: &buffer{}, ended: make(chan error, 1)}
		log := slog.New(slog.NewTextHandler(w.log, nil))
		x, err := executor.New(w.schema(), executor.Config{}, log)
		if err != nil {
			t.Fatal(err)
		}
		s, err := httpd.New(cfg, x, httpd.Deps{Auth: w.tokens, Tickets: w.tokens}, log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		w.server, w.stop = s, stop
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

func (w *world) schema() *executortest.Schema {
	return executortest.New(executortest.Object{
		"hello": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { return "hi " + callerOf(ctx), nil }),
		"panic": executortest.Resolver(func(context.Context, map[string]any) (any, error) { panic("secret") }),
		"wait": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}),
		"many": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { // takes its time to end
			<-ctx.Done()
			time.Sleep(stopping)
			return nil, context.Cause(ctx)
		}),
	}, executortest.Object{
		"touch": executortest.Resolver(func(context.Context, map[string]any) (any, error) { return "touched", nil }),
	}, executortest.Object{
		"tocks": []any{1, 2},
		"ticks": executortest.Resolver(func(_ context.Context, args map[string]any) (any, error) {
			if args["upTo"] != nil {
				return []any{args["upTo"]}, nil
			}
			source := make(chan any)
			w.opened <- source
			return source, nil
		}),
	})
}

// stopping is how long the field many goes on after its operation was stopped.
const stopping = 900 * time.Millisecond

func callerOf(ctx context.Context) string {
	if p := auth.From(ctx); p != nil {
		return string(p.UserID)
	}
	return "stranger"
}

// at is an event with a cursor.
func at(cursor string, value any) executortest.Resolver {
	return func(ctx context.Context, _ map[string]any) (any, error) {
		executor.NoteCursor(ctx, cursor)
		return value, nil
	}
}

// progress is no event, but a cursor.
func progress(cursor string) executortest.Resolver {
	return func(ctx context.Context, _ map[string]any) (any, error) {
		executor.NoteProgress(ctx, cursor)
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
		return &auth.Principal{UserID: user, Credential: auth.SessionCredential("ses_1")}, nil
	}
}

// looks returns how often somebody asked.
func (k *tokens) looks() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *tokens) Expiry(string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.expiry
}

// AuthenticateTicket takes tokens for tickets, each made for ticks.
func (k *tokens) AuthenticateTicket(ctx context.Context, ticket string) (httpd.Ticket, error) {
	standing := func(ctx context.Context) (*auth.Principal, error) { return k.Authenticate(ctx, ticket) }
	p, err := standing(ctx)
	return httpd.Ticket{Caller: connection.Caller{Principal: p, Check: standing}, Request: executor.Request{Query: "subscription{ticks}"}}, err
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
