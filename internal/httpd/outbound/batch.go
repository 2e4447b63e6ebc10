// Package outbound writes results to clients that may be slow: it encodes them into pooled
// buffers, batches what a client is behind with, moves the write deadline, and limits the
// kernel's send buffer, so that backpressure reaches the operation that writes.
//
// It knows no protocol. Its writers must be called by one goroutine at a time.
package outbound

import (
	"bytes"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// Bounds of a batch. A client that keeps up gets each result by itself.
const (
	batchBytes = 16 << 10
	batchTime  = time.Millisecond // from the first result
)

// Batch is results of an operation, encoded for the connection and written together: a client
// that is behind gets many with one write. The zero Batch is empty.
type Batch struct {
	out   *bytes.Buffer // nil if it is empty
	begun time.Time
}

// Buffer returns where to append one more result.
func (b *Batch) Buffer() *bytes.Buffer {
	if b.out == nil {
		b.out, b.begun = GetBuffer(), time.Now()
	}
	return b.out
}

// Full reports whether the batch should be written now.
func (b *Batch) Full() bool {
	return b.out != nil && (b.out.Len() >= batchBytes || time.Since(b.begun) >= batchTime)
}

// Take empties the batch and returns its buffer, nil if it was empty. The caller passes the
// buffer to PutBuffer.
func (b *Batch) Take() *bytes.Buffer {
	out := b.out
	b.out = nil
	return out
}

// EncodeResponse returns the response as JSON in one line. Line breaks in JSON are only
// between its tokens, where a space means the same.
func EncodeResponse(resp *graphql.Response) ([]byte, error) {
	out := GetBuffer()
	defer PutBuffer(out)
	if err := jsoncodec.Encode(out, jsoncodec.NewResponse(resp)); err != nil {
		return nil, err
	}
	text := bytes.Clone(out.Bytes())
	JoinLines(text)
	return text, nil
}

// JoinLines replaces line breaks by spaces.
func JoinLines(text []byte) {
	for i, c := range text {
		if c == '\n' || c == '\r' {
			text[i] = ' '
		}
	}
}

// buffers are reused for messages to clients.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooledBytes is the size up to which a buffer is kept for the next message.
const maxPooledBytes = 64 << 10

// GetBuffer returns an empty buffer from the pool.
func GetBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

// PutBuffer returns a buffer to the pool.
func PutBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooledBytes {
		b.Reset()
		buffers.Put(b)
	}
}
