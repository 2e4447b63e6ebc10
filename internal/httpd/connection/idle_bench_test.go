package connection_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

// idle is how many subscriptions the benchmarks of memory keep open.
const idle = 2000

// BenchmarkIdle measures what a subscription that waits takes of the server's
// memory: B/conn is heap and stacks after a collection, that of the clients left
// out.
func BenchmarkIdle(b *testing.B) {
	for name, open := range map[string]func(b testing.TB, addr string) net.Conn{"socket": openSocket, "events": openEvents} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				measureIdle(b, open)
			}
		})
	}
}

func measureIdle(b *testing.B, open func(b testing.TB, addr string) net.Conn) {
	opened := make(chan struct{}, idle)
	addr, stop := serveIdle(b, opened)
	defer stop()
	warm := open(b, addr) // what the first one takes is not each one's
	defer warm.Close()
	<-opened
	before := inUse()
	conns := make([]net.Conn, idle)
	for i := range conns {
		conns[i] = open(b, addr)
		<-opened
	}
	after := inUse()
	b.ReportMetric(float64(after-before)/idle, "B/conn")
	for _, c := range conns {
		_ = c.Close()
	}
}

// inUse returns the bytes of heap and stacks that are in use.
func inUse() uint64 {
	var m runtime.MemStats
	for range 3 { // stacks shrink by half at each collection
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func serveIdle(b testing.TB, opened chan<- struct{}) (addr string, stop func()) {
	schema := executortest.New(nil, nil, executortest.Object{"ticks": executortest.Resolver(func(context.Context, map[string]any) (any, error) {
		opened <- struct{}{}
		return make(chan any), nil
	})})
	log := slog.New(slog.DiscardHandler)
	x, err := executor.New(schema, executor.Config{}, log)
	if err != nil {
		b.Fatal(err)
	}
	s, err := httpd.New(httpd.Config{AllowedHosts: []string{"a"}}, x, httpd.Deps{}, log)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	return ln.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

// openSocket subscribes over a socket. Nothing of the client stays in memory but
// its connection.
func openSocket(b testing.TB, addr string) net.Conn {
	conn := say(b, addr, "GET /graphql HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n")
	c := &streamtest.Client{Conn: conn}
	c.Send(streamtest.InitMessage)
	if f, err := streamtest.ReadFrame(conn); err != nil || string(f.Data) != streamtest.AckMessage {
		b.Fatalf("the server sent %s, %v", f, err)
	}
	c.Subscribe("s", "subscription{ticks}")
	return conn
}

func openEvents(b testing.TB, addr string) net.Conn {
	return say(b, addr, "GET /graphql?query=subscription{ticks} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
}

// say sends the head of a request and reads that of the answer.
func say(b testing.TB, addr, head string) net.Conn {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	in := bufio.NewReaderSize(oneByte{conn}, 16) // so that no frame is read ahead
	for !strings.HasSuffix(text.String(), "\r\n\r\n") {
		c, err := in.ReadByte()
		if err != nil {
			b.Fatal(err)
		}
		text.WriteByte(c)
	}
	if !strings.HasPrefix(text.String(), "HTTP/1.1 101") && !strings.HasPrefix(text.String(), "HTTP/1.1 200") {
		b.Fatal(fmt.Errorf("the server answered %s", text.String()))
	}
	return conn
}

// oneByte reads a byte at a time.
type oneByte struct{ net.Conn }

func (r oneByte) Read(p []byte) (int, error) { return r.Conn.Read(p[:1]) }
