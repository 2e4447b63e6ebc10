package sse

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd/outbound"
)

// eventWriter is where the events of a stream are written.
type eventWriter interface {
	// DeadlineWriter writes text, or fails once the deadline has passed. Without an error
	// Write returns the length of the text.
	outbound.DeadlineWriter
	// Close ends the answer, so that the client can tell its end from a cut.
	Close() error
}

// hijack takes the connection over from net/http, whose goroutines and buffers for a request
// would take more memory than all that a waiting stream needs. It returns nil where that
// cannot be done. Nothing is sent.
func hijack(w http.ResponseWriter, r *http.Request) *chunkWriter {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		return nil
	}
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n")
	if err := w.Header().Write(&head); err != nil {
		return nil // a buffer takes everything
	}
	head.WriteString("\r\n")
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil
	}
	outbound.LimitSendBuffer(conn)
	return &chunkWriter{conn, head.Bytes()}
}

// chunkWriter writes a chunked answer to a connection that was taken over.
type chunkWriter struct {
	net.Conn
	head []byte // of the answer; nil once it is sent
}

// Write implements eventWriter by one chunk.
func (c *chunkWriter) Write(text []byte) (int, error) {
	out := outbound.GetBuffer()
	defer outbound.PutBuffer(out)
	out.Write(c.head)
	c.head = nil
	out.WriteString(strconv.FormatInt(int64(len(text)), 16))
	out.WriteString("\r\n")
	out.Write(text)
	out.WriteString("\r\n")
	if _, err := c.Conn.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Close implements eventWriter.
func (c *chunkWriter) Close() error {
	_, err := io.WriteString(c.Conn, "0\r\n\r\n")
	if closing := c.Conn.Close(); err == nil {
		err = closing
	}
	return err
}

// awaitHangUp returns when the client closes the connection. What it sends until then is
// discarded.
func awaitHangUp(conn net.Conn) {
	var b [16]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
	}
}

// responseWriter writes an answer through net/http.
type responseWriter struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
}

// Write implements eventWriter.
func (rw responseWriter) Write(text []byte) (int, error) {
	n, err := rw.w.Write(text)
	if err == nil {
		err = rw.ctl.Flush()
	}
	return n, err
}

// SetWriteDeadline implements eventWriter. A writer without deadlines, as in tests, has no
// slow client either.
func (rw responseWriter) SetWriteDeadline(at time.Time) error {
	_ = rw.ctl.SetWriteDeadline(at)
	return nil
}

// Close implements eventWriter: net/http ends the answer with its request.
func (rw responseWriter) Close() error { return nil }
