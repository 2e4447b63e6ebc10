package connection

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// events is an event stream on its way to a client.
type events struct {
	s      *Server
	out    tail
	ctx    context.Context // its cause is the ending
	cancel context.CancelCauseFunc
	cred   *credential
	timer  *time.Timer
	opened time.Time
	show   Show     // nil to write results as GraphQL over SSE does
	conn   net.Conn // ours alone; nil if the server writes the answer

	writing  turn // guards what follows, and the writer
	deadline deadline
	over     bool // nothing more may be written
	beatAt   time.Time
	quiet    func() (cursor string) // what a keep-alive may tell; nil for nothing
}

// Allow returns why an operation that could run must not, nil if it may.
type Allow func(*executor.Operation) error

// ServeEvents answers with an event stream of the operation's results (distinct
// connections mode). The stream may outlive the call. An error means that nothing
// was answered, and the caller must. What is wrong with the document is said in
// the stream, since browsers show the page nothing of another answer; allow may
// refuse the operation by other rules.
func (s *Server) ServeEvents(w http.ResponseWriter, r *http.Request, who Caller, req executor.Request, allow Allow) error {
	e := s.eventsOf(r, who)
	op, refusal := s.exec.Prepare(e.ctx, resumed(r, req))
	if refusal == nil {
		if err := allow(op); err != nil {
			e.timer.Stop()
			return err
		}
	}
	return s.serveOne(w, r, e, op, refusal)
}

// Show returns the event that stands for a response: its name, empty for that of
// plain messages, and its data, which is JSON; no data for no event.
type Show func(*graphql.Response) (name string, data []byte)

// ServeFeed answers with an event stream of the operation that is not that of
// GraphQL, under the conditions of ServeEvents.
func (s *Server) ServeFeed(w http.ResponseWriter, r *http.Request, who Caller, op *executor.Operation, show Show) error {
	e := s.eventsOf(r, who)
	e.show = show
	return s.serveOne(w, r, e, op, nil)
}

func (s *Server) eventsOf(r *http.Request, who Caller) *events {
	cred := new(credential)
	cred.set(who)
	return s.newEvents(r, cred)
}

// serveOne answers with the stream of one operation, unless there is no room.
func (s *Server) serveOne(w http.ResponseWriter, r *http.Request, e *events, op *executor.Operation, refusal *executor.Refusal) error {
	if err := s.admit(e, ownerOf(e.ctx, e.cred.principal.Load())); err != nil {
		e.timer.Stop()
		return err
	}
	e.open(w, r)
	e.serve(r, func() {
		defer s.leave(e)
		e.performOne(op, refusal)
	})
	return nil
}

// performOne runs the one operation of the stream, from beginning to end.
func (e *events) performOne(op *executor.Operation, refusal *executor.Refusal) {
	t := &task{ctx: e.ctx, cancel: func() {}}
	e.writing.hold()
	e.quiet = t.untold
	e.writing.give()
	defer e.close(func(errs gqlerror.List) { e.fail(t, errs) })
	if refusal != nil {
		e.fail(t, refusal.Errors)
		return
	}
	e.s.perform(t, op, e)
}

// resumed returns the request with the cursor of Last-Event-ID as its variable
// after. A browser that reconnects sends the variables of its first request
// again; the header is always younger.
func resumed(r *http.Request, req executor.Request) executor.Request {
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		return req
	}
	variables := map[string]any{}
	maps.Copy(variables, req.Variables)
	variables["after"] = last
	req.Variables = variables
	return req
}

func (s *Server) newEvents(r *http.Request, cred *credential) *events {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	e := &events{s: s, cancel: cancel, cred: cred, opened: time.Now(), writing: newTurn()}
	e.ctx = auth.WithCurrent(ctx, cred.principal.Load)
	e.timer = time.AfterFunc(never, e.tick)
	e.writing.hold() // until there is something to write to
	return e
}

// open sends the head of the answer, with a comment that makes proxies pass it on.
func (e *events) open(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Add("Vary", "Accept")
	if out := detach(w, r); out != nil {
		e.conn, e.out = out.Conn, out
	} else {
		e.out = answer{w, http.NewResponseController(w)}
		w.WriteHeader(http.StatusOK)
	}
	e.schedule() // before a client can keep us waiting
	e.send([]byte(":\n\n"))
	e.writing.give()
}

// serve runs what fills the stream until the client goes: at once and without
// the request, if the connection is ours, else before it returns.
func (e *events) serve(r *http.Request, fill func()) {
	guarded := func() {
		defer e.cancel(nil)
		e.s.guarded(e.ctx, e, fill)
	}
	if e.conn == nil {
		defer context.AfterFunc(r.Context(), func() { e.cancel(nil) })()
		guarded()
		return
	}
	go func() {
		awaitHangUp(e.conn)
		e.cancel(nil)
	}()
	go guarded()
}

// end implements connection.
func (e *events) end(why *ending) { e.cancel(why) }

// recheck implements connection.
func (e *events) recheck(concerns func(*auth.Principal) bool) {
	if e.cred.hasten(concerns) && e.ctx.Err() == nil {
		e.timer.Reset(0)
	}
}

// close says why the stream ends, if we end it, and writes nothing after that.
func (e *events) close(tell func(gqlerror.List)) {
	why := endingOf(e.ctx)
	switch {
	case why == nil:
	case why.fault != nil:
		tell(executor.Refuse(why.fault).Errors)
	default:
		e.comment(why.reason)
	}
	e.writing.hold()
	e.over = true
	_ = e.out.Close() // what fails here is the connection
	e.writing.give()
	e.timer.Stop()
	reason := ""
	if why != nil {
		reason = why.reason
	}
	e.s.logEnd(e.ctx, "event stream closed", slog.String("reason", reason), slog.Duration("duration", time.Since(e.opened)))
}

// comment asks the client to come again, and tells people why.
func (e *events) comment(reason string) {
	e.writing.hold()
	defer e.writing.give()
	e.send([]byte("retry: " + strconv.FormatInt(retryTime.Milliseconds(), 10) + "\n: " + reason + "\n\n"))
}

// next implements sink.
func (e *events) next(t *task, resp *executor.Response) {
	cursor, only := executor.Cursor(resp.Response)
	defer t.reach(cursor, only)
	if only {
		return
	}
	name, text, err := e.words(resp)
	switch {
	case err != nil:
		e.noWords(err)
		return
	case text == nil:
		return
	}
	writeEvent(t.batch.buffer(), name, cursor, text)
	if t.batch.full() {
		e.flush(t)
	}
}

// words returns the event that stands for a response, in one line.
func (e *events) words(resp *executor.Response) (name string, line []byte, err error) {
	if e.show == nil {
		line, err = resp.Encoded(encode)
		return "next", line, err
	}
	name, line = e.show(resp.Response)
	oneLine(line)
	return name, line, nil
}

// flush implements sink.
func (e *events) flush(t *task) {
	if out := t.batch.take(); out != nil {
		e.writing.hold()
		e.send(out.Bytes())
		e.writing.give()
		giveBuffer(out)
	}
}

// fail implements sink.
func (e *events) fail(t *task, errs gqlerror.List) {
	if e.show != nil {
		name, data := e.show(&graphql.Response{Errors: errs})
		e.event(name, json.RawMessage(data))
		return
	}
	e.event("next", map[string]any{"errors": errs})
	e.complete(t)
}

// complete implements sink.
func (e *events) complete(*task) {
	if e.show == nil {
		e.event("complete", nil)
	}
}

// event writes one event. One without data has an empty line of it, without
// which browsers drop the event.
func (e *events) event(name string, data any) { e.eventWhile(context.Background(), name, data) }

// eventWhile writes one event, unless ctx ends before its turn comes.
func (e *events) eventWhile(ctx context.Context, name string, data any) {
	text, out := takeBuffer(), takeBuffer()
	defer giveBuffer(text)
	defer giveBuffer(out)
	if data != nil {
		if err := jsoncodec.Encode(text, data); err != nil {
			e.noWords(err)
			return
		}
	}
	oneLine(text.Bytes())
	writeEvent(out, name, "", text.Bytes())
	if !e.writing.take(ctx) {
		return
	}
	defer e.writing.give()
	if ctx.Err() == nil {
		e.send(out.Bytes())
	}
}

func (e *events) noWords(err error) {
	e.s.log.ErrorContext(e.ctx, "an event could not be encoded", "error", err)
	e.end(endInternal)
}

// writeEvent appends an event of one line of data.
func writeEvent(out *bytes.Buffer, name, id string, line []byte) {
	if name != "" {
		out.WriteString("event: " + name + "\n")
	}
	if storable(id) {
		out.WriteString("id: " + id + "\n")
	}
	out.WriteString("data: ")
	out.Write(line)
	out.WriteString("\n\n")
}

// storable reports whether a cursor can be the id of an event.
func storable(id string) bool { return id != "" && !strings.ContainsAny(id, "\r\n\x00") }

// send sends text. A client that does not take it in time loses its stream. The
// caller has the turn.
func (e *events) send(text []byte) {
	if e.over {
		return
	}
	e.beatAt = time.Now().Add(e.s.cfg.KeepAlive)
	if _, err := e.deadline.writeAll(e.out, text, e.s.cfg.StallTime, func() {}); err != nil {
		e.over = true
		e.cancel(endDead)
	}
}

// tick looks at the credential and keeps a quiet stream alive.
func (e *events) tick() {
	e.s.guarded(e.ctx, e, func() {
		if why := e.cred.check(e.ctx, e.s.cfg.CheckTime); why != nil {
			e.end(why)
			return
		}
		e.beat()
		e.schedule()
	})
}

// beat sends a sign of life if it is time to: how far a quiet subscription has
// come, which a client keeps as if it came with an event, or else a comment.
func (e *events) beat() {
	if !e.writing.try() {
		return // what is being written is a sign of life
	}
	defer e.writing.give()
	if time.Now().Before(e.beatAt) {
		return
	}
	if e.quiet != nil {
		if cursor := e.quiet(); storable(cursor) {
			e.send([]byte("id: " + cursor + "\n\n"))
			return
		}
	}
	e.send([]byte(":\n\n"))
}

func (e *events) schedule() {
	due := time.Now().Add(e.s.cfg.KeepAlive)
	if e.writing.try() {
		due = e.beatAt
		e.writing.give()
	}
	if at, ok := e.cred.next(e.s.cfg.CheckTime); ok && at.Before(due) {
		due = at
	}
	if e.ctx.Err() == nil {
		e.timer.Reset(max(time.Until(due), time.Millisecond))
	}
}
