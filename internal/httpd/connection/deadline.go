package connection

import (
	"sync/atomic"
	"time"
)

// maxPiece is how many bytes are written at a time: what a client that reads
// slowly must take within the stall time.
const maxPiece = 64 << 10

// deadline is that of the writes of a connection. It is not moved for each, as that
// costs as much as the write of a short message.
type deadline struct{ set atomic.Int64 } // Unix time in nanoseconds

// next returns the deadline of a write that begins at now; due is false if the last
// one still leaves it seven eighths of the time.
func (d *deadline) next(now time.Time, limit time.Duration) (at time.Time, due bool) {
	if now.Sub(time.Unix(0, d.set.Load())) < limit/8 {
		return at, false
	}
	d.set.Store(now.UnixNano())
	return now.Add(limit), true
}

// writeAll writes text in pieces, for each of which the client has the limit, and
// calls took after each. Only one goroutine at a time may write.
func (d *deadline) writeAll(out tail, text []byte, limit time.Duration, took func()) (written int, err error) {
	for written < len(text) {
		if at, due := d.next(time.Now(), limit); due {
			if err := out.SetWriteDeadline(at); err != nil {
				return written, err
			}
		}
		n, err := out.Write(text[written:min(written+maxPiece, len(text))])
		if written += n; err != nil {
			return written, err
		}
		took()
	}
	return written, nil
}
