// Package streamtest runs an httpd.Server for tests of WebSockets and event streams, on
// in-memory connections and in a synctest bubble, and has the clients to talk to it. The
// bubble ends only once every goroutine has, so each test proves that no goroutine is left.
package streamtest

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Env is a running server with its test doubles.
type Env struct {
	T        *testing.T
	Listener *Listener
	Tokens   *Tokens
	Sources  chan chan any // the source of each subscription to ticks
	Log      *Log
	Server   *httpd.Server
	Stop     context.CancelFunc
	Done     chan error // what the server's Run returned; a test that receives it must send nil
}

// Run runs the test against a server of the configuration.
func Run(t *testing.T, cfg httpd.Config, test func(e *Env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &Env{T: t, Listener: NewListener(), Tokens: &Tokens{users: map[string]uid.User{}}, Sources: make(chan chan any, 100), Log: &Log{}, Done: make(chan error, 1)}
		log := slog.New(slog.NewTextHandler(e.Log, nil))
		x, err := executor.New(e.schema(), executor.Config{AroundResponse: cursorOnly}, log)
		if err != nil {
			t.Fatal(err)
		}
		cfg.AllowedHosts = append(cfg.AllowedHosts, "api.example", "a")
		s, err := httpd.New(cfg, x, httpd.Deps{Auth: e.Tokens, Tickets: e.Tokens}, log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		e.Server, e.Stop = s, stop
		go func() { e.Done <- s.Run(ctx, e.Listener) }()
		defer func() {
			e.Listener.HangUp()
			stop()
			if err := <-e.Done; err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		}()
		test(e)
	})
}

func (e *Env) schema() *executortest.Schema {
	return executortest.New(executortest.Object{
		"hello": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { return "hi " + callerOf(ctx), nil }),
		"panic": executortest.Resolver(func(context.Context, map[string]any) (any, error) { panic("secret") }),
		"wait": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}),
		"many": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { // takes its time to end
			<-ctx.Done()
			time.Sleep(StopDelay)
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
			e.Sources <- source
			return source, nil
		}),
	})
}

// StopDelay is how long the field many runs on after its operation was stopped.
const StopDelay = 900 * time.Millisecond

func callerOf(ctx context.Context) string {
	if p := auth.From(ctx); p != nil {
		return string(p.UserID)
	}
	return "anonymous"
}

// CallerEvent is an event that resolves to its caller.
var CallerEvent = executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { return callerOf(ctx), nil })

// EventAt is an event with a cursor.
func EventAt(cursor string, value any) executortest.Resolver {
	return func(ctx context.Context, _ map[string]any) (any, error) {
		executor.SetResponseCursor(ctx, cursor)
		return value, nil
	}
}

// Progress is a cursor without an event.
func Progress(cursor string) executortest.Resolver {
	return func(ctx context.Context, _ map[string]any) (any, error) {
		executor.SetResponseCursor(ctx, cursor)
		graphql.RegisterExtension(ctx, progressKey, true)
		return nil, nil
	}
}

// progressKey marks a response of Progress.
const progressKey = "progress"

// cursorOnly replaces a response of Progress by its cursor, as an executor.EventSource
// without an event gives it.
func cursorOnly(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	resp := next(ctx)
	if resp == nil || resp.Extensions[progressKey] == nil {
		return resp
	}
	return &graphql.Response{Extensions: map[string]any{"cursor": resp.Extensions["cursor"]}}
}

// Listener is a net.Listener whose connections are pipes.
type Listener struct {
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	open   []net.Conn
}

// NewListener returns a Listener without connections.
func NewListener() *Listener {
	return &Listener{queue: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{} }

// peer gives a pipe an address.
type peer struct{ net.Conn }

// RemoteAddr implements net.Conn.
func (peer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

// Dial connects to the listener.
func (l *Listener) Dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.queue <- peer{server}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, client)
	return client, nil
}

// HangUp closes the clients' ends.
func (l *Listener) HangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close()
	}
}

// Log is a log that goroutines may share.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
