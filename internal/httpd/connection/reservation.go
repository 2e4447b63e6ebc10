package connection

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// reservation is a single connection: a place for one event stream that carries
// the results of many operations, which other requests ask for. It ends with its
// stream, or if none comes in time.
type reservation struct {
	s      *Server
	token  string
	ctx    context.Context
	cancel context.CancelCauseFunc
	cred   credential
	tasks  tasks
	timer  *time.Timer // until the stream comes
	ending sync.Once

	mu     sync.Mutex
	events *events       // nil before it is open
	opened chan struct{} // closed when it is
	served chan struct{} // closed when it is over
}

// Reserve makes a reservation and returns its token, by which the other methods
// find it. The token is a secret of the caller.
func (s *Server) Reserve(ctx context.Context, who Caller) (token string, err error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	v := &reservation{s: s, token: rand.Text(), cancel: cancel, tasks: tasks{places: newTurns(s.cfg.Operations)}, opened: make(chan struct{}), served: make(chan struct{})}
	v.ctx = auth.WithCurrent(ctx, v.cred.principal.Load)
	v.cred.set(who)
	v.timer = time.AfterFunc(never, func() { v.end(endNoInit) })
	if err := s.admit(v, ownerOf(ctx, who.Principal)); err != nil {
		cancel(nil)
		v.timer.Stop()
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.ctx.Err() == nil { // else it was ended as soon as it was admitted
		s.reservations[v.token] = v
		v.timer.Reset(s.cfg.InitTime)
	}
	return v.token, nil
}

// reserved returns the reservation of the token for a caller who may use it: any
// if they do not say who they are, else the user who made it. A younger token of
// that user renews the credential.
func (s *Server) reserved(token string, who Caller) (*reservation, error) {
	s.mu.Lock()
	v := s.reservations[token]
	s.mu.Unlock()
	if v == nil {
		return nil, errGone()
	}
	if who.Principal == nil {
		return v, nil
	}
	if why := s.adopt(v.ctx, v, &v.cred, who); why != nil {
		return nil, why.fault
	}
	return v, nil
}

func errGone() error {
	return fault.New(fault.NotFound, fault.BadRequest, "There is no event stream, and no reservation of one, with this token.")
}

// ServeReserved answers with the event stream of a reservation. The stream may
// outlive the call. An error means that nothing was answered.
func (s *Server) ServeReserved(w http.ResponseWriter, r *http.Request, who Caller, token string) error {
	v, err := s.reserved(token, who)
	if err != nil {
		return err
	}
	e := s.newEvents(r, &v.cred)
	if !v.claim(e) {
		e.timer.Stop()
		return fault.New(fault.Conflict, fault.BadRequest, "The event stream of this reservation is open already.")
	}
	context.AfterFunc(v.ctx, func() { e.cancel(context.Cause(v.ctx)) })
	e.open(w, r)
	close(v.opened)
	e.serve(r, func() {
		defer close(v.served)
		defer v.end(endClosed)
		defer e.close(v.failAll)
		<-e.ctx.Done()
	})
	return nil
}

// claim makes e the one event stream of the reservation. The caller opens it and
// closes opened.
func (v *reservation) claim(e *events) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.events != nil || v.ctx.Err() != nil {
		return false
	}
	v.timer.Stop()
	v.events = e
	return true
}

// Operate begins an operation whose results go to the event stream of the
// reservation under the id. It returns a refusal of the document, or an error:
// NotFound for the reservation, Conflict for the id, LIMIT_REACHED.
func (s *Server) Operate(token, id string, who Caller, req executor.Request, allow Allow) (*executor.Refusal, error) {
	v, err := s.reserved(token, who)
	if err != nil {
		return nil, err
	}
	if id == "" || len(id) > maxID {
		return nil, fault.New(fault.Invalid, fault.BadRequest, "The extension operationId must be text of 1 to %d bytes.", maxID)
	}
	op, refusal := s.exec.Prepare(v.ctx, req)
	if refusal != nil {
		return refusal, nil
	}
	if err := allow(op); err != nil {
		return nil, err
	}
	t, err := v.tasks.begin(v.ctx, id)
	if errors.Is(err, errDuplicate) {
		return nil, fault.New(fault.Conflict, fault.BadRequest, "There is a live operation with this operationId.")
	}
	if err != nil {
		return nil, err
	}
	go func() {
		defer v.tasks.done(t)
		s.guarded(v.ctx, v, func() { s.perform(t, op, v) })
	}()
	return nil, nil
}

// Stop ends an operation of a reservation, if it lives. Its error is NotFound
// for the reservation.
func (s *Server) Stop(token, id string, who Caller) error {
	v, err := s.reserved(token, who)
	if err == nil {
		v.tasks.stop(id)
	}
	return err
}

// end implements connection.
func (v *reservation) end(why *ending) {
	v.ending.Do(func() {
		v.cancel(why)
		v.timer.Stop()
		v.s.mu.Lock()
		delete(v.s.reservations, v.token)
		v.s.mu.Unlock()
		go func() {
			v.tasks.wait()
			v.mu.Lock()
			opened := v.events != nil
			v.mu.Unlock()
			if opened {
				<-v.served
			}
			v.s.leave(v)
		}()
	})
}

// recheck implements connection. Before its stream comes, nothing is shown to
// anybody.
func (v *reservation) recheck(concerns func(*auth.Principal) bool) {
	select {
	case <-v.opened:
		v.events.recheck(concerns)
	default:
	}
}

// next implements sink. It waits for the stream, which is written event by
// event: many operations share it.
func (v *reservation) next(t *task, resp *executor.Response) {
	if _, only := executor.Cursor(resp.Response); only {
		return
	}
	text, err := resp.Encoded(encode)
	if err != nil {
		v.s.log.ErrorContext(v.ctx, "an event could not be encoded", "error", err)
		v.end(endInternal)
		return
	}
	v.event(t, "next", tagged{t.id, text})
}

// flush implements sink.
func (v *reservation) flush(*task) {}

// fail implements sink.
func (v *reservation) fail(t *task, errs gqlerror.List) {
	v.event(t, "next", map[string]any{"id": t.id, "payload": map[string]any{"errors": errs}})
	v.complete(t)
}

// complete implements sink. The id is free before the client can know.
func (v *reservation) complete(t *task) {
	if v.ready(t) && v.tasks.remove(t) {
		v.events.event("complete", map[string]any{"id": t.id})
	}
}

// failAll tells every live operation why it ends.
func (v *reservation) failAll(errs gqlerror.List) {
	for _, t := range v.tasks.all() {
		v.events.event("next", map[string]any{"id": t.id, "payload": map[string]any{"errors": errs}})
		v.events.event("complete", map[string]any{"id": t.id})
	}
}

// event writes an event of a live operation, once the stream is open.
func (v *reservation) event(t *task, name string, data any) {
	if v.ready(t) {
		v.events.eventWhile(t.ctx, name, data)
	}
}

// ready waits for the stream; it reports false if the operation ends before.
func (v *reservation) ready(t *task) bool {
	select {
	case <-v.opened:
		return t.ctx.Err() == nil
	case <-t.ctx.Done():
		return false
	}
}

// tagged is the result of one of many operations on a stream.
type tagged struct {
	id      string
	payload []byte // JSON
}

// EncodeTo implements wire.Encoder.
func (g tagged) EncodeTo(out *bytes.Buffer) error {
	out.WriteString(`{"id":`)
	if err := jsoncodec.Encode(out, g.id); err != nil {
		return err
	}
	out.WriteString(`,"payload":`)
	out.Write(g.payload)
	out.WriteByte('}')
	return nil
}
