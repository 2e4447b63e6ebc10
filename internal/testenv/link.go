package testenv

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Link is a TCP connection between a client and a server that a test may cut. It
// is safe for concurrent use.
type Link struct {
	Addr string // where clients connect

	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]struct{}
	sent int
}

// NewLink returns a link to the server at the address, for the length of the test.
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Addr: ln.Addr().String(), target: target, listener: ln, open: map[net.Conn]struct{}{}}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		ln.Close()
		l.Cut()
		l.wg.Wait()
	})
	return l
}

// Cut breaks all connections and refuses new ones.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.open {
		c.Close()
	}
}

// Mend lets clients connect again.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// Sent returns how often clients have sent something so far. What a client sends at
// once, such as a pipeline of commands, counts once.
func (l *Link) Sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// meter is a connection to the server that counts what is written to it.
type meter struct {
	net.Conn
	l *Link
}

// Write implements io.Writer.
func (m meter) Write(b []byte) (int, error) {
	m.l.mu.Lock()
	m.l.sent++
	m.l.mu.Unlock()
	return m.Conn.Write(b)
}

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.carry(c) })
	}
}

// carry copies both ways until either side ends or the link is cut.
func (l *Link) carry(client net.Conn) {
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !l.keep(client, server) {
		return
	}
	defer l.drop(client, server)
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {meter{server, l}, client}} {
		l.wg.Go(func() {
			_, _ = io.Copy(writer{way[0]}, way[1]) // its error is the end of the connection
			ended <- struct{}{}
		})
	}
	<-ended
}

// writer keeps io.Copy from going past Write.
type writer struct{ io.Writer }

// keep notes connections that Cut breaks; false if the link is cut already.
func (l *Link) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.open[c] = struct{}{}
	}
	return !l.cut
}

func (l *Link) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		delete(l.open, c)
	}
}
