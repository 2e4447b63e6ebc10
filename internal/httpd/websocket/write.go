package websocket

import (
	"bytes"
	"encoding/binary"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/outbound"
)

var _ connection.ResultWriter = (*socket)(nil)

// WriteResult implements connection.ResultWriter.
func (k *socket) WriteResult(o *connection.Operation, resp *executor.Response) {
	cursor, only := executor.ResponseCursor(resp.Response)
	defer o.NoteCursor(cursor, only)
	if only {
		return
	}
	text, err := resp.Encoded(outbound.EncodeResponse)
	if err != nil {
		k.s.connections.CloseOnEncodeError(k.ctx, k, err)
		return
	}
	if o.Prefix == nil {
		o.Prefix = k.subprotocol.resultPrefix(o.ID)
	}
	out := o.Batch.Buffer()
	appendFrameHeader(out, len(o.Prefix)+len(text)+1)
	out.Write(o.Prefix)
	out.Write(text)
	out.WriteByte('}')
	if o.Batch.Full() {
		k.Flush(o)
	}
}

// Flush implements connection.ResultWriter.
func (k *socket) Flush(o *connection.Operation) {
	if out := o.Batch.Take(); out != nil {
		k.writeFrames(o, out.Bytes())
		outbound.PutBuffer(out)
	}
}

// WriteErrors implements connection.ResultWriter.
func (k *socket) WriteErrors(o *connection.Operation, errs gqlerror.List) {
	if k.operations.Remove(o) {
		k.send(nil, outgoing{k.subprotocol.errorType, o.ID, k.subprotocol.errorPayload(errs)})
	}
}

// WriteComplete implements connection.ResultWriter. The id is free before the client can know.
func (k *socket) WriteComplete(o *connection.Operation) {
	if k.operations.Remove(o) {
		k.send(nil, outgoing{kind: k.subprotocol.completeType, id: o.ID})
	}
}

// send sends a message, which may belong to an operation, and returns when it is written or
// the client is given up.
func (k *socket) send(o *connection.Operation, m outgoing) {
	text, out := outbound.GetBuffer(), outbound.GetBuffer()
	defer outbound.PutBuffer(text)
	defer outbound.PutBuffer(out)
	if err := m.encodeTo(text); err != nil {
		k.s.connections.CloseOnEncodeError(k.ctx, k, err)
		return
	}
	appendFrameHeader(out, text.Len())
	out.Write(text.Bytes())
	k.writeFrames(o, out.Bytes())
}

// writeFrames writes whole frames, if the operation that they belong to, if any, is still live.
// The library writes close frames past this permit, each by one call of conn.Write, so that no
// frame lands within another; from there on, the permit is not released any more. The library
// writes no pings and pongs, as it cuts a client that does not read them at once.
func (k *socket) writeFrames(o *connection.Operation, frames []byte) {
	ctx := k.ctx
	if o != nil {
		ctx = o.Context()
	}
	if k.writing.Acquire(ctx, 1) != nil {
		return
	}
	defer k.writing.Release(1)
	if k.ctx.Err() != nil || o != nil && !k.operations.IsLive(o) {
		return
	}
	if _, err := k.conn.Write(frames); err != nil {
		k.Close(connection.ReasonDead)
	}
}

// appendFrameHeader appends the header of a frame with a whole text message of n bytes, as a
// server sends it (RFC 6455): not masked, not compressed.
func appendFrameHeader(out *bytes.Buffer, n int) {
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
