package sse

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"
	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/outbound"
)

// stream is an event stream. It implements connection.Connection and connection.ResultWriter.
type stream struct {
	s           *Server
	out         eventWriter
	ctx         context.Context // its cause is the close reason
	cancel      context.CancelCauseFunc
	cred        *connection.Credential
	timer       *time.Timer
	opened      time.Time
	encodeEvent EventEncoder // nil to write results as GraphQL over SSE does
	conn        net.Conn     // taken over from net/http; nil if net/http writes the answer

	writing     *semaphore.Weighted // of one: guards what follows, and out
	deadline    outbound.WriteDeadline
	closed      bool // nothing more may be written
	keepAliveAt time.Time
	takeCursor  func() string // the cursor that a keep-alive sends; nil for none
}

// lock waits for the write permit however long it takes.
func (st *stream) lock() { _ = st.writing.Acquire(context.Background(), 1) } // cannot fail

func (st *stream) unlock() { st.writing.Release(1) }

// open sends the head of the answer, with a comment that makes proxies pass it on.
func (st *stream) open(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Add("Vary", "Accept")
	if out := hijack(w, r); out != nil {
		st.conn, st.out = out.Conn, out
	} else {
		st.out = responseWriter{w, http.NewResponseController(w)}
		w.WriteHeader(http.StatusOK)
	}
	st.schedule() // before a slow client can block the first write
	st.send([]byte(":\n\n"))
	st.unlock()
}

// run runs what fills the stream until the client goes: at once and without the request, if
// the connection was taken over, else before it returns.
func (st *stream) run(r *http.Request, fill func()) {
	guarded := func() {
		defer st.cancel(nil)
		st.s.connections.Guard(st.ctx, st, fill)
	}
	if st.conn == nil {
		defer context.AfterFunc(r.Context(), func() { st.cancel(nil) })()
		guarded()
		return
	}
	go func() {
		awaitHangUp(st.conn)
		st.cancel(nil)
	}()
	go guarded()
}

// runOperation runs the one operation of the stream, from beginning to end.
func (st *stream) runOperation(op *executor.Operation, refusal *executor.Refusal) {
	o := connection.NewOperation(st.ctx)
	st.lock()
	st.takeCursor = o.TakeCursor
	st.unlock()
	defer st.finish(func(errs gqlerror.List) { st.WriteErrors(o, errs) })
	if refusal != nil {
		st.WriteErrors(o, refusal.Errors)
		return
	}
	st.s.connections.Run(o, st, st.cred, op, st)
}

// Close implements connection.Connection.
func (st *stream) Close(reason *connection.CloseReason) { st.cancel(reason) }

// Recheck implements connection.Connection.
func (st *stream) Recheck(affected func(*auth.Principal) bool) {
	if st.cred.ExpediteCheck(affected) && st.ctx.Err() == nil {
		st.timer.Reset(0)
	}
}

// finish writes why we close the stream, if we do, and writes nothing after that.
func (st *stream) finish(writeErrors func(gqlerror.List)) {
	reason := connection.ReasonFrom(st.ctx)
	switch {
	case reason == nil:
	case reason.Fault != nil:
		writeErrors(executor.NewRefusal(reason.Fault).Errors)
	default:
		st.writeRetry(reason.Text)
	}
	st.lock()
	st.closed = true
	_ = st.out.Close() // fails only with the connection
	st.unlock()
	st.timer.Stop()
	text := "the operation ended"
	switch {
	case reason != nil:
		text = reason.Text
	case st.ctx.Err() != nil:
		text = "the client left"
	}
	st.s.connections.LogClosed(st.ctx, "event stream closed", slog.String("reason", text), slog.Duration("duration", time.Since(st.opened)))
}

// writeRetry asks the client to reconnect, with the reason as a comment for people.
func (st *stream) writeRetry(reason string) {
	st.lock()
	defer st.unlock()
	st.send([]byte("retry: " + strconv.FormatInt(connection.RetryAfter.Milliseconds(), 10) + "\n: " + reason + "\n\n"))
}

// send writes text. A client that stalls the write loses its stream. The caller holds the
// write permit.
func (st *stream) send(text []byte) {
	if st.closed {
		return
	}
	st.keepAliveAt = time.Now().Add(st.s.cfg.KeepAlive)
	if _, err := st.deadline.WriteAll(st.out, text, st.s.cfg.StallTime, func() {}); err != nil {
		st.closed = true
		st.cancel(connection.ReasonDead)
	}
}

// onTimer checks the credential and keeps a quiet stream alive.
func (st *stream) onTimer() {
	st.s.connections.Guard(st.ctx, st, func() {
		if reason := st.cred.Check(st.ctx, st.s.cfg.CheckTime); reason != nil {
			st.Close(reason)
			return
		}
		st.keepAlive()
		st.schedule()
	})
}

// keepAlive sends a keep-alive if that is due: the cursor that a quiet subscription has
// reached, which a client keeps as if it came with an event, or else a comment.
func (st *stream) keepAlive() {
	if !st.writing.TryAcquire(1) {
		return // what is being written is a sign of life
	}
	defer st.unlock()
	if time.Now().Before(st.keepAliveAt) {
		return
	}
	if st.takeCursor != nil {
		if cursor := st.takeCursor(); isEventID(cursor) {
			st.send([]byte("id: " + cursor + "\n\n"))
			return
		}
	}
	st.send([]byte(":\n\n"))
}

// schedule sets the timer for what is due first.
func (st *stream) schedule() {
	due := time.Now().Add(st.s.cfg.KeepAlive)
	if st.writing.TryAcquire(1) {
		due = st.keepAliveAt
		st.unlock()
	}
	if at, ok := st.cred.NextCheck(st.s.cfg.CheckTime); ok && at.Before(due) {
		due = at
	}
	if st.ctx.Err() == nil {
		st.timer.Reset(max(time.Until(due), time.Millisecond))
	}
}

var _ connection.ResultWriter = (*stream)(nil)

// WriteResult implements connection.ResultWriter.
func (st *stream) WriteResult(o *connection.Operation, resp *executor.Response) {
	cursor, only := executor.ResponseCursor(resp.Response)
	defer o.NoteCursor(cursor, only)
	if only {
		return
	}
	name, line, err := st.encodeResult(resp)
	switch {
	case err != nil:
		st.s.connections.CloseOnEncodeError(st.ctx, st, err)
		return
	case line == nil:
		return
	}
	appendEvent(o.Batch.Buffer(), name, cursor, line)
	if o.Batch.Full() {
		st.Flush(o)
	}
}

// encodeResult returns the event for a response, its data in one line.
func (st *stream) encodeResult(resp *executor.Response) (name string, line []byte, err error) {
	if st.encodeEvent == nil {
		line, err = resp.Encoded(outbound.EncodeResponse)
		return "next", line, err
	}
	name, line = st.encodeEvent(resp.Response)
	outbound.JoinLines(line)
	return name, line, nil
}

// Flush implements connection.ResultWriter.
func (st *stream) Flush(o *connection.Operation) {
	if out := o.Batch.Take(); out != nil {
		st.writeBuffer(out)
	}
}

func (st *stream) writeBuffer(out *bytes.Buffer) {
	st.lock()
	st.send(out.Bytes())
	st.unlock()
	outbound.PutBuffer(out)
}
