package connection

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Sizes of a socket's buffers in bytes. Those of net/http, 4 KiB each, would be
// a third of what an idle socket takes. Most messages of clients are short; what
// is written through the library is control frames alone, and must fit whole.
const (
	readBuffer  = 512
	writeBuffer = 256
)

// line is the connection below a socket. It notes when it last heard of the
// client and whether that reads slowly, and gives up writing to one that does not
// read.
type line struct {
	net.Conn
	stallTime time.Duration
	heard     atomic.Int64 // Unix time in nanoseconds
	begun     atomic.Int64 // the write that goes on, likewise; 0 for none
	slow      atomic.Bool  // a write took long, and nothing was heard since
	deadline  deadline
	writing   turn // for one write at a time, each of whole frames
}

// slowWrite is how long a write takes only if the client has not read all that went
// before.
const slowWrite = time.Second

// Read implements net.Conn.
func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(time.Now().UnixNano())
		l.slow.Store(false)
	}
	return n, err
}

// Write implements net.Conn. It may be called by many at a time.
func (l *line) Write(b []byte) (int, error) {
	l.writing.hold()
	defer l.writing.give()
	begun := time.Now()
	l.begun.Store(begun.UnixNano())
	defer l.begun.Store(0)
	return l.deadline.writeAll(l.Conn, b, l.stallTime, func() { l.took(begun) })
}

// took notes that a piece of the write that began then went through.
func (l *line) took(begun time.Time) {
	if time.Since(begun) >= slowWrite { // the client has read something
		l.heard.Store(time.Now().UnixNano())
		l.slow.Store(true)
	}
}

// isSlow reports whether the client has not read all that was sent.
func (l *line) isSlow(now time.Time) bool {
	begun := l.begun.Load()
	return l.slow.Load() || begun != 0 && now.Sub(time.Unix(0, begun)) >= slowWrite
}

func (l *line) silentSince() time.Time { return time.Unix(0, l.heard.Load()) }

// lineWriter is a response writer whose connection, once hijacked, is a line
// with small buffers.
type lineWriter struct {
	http.ResponseWriter
	stallTime time.Duration
	line      *line
}

// Hijack implements http.Hijacker.
func (w *lineWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	holdLittle(conn)
	w.line = &line{Conn: conn, stallTime: w.stallTime, writing: newTurn()}
	w.line.heard.Store(time.Now().UnixNano())
	in := bufio.NewReaderSize(w.line, max(readBuffer, rw.Reader.Buffered()))
	if n := rw.Reader.Buffered(); n > 0 { // the client has not waited for our answer
		early, _ := rw.Peek(n) // cannot fail: they are there
		in.Reset(&earlyReader{early, w.line})
		_, _ = in.Peek(n) // so that they count as buffered, which is what Accept takes over
	}
	return w.line, bufio.NewReadWriter(in, bufio.NewWriterSize(w.line, writeBuffer)), nil
}

// earlyReader reads what was received before the socket was one, then the rest.
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
