package websocket

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// socket is one WebSocket. It implements connection.Connection and connection.ResultWriter.
type socket struct {
	s           *Server
	ws          *websocket.Conn
	conn        *conn
	subprotocol *subprotocol
	ctx         context.Context // of all operations; its cause is the close reason
	cancel      context.CancelCauseFunc
	cred        connection.Credential
	operations  *connection.Operations
	opened      time.Time
	timer       *time.Timer
	closing     sync.Once
	ready       chan struct{} // closed once the upgrade has succeeded or failed
	closed      chan struct{} // closed after the close frames

	writing *semaphore.Weighted // of one: from the decision that a message may be sent until it is

	inited       bool         // by the reader alone
	acknowledged atomic.Bool  // operations may begin
	lastUsed     atomic.Int64 // monotime.Nanos of the last message or end of an operation

	timing        sync.Mutex // one run of the timer at a time; guards nextKeepAlive
	nextKeepAlive time.Time
	keepingAlive  atomic.Bool            // a keep-alive is being written
	pong          atomic.Pointer[[]byte] // the answer to the last ping, until it is sent
}

// run reads until the socket closes, then waits for all that belongs to it.
func (k *socket) run() {
	defer k.s.connections.Release(k)
	k.s.connections.Guard(k.ctx, k, k.readMessages)
	k.Close(reasonProtocolError)
	k.operations.Close()
	<-k.closed
	reason := connection.ReasonFrom(k.ctx)
	k.s.connections.LogClosed(k.ctx, "websocket closed", slog.String("subprotocol", k.ws.Subprotocol()), slog.Int("code", reason.Code), slog.String("reason", reason.Text),
		slog.Duration("duration", time.Since(k.opened)), slog.Int("operations", k.operations.Started()))
}

func (k *socket) readMessages() {
	switch name := k.ws.Subprotocol(); {
	case strings.EqualFold(name, transportWS.name):
		k.subprotocol = &transportWS
	case strings.EqualFold(name, legacyWS.name):
		k.subprotocol = &legacyWS
	default:
		k.Close(reasonSubprotocol)
		return
	}
	for k.ctx.Err() == nil {
		if reason := k.readMessage(); reason != nil {
			k.Close(reason)
			return
		}
	}
}

// readMessage waits for a message and handles it.
func (k *socket) readMessage() *connection.CloseReason {
	kind, r, err := k.ws.Reader(context.Background())
	if err != nil {
		return reasonForReadError(err)
	}
	grant := k.s.connections.OpenMemory(k.ctx)
	defer grant.Release() // an operation takes its own once it runs
	text, reason := k.receive(grant.Reader(k.ctx, r, membudget.JSONFactor))
	switch {
	case reason != nil:
		return reason
	case kind != websocket.MessageText:
		return invalidMessage("Messages must be text.")
	case !utf8.Valid(text):
		return reasonInvalidUTF8
	}
	k.touch()
	m, reason := decodeMessage(text)
	if reason != nil {
		return reason
	}
	return k.subprotocol.handle(k, m)
}

// receive reads the rest of a message that has begun, for a limited time.
func (k *socket) receive(r io.Reader) ([]byte, *connection.CloseReason) {
	_ = k.conn.SetReadDeadline(time.Now().Add(k.s.cfg.MessageTime)) // fails only if reading does
	defer func() { _ = k.conn.SetReadDeadline(time.Time{}) }()
	text, err := io.ReadAll(r)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, reasonMessageTimeout
	case isFault(err):
		return nil, connection.ReasonForError(err) // no memory for it
	case err != nil:
		return nil, reasonForReadError(err)
	}
	return text, nil
}

func isFault(err error) bool {
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

func (k *socket) touch() { k.lastUsed.Store(monotime.Now()) }

// Close implements connection.Connection.
func (k *socket) Close(reason *connection.CloseReason) {
	k.closing.Do(func() {
		k.cancel(reason)
		k.timer.Stop()
		go func() {
			defer close(k.closed)
			if <-k.ready; k.ws == nil {
				return
			}
			if reason.Code == connection.CodeAbnormal {
				_ = k.ws.CloseNow() // no client is there to answer
				return
			}
			k.stopWriting()
			_ = k.ws.Close(websocket.StatusCode(reason.Code), reason.Text) // waits seconds at most; fails only by the client
		}()
	})
}

// Recheck implements connection.Connection.
func (k *socket) Recheck(affected func(*auth.Principal) bool) {
	if k.cred.ExpediteCheck(affected) && k.ctx.Err() == nil {
		k.timer.Reset(0)
	}
}

// stopWriting acquires the write permit for good, so that nothing follows the close frame. It
// does not wait long for a client that does not read.
func (k *socket) stopWriting() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.ctx), closeFrameTime)
	defer cancel()
	_ = k.writing.Acquire(ctx, 1)
}

// closeFrameTime is how long a close frame waits for the message being written.
const closeFrameTime = 5 * time.Second
