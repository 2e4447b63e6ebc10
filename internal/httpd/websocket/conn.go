package websocket

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/httpd/outbound"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// Sizes of a socket's buffers in bytes. Those of net/http, 4 KiB each, would be a third of
// what an idle socket takes. Most messages of clients are short; the library writes control
// frames only, which must fit whole.
const (
	readBuffer  = 512
	writeBuffer = 256
)

// conn is the network connection below a socket. It records when it last read from the client
// and whether the client is slow, and fails a write that stalls.
type conn struct {
	net.Conn
	stallTime  time.Duration
	readAt     atomic.Int64 // as monotime.Nanos
	writeBegan atomic.Int64 // of the write under way, likewise; 0 for none
	slow       atomic.Bool  // a write took long, and nothing was read since
	deadline   outbound.WriteDeadline
	writing    *semaphore.Weighted // of one: one write at a time, each of whole frames
}

// slowWrite is how long a write takes only if the client has not read all that was sent before.
const slowWrite = time.Second

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.readAt.Store(monotime.Now())
		c.slow.Store(false)
	}
	return n, err
}

// Write implements net.Conn. It is safe for concurrent use.
func (c *conn) Write(b []byte) (int, error) {
	_ = c.writing.Acquire(context.Background(), 1) // cannot fail
	defer c.writing.Release(1)
	began := time.Now()
	c.writeBegan.Store(monotime.Nanos(began))
	defer c.writeBegan.Store(0)
	return c.deadline.WriteAll(c.Conn, b, c.stallTime, func() { c.noteProgress(began) })
}

// noteProgress notes that a piece of the write that began then was written.
func (c *conn) noteProgress(began time.Time) {
	if time.Since(began) >= slowWrite { // the client has read something
		c.readAt.Store(monotime.Now())
		c.slow.Store(true)
	}
}

// isSlow reports whether the client has not read all that was sent.
func (c *conn) isSlow(now time.Time) bool {
	began := c.writeBegan.Load()
	return c.slow.Load() || began != 0 && now.Sub(monotime.Time(began)) >= slowWrite
}

// lastRead returns when the client last gave a sign of life.
func (c *conn) lastRead() time.Time { return monotime.Time(c.readAt.Load()) }

// hijacker is a response writer whose connection, once hijacked, is a conn with small buffers.
type hijacker struct {
	http.ResponseWriter
	stallTime time.Duration
	conn      *conn
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	outbound.LimitSendBuffer(raw)
	h.conn = &conn{Conn: raw, stallTime: h.stallTime, writing: semaphore.NewWeighted(1)}
	h.conn.readAt.Store(monotime.Now())
	in := bufio.NewReaderSize(h.conn, max(readBuffer, rw.Reader.Buffered()))
	if n := rw.Reader.Buffered(); n > 0 { // the client has not waited for our answer
		early, _ := rw.Peek(n) // cannot fail: they are there
		in.Reset(&earlyReader{early, h.conn})
		_, _ = in.Peek(n) // so that they count as buffered, which is what Accept takes over
	}
	return h.conn, bufio.NewReadWriter(in, bufio.NewWriterSize(h.conn, writeBuffer)), nil
}

// earlyReader reads what was received before the upgrade, then the rest.
type earlyReader struct {
	early []byte
	rest  net.Conn
}

func (r *earlyReader) Read(b []byte) (int, error) {
	if len(r.early) == 0 {
		return r.rest.Read(b)
	}
	n := copy(b, r.early)
	r.early = r.early[n:]
	return n, nil
}
