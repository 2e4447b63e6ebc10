package outbound

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/monotime"
)

// maxPieceBytes is how many bytes are written at a time: what a slow client must read within
// the stall time.
const maxPieceBytes = 64 << 10

// DeadlineWriter is a writer whose writes fail after a deadline.
type DeadlineWriter interface {
	io.Writer
	SetWriteDeadline(at time.Time) error
}

// WriteDeadline is the write deadline of a connection. It is not moved for each write, as that
// costs as much as writing a short message.
type WriteDeadline struct{ set atomic.Int64 } // as monotime.Nanos

// next returns the deadline of a write that begins at now; due is false if the last deadline
// still leaves the write seven eighths of the limit.
func (d *WriteDeadline) next(now time.Time, limit time.Duration) (at time.Time, due bool) {
	if now.Sub(monotime.Time(d.set.Load())) < limit/8 {
		return at, false
	}
	d.set.Store(monotime.Nanos(now))
	return now.Add(limit), true
}

// WriteAll writes text in pieces, for each of which the client has the limit, and calls
// onProgress after each. Only one goroutine at a time may write.
func (d *WriteDeadline) WriteAll(out DeadlineWriter, text []byte, limit time.Duration, onProgress func()) (written int, err error) {
	for written < len(text) {
		if at, due := d.next(time.Now(), limit); due {
			if err := out.SetWriteDeadline(at); err != nil {
				return written, err
			}
		}
		n, err := out.Write(text[written:min(written+maxPieceBytes, len(text))])
		if written += n; err != nil {
			return written, err
		}
		onProgress()
	}
	return written, nil
}
