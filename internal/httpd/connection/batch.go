package connection

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// Bounds of what waits to be written with more of the same operation. A client
// that keeps up gets each result by itself.
const (
	batchBytes = 16 << 10
	batchTime  = time.Millisecond // from the first result
)

// batch is results of an operation on their way out, ready for the connection: a
// client that is behind gets many with one write. The zero batch is empty.
type batch struct {
	out   *bytes.Buffer // nil if it is empty
	since time.Time
}

// buffer returns where to put one more result.
func (b *batch) buffer() *bytes.Buffer {
	if b.out == nil {
		b.out, b.since = takeBuffer(), time.Now()
	}
	return b.out
}

// full reports whether the batch should wait no longer.
func (b *batch) full() bool {
	return b.out != nil && (b.out.Len() >= batchBytes || time.Since(b.since) >= batchTime)
}

// take empties the batch. The caller gives the buffer back; it is nil if the
// batch was empty.
func (b *batch) take() *bytes.Buffer {
	out := b.out
	b.out = nil
	return out
}

// encode returns the response as JSON in one line. Line breaks in JSON are only
// between its tokens, where a space means the same.
func encode(resp *graphql.Response) ([]byte, error) {
	out := takeBuffer()
	defer giveBuffer(out)
	if err := jsoncodec.Encode(out, jsoncodec.NewResponse(resp)); err != nil {
		return nil, err
	}
	text := bytes.Clone(out.Bytes())
	oneLine(text)
	return text, nil
}

// oneLine makes spaces of line breaks.
func oneLine(text []byte) {
	for i, c := range text {
		if c == '\n' || c == '\r' {
			text[i] = ' '
		}
	}
}

// frame appends the head of a frame with a whole text message of n bytes, as RFC
// 6455 has it from a server: not masked, not compressed.
func frame(out *bytes.Buffer, n int) {
	const finalText = 0x81
	var head [10]byte
	head[0] = finalText
	switch {
	case n < 126:
		head[1] = byte(n) //nolint:gosec // G115: it is small
		out.Write(head[:2])
	case n < 1<<16:
		head[1] = 126
		binary.BigEndian.PutUint16(head[2:], uint16(n))
		out.Write(head[:4])
	default:
		head[1] = 127
		binary.BigEndian.PutUint64(head[2:], uint64(n))
		out.Write(head[:10])
	}
}
