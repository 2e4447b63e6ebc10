package connection

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// tail is where the events of a stream are written.
type tail interface {
	// Write sends text, or fails once the deadline has passed. Without an error it
	// returns the length of the text.
	Write(text []byte) (int, error)
	SetWriteDeadline(at time.Time) error
	// Close ends the answer, so that the client can tell its end from a cut.
	Close() error
}

// detach takes the connection from the server, whose goroutines and buffers for a
// request would take more memory than all that a waiting stream needs. It returns
// nil where that cannot be done. Nothing is sent.
func detach(w http.ResponseWriter, r *http.Request) *chunks {
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
	holdLittle(conn)
	return &chunks{conn, head.Bytes()}
}

// chunks is the tail of an answer on a connection of our own.
type chunks struct {
	net.Conn
	head []byte // of the answer; nil once it is sent
}

// Write implements tail by one chunk.
func (c *chunks) Write(text []byte) (int, error) {
	out := takeBuffer()
	defer giveBuffer(out)
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

// Close implements tail.
func (c *chunks) Close() error {
	_, err := io.WriteString(c.Conn, "0\r\n\r\n")
	if closing := c.Conn.Close(); err == nil {
		err = closing
	}
	return err
}

// awaitHangUp returns when the client closes the connection. What it sends until
// then is nobody's.
func awaitHangUp(conn net.Conn) {
	var b [16]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
	}
}

// answer is the tail of an answer that the server writes.
type answer struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
}

// Write implements tail.
func (a answer) Write(text []byte) (int, error) {
	n, err := a.w.Write(text)
	if err == nil {
		err = a.ctl.Flush()
	}
	return n, err
}

// SetWriteDeadline implements tail. A writer without deadlines, as in tests, has
// no slow reader either.
func (a answer) SetWriteDeadline(at time.Time) error {
	_ = a.ctl.SetWriteDeadline(at)
	return nil
}

// Close implements tail: the server ends the answer with its request.
func (a answer) Close() error { return nil }
