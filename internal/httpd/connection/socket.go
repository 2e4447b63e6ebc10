package connection

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
)

// socket is a WebSocket. One goroutine reads it, one runs for each operation,
// and a timer does the rest.
type socket struct {
	s       *Server
	ws      *websocket.Conn
	line    *line
	dialect *dialect
	ctx     context.Context // of all operations; its cause is the ending
	cancel  context.CancelCauseFunc
	cred    credential
	tasks   tasks
	opened  time.Time
	timer   *time.Timer
	ending  sync.Once
	ready   chan struct{} // closed once there is a socket, or will be none
	closed  chan struct{} // closed after the close frames

	writing turn // from deciding that a message may be sent until it is

	inited bool         // by the reader alone
	acked  atomic.Bool  // operations may begin
	used   atomic.Int64 // Unix time in nanoseconds of the last message

	ticking  sync.Mutex
	nextBeat time.Time
	beating  atomic.Bool            // signs of life are on their way
	pong     atomic.Pointer[[]byte] // the answer to the last ping, until it is sent
}

// ServeSocket makes a WebSocket of the request, or refuses to by an error that
// the caller must answer with. It returns at once: the socket lives on without
// the request. Whoever calls has checked the origin, and knows the caller by the
// Authorization header, if there is one.
func (s *Server) ServeSocket(w http.ResponseWriter, r *http.Request, who Caller) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	now := time.Now()
	k := &socket{s: s, cancel: cancel, opened: now, nextBeat: now.Add(s.cfg.KeepAlive), ready: make(chan struct{}), closed: make(chan struct{}), writing: newTurn(), tasks: tasks{places: newTurns(s.cfg.Operations)}}
	k.ctx = auth.WithCurrent(ctx, k.cred.principal.Load)
	k.cred.set(who)
	k.timer = time.AfterFunc(never, k.tick)
	if err := s.admit(k, ownerOf(ctx, who.Principal)); err != nil {
		k.abandon()
		return err
	}
	if !k.upgrade(w, r) {
		k.abandon()
		s.leave(k)
		return nil
	}
	go k.run()
	return nil
}

// upgrade makes the connection of the request ours; it reports false if the request
// was answered instead.
func (k *socket) upgrade(w http.ResponseWriter, r *http.Request) bool {
	lw := &lineWriter{ResponseWriter: w, stallTime: k.s.cfg.StallTime}
	ws, err := websocket.Accept(lw, r, &websocket.AcceptOptions{Subprotocols: []string{transportWS.name, legacyWS.name}, InsecureSkipVerify: true, OnPingReceived: k.pinged})
	if err != nil {
		return false
	}
	ws.SetReadLimit(int64(k.s.cfg.MessageBytes))
	k.ws, k.line = ws, lw.line
	k.touch()
	close(k.ready)
	k.timer.Reset(0) // to find out what is due first
	return true
}

// never is a time that a timer which is not yet set waits.
const never = 365 * 24 * time.Hour

// abandon gives up a socket that was not to be.
func (k *socket) abandon() {
	k.cancel(nil)
	k.timer.Stop()
	close(k.ready)
}

// run reads until the socket ends, then waits for what belongs to it.
func (k *socket) run() {
	defer k.s.leave(k)
	k.s.guarded(k.ctx, k, k.serve)
	k.end(endBroken)
	k.tasks.wait()
	<-k.closed
	why := endingOf(k.ctx)
	k.s.logEnd(k.ctx, "socket closed", slog.String("subprotocol", k.ws.Subprotocol()), slog.Int("code", int(why.code)), slog.String("reason", why.reason),
		slog.Duration("duration", time.Since(k.opened)), slog.Int("operations", k.tasks.total()))
}

func (k *socket) serve() {
	switch name := k.ws.Subprotocol(); {
	case strings.EqualFold(name, transportWS.name):
		k.dialect = &transportWS
	case strings.EqualFold(name, legacyWS.name):
		k.dialect = &legacyWS
	default:
		k.end(endProtocol)
		return
	}
	for k.ctx.Err() == nil {
		if why := k.readOne(); why != nil {
			k.end(why)
			return
		}
	}
}

// readOne waits for a message and handles it.
func (k *socket) readOne() *ending {
	kind, r, err := k.ws.Reader(context.Background())
	if err != nil {
		return lost(err)
	}
	text, why := k.receive(r)
	switch {
	case why != nil:
		return why
	case kind != websocket.MessageText:
		return invalid("Messages must be text.")
	case !utf8.Valid(text):
		return endNoText
	}
	k.touch()
	m, why := decodeMessage(text)
	if why != nil {
		return why
	}
	return k.dialect.handle(k, m)
}

// receive reads the rest of a message that has begun, for a limited time.
func (k *socket) receive(r io.Reader) ([]byte, *ending) {
	_ = k.line.SetReadDeadline(time.Now().Add(k.s.cfg.MessageTime)) // fails only if reading does
	defer func() { _ = k.line.SetReadDeadline(time.Time{}) }()
	text, err := io.ReadAll(r)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, endSlow
	case err != nil:
		return nil, lost(err)
	}
	return text, nil
}

// lost is the ending of a socket that cannot be read. If the client did not
// close it and the line is not cut, it broke the protocol below ours.
func lost(err error) *ending {
	_, cut := errors.AsType[net.Error](err)
	switch {
	case cut || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe):
		return endGone
	case websocket.CloseStatus(err) != -1:
		return endClosed
	case errors.Is(err, websocket.ErrMessageTooBig):
		return &ending{code: websocket.StatusMessageTooBig, reason: "The message is too long."}
	}
	return endBroken
}

func (k *socket) touch() { k.used.Store(time.Now().UnixNano()) }

// end implements connection.
func (k *socket) end(why *ending) {
	k.ending.Do(func() {
		k.cancel(why)
		k.timer.Stop()
		go func() {
			defer close(k.closed)
			if <-k.ready; k.ws == nil {
				return
			}
			if why.code == websocket.StatusAbnormalClosure { // which no frame can carry
				_ = k.ws.CloseNow() // nobody is there to answer
				return
			}
			k.silence()
			_ = k.ws.Close(why.code, why.reason) // waits seconds at most; what fails here is the client's doing
		}()
	})
}

// recheck implements connection.
func (k *socket) recheck(concerns func(*auth.Principal) bool) {
	if k.cred.hasten(concerns) && k.ctx.Err() == nil {
		k.timer.Reset(0)
	}
}

// silence takes the turn for good, so that nothing follows the closing frame. It
// does not wait long for a client that does not read.
func (k *socket) silence() {
	wait, cancel := context.WithTimeout(context.WithoutCancel(k.ctx), closeTime)
	defer cancel()
	k.writing.take(wait)
}

// closeTime is how long a closing frame waits for what is being written.
const closeTime = 5 * time.Second

// buffers are for messages on their way out.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled is the size in bytes up to which a buffer is kept for the next message.
const maxPooled = 64 << 10

func takeBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func giveBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

// send sends a message and returns when the client has taken it or is given up.
func (k *socket) send(t *task, m outgoing) {
	text, out := takeBuffer(), takeBuffer()
	defer giveBuffer(text)
	defer giveBuffer(out)
	if err := m.writeTo(text); err != nil {
		k.noWords(err)
		return
	}
	frame(out, text.Len())
	out.Write(text.Bytes())
	k.write(t, out.Bytes())
}

func (k *socket) noWords(err error) {
	k.s.log.ErrorContext(k.ctx, "a message could not be encoded", "error", err)
	k.end(endInternal)
}

// write writes whole frames, if the operation that they belong to still lives.
// The library writes closing frames beside us, each by one call of the line, so
// that no frame lands within another; from there on, the turn is not given any
// more. It does not write pings and their answers, as it cuts a client that does
// not take them at once.
func (k *socket) write(t *task, frames []byte) {
	wait := k.ctx
	if t != nil {
		wait = t.ctx
	}
	if !k.writing.take(wait) {
		return
	}
	defer k.writing.give()
	if k.ctx.Err() != nil || t != nil && !k.tasks.holds(t) {
		return
	}
	if _, err := k.line.Write(frames); err != nil {
		k.end(endDead)
	}
}

// next implements sink.
func (k *socket) next(t *task, resp *executor.Response) {
	cursor, only := executor.Cursor(resp.Response)
	defer t.reach(cursor, only)
	if only {
		return
	}
	text, err := resp.Encoded(encode)
	if err != nil {
		k.noWords(err)
		return
	}
	if t.head == nil {
		t.head = k.dialect.headOf(t.id)
	}
	out := t.batch.buffer()
	frame(out, len(t.head)+len(text)+1)
	out.Write(t.head)
	out.Write(text)
	out.WriteByte('}')
	if t.batch.full() {
		k.flush(t)
	}
}

// flush implements sink.
func (k *socket) flush(t *task) {
	if out := t.batch.take(); out != nil {
		k.write(t, out.Bytes())
		giveBuffer(out)
	}
}

// fail implements sink.
func (k *socket) fail(t *task, errs gqlerror.List) {
	if k.tasks.remove(t) {
		k.send(nil, outgoing{k.dialect.fail, t.id, k.dialect.errors(errs)})
	}
}

// complete implements sink. The id is free before the client can know.
func (k *socket) complete(t *task) {
	if k.tasks.remove(t) {
		k.send(nil, outgoing{kind: k.dialect.complete, id: t.id})
	}
}
