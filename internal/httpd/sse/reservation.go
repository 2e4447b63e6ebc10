package sse

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
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/httpd/outbound"
	"github.com/backplane-dev/backplane/internal/problem"
)

// reservation is a single connection: one event stream that carries the results of many
// operations, which other requests start. It closes with its stream, or if none comes in time.
// It implements connection.Connection and connection.ResultWriter.
type reservation struct {
	s          *Server
	token      string
	ctx        context.Context
	cancel     context.CancelCauseFunc
	cred       connection.Credential
	operations *connection.Operations
	timer      *time.Timer // until the stream comes
	closing    sync.Once

	mu     sync.Mutex
	stream *stream       // nil before it is open
	opened chan struct{} // closed when it is
	served chan struct{} // closed when it has closed
}

// Reserve makes a reservation and returns its token, by which the other methods find it. The
// token names the reservation and is no credential, since it may stand in URLs.
func (s *Server) Reserve(ctx context.Context, caller connection.Caller) (token string, err error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	v := &reservation{
		s: s, token: rand.Text(), cancel: cancel, operations: connection.NewOperations(s.cfg.Operations),
		opened: make(chan struct{}), served: make(chan struct{}),
	}
	v.ctx = auth.WithCurrent(ctx, v.cred.Principal)
	v.cred.Set(caller)
	v.timer = time.AfterFunc(connection.UnsetDelay, func() { v.Close(connection.ReasonInitTimeout) })
	if err := s.connections.Admit(ctx, v, caller.Principal); err != nil {
		cancel(nil)
		v.timer.Stop()
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.ctx.Err() == nil { // else it was closed as soon as it was admitted
		s.reservations[v.token] = v
		v.timer.Reset(s.cfg.InitTime)
	}
	return v.token, nil
}

// findReservation returns the reservation of the token for a caller that may use it: the user
// that made it, by a credential in each request, or anonymous callers if one of them made it. A
// newer credential of the user renews that of the reservation.
func (s *Server) findReservation(token string, caller connection.Caller) (*reservation, error) {
	s.mu.Lock()
	v := s.reservations[token]
	s.mu.Unlock()
	if v == nil {
		return nil, connection.ErrNoStream()
	}
	switch owned := v.cred.Principal() != nil; {
	case owned && caller.Principal == nil:
		return nil, fault.New(fault.Unauthenticated, "This reservation was made with a credential; send it with each request.")
	case !owned && caller.Principal != nil:
		return nil, fault.New(fault.Unauthenticated, "This reservation was made without a credential; reserve another stream.")
	case !owned:
		return v, nil
	}
	if reason := s.connections.RenewCredential(v.ctx, v, &v.cred, caller); reason != nil {
		return nil, reason.Fault
	}
	return v, nil
}

// ServeReserved answers with the event stream of a reservation. The stream may outlive the
// call. An error means that nothing was answered.
func (s *Server) ServeReserved(w http.ResponseWriter, r *http.Request, caller connection.Caller, token string) error {
	v, err := s.findReservation(token, caller)
	if err != nil {
		return err
	}
	st := s.newStream(r, &v.cred)
	if !v.attach(st) {
		st.timer.Stop()
		return problem.New(http.StatusConflict, fault.New(fault.BadRequest, "The event stream of this reservation is open already."))
	}
	context.AfterFunc(v.ctx, func() { st.cancel(context.Cause(v.ctx)) })
	st.open(w, r)
	close(v.opened)
	st.run(r, func() {
		defer close(v.served)
		defer v.Close(connection.ReasonClosed)
		defer st.finish(v.writeErrorsToAll)
		<-st.ctx.Done()
	})
	return nil
}

// attach makes st the one event stream of the reservation; it reports false if there was one.
// The caller opens the stream and closes opened.
func (v *reservation) attach(st *stream) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stream != nil || v.ctx.Err() != nil {
		return false
	}
	v.timer.Stop()
	v.stream = st
	return true
}

// Start starts an operation whose results go to the event stream of the reservation under the
// id. It returns a refusal of the document, or an error: NotFound for the reservation,
// the status 409 for a live id, LIMIT_REACHED.
func (s *Server) Start(token, id string, caller connection.Caller, req executor.Request, allow Allow) (*executor.Refusal, error) {
	v, err := s.findReservation(token, caller)
	if err != nil {
		return nil, err
	}
	if id == "" || len(id) > connection.MaxIDBytes {
		return nil, fault.New(fault.BadRequest, "The extension operationId must be text of 1 to %d bytes.", connection.MaxIDBytes)
	}
	op, refusal := s.connections.Prepare(v.ctx, req)
	if refusal != nil {
		return refusal, nil
	}
	if err := allow(op); err != nil {
		return nil, err
	}
	o, err := v.operations.Start(v.ctx, id)
	if errors.Is(err, connection.ErrDuplicateID) {
		return nil, problem.New(http.StatusConflict, fault.New(fault.BadRequest, "There is a live operation with this operationId."))
	}
	if err != nil {
		return nil, err
	}
	go func() {
		defer v.operations.Finish(o)
		s.connections.Guard(v.ctx, v, func() { s.connections.Run(o, v, &v.cred, op, v) })
	}()
	return nil, nil
}

// Stop stops an operation of a reservation, if it is live. Its error is NotFound for the
// reservation.
func (s *Server) Stop(token, id string, caller connection.Caller) error {
	v, err := s.findReservation(token, caller)
	if err == nil {
		v.operations.Stop(id)
	}
	return err
}

// Close implements connection.Connection.
func (v *reservation) Close(reason *connection.CloseReason) {
	v.closing.Do(func() {
		v.cancel(reason)
		v.timer.Stop()
		v.s.mu.Lock()
		delete(v.s.reservations, v.token)
		v.s.mu.Unlock()
		go func() {
			v.operations.Close()
			v.mu.Lock()
			opened := v.stream != nil
			v.mu.Unlock()
			if opened {
				<-v.served
			}
			v.s.connections.Release(v)
		}()
	})
}

// Recheck implements connection.Connection. Before the stream comes, no client is shown
// anything.
func (v *reservation) Recheck(affected func(*auth.Principal) bool) {
	select {
	case <-v.opened:
		v.stream.Recheck(affected)
	default:
	}
}

var _ connection.ResultWriter = (*reservation)(nil)

// WriteResult implements connection.ResultWriter. It waits for the stream, which is written
// event by event: many operations share it.
func (v *reservation) WriteResult(o *connection.Operation, resp *executor.Response) {
	if _, only := executor.ResponseCursor(resp.Response); only {
		return
	}
	text, err := resp.Encoded(outbound.EncodeResponse)
	if err != nil {
		v.s.connections.CloseOnEncodeError(v.ctx, v, err)
		return
	}
	v.writeEvent(o, "next", taggedResult{o.ID, text})
}

// Flush implements connection.ResultWriter.
func (v *reservation) Flush(*connection.Operation) {}

// WriteErrors implements connection.ResultWriter.
func (v *reservation) WriteErrors(o *connection.Operation, errs gqlerror.List) {
	v.writeEvent(o, "next", map[string]any{"id": o.ID, "payload": map[string]any{"errors": errs}})
	v.WriteComplete(o)
}

// WriteComplete implements connection.ResultWriter. The id is free before the client can know.
func (v *reservation) WriteComplete(o *connection.Operation) {
	if v.awaitStream(o) && v.operations.Remove(o) {
		v.stream.writeEvent(context.Background(), "complete", map[string]any{"id": o.ID})
	}
}

// writeErrorsToAll writes to every live operation why it ends.
func (v *reservation) writeErrorsToAll(errs gqlerror.List) {
	for _, o := range v.operations.Live() {
		v.stream.writeEvent(context.Background(), "next", map[string]any{"id": o.ID, "payload": map[string]any{"errors": errs}})
		v.stream.writeEvent(context.Background(), "complete", map[string]any{"id": o.ID})
	}
}

// writeEvent writes an event of a live operation, once the stream is open.
func (v *reservation) writeEvent(o *connection.Operation, name string, data any) {
	if v.awaitStream(o) {
		v.stream.writeEvent(o.Context(), name, data)
	}
}

// awaitStream waits for the stream; it reports false if the operation ends before.
func (v *reservation) awaitStream(o *connection.Operation) bool {
	select {
	case <-v.opened:
		return o.Context().Err() == nil
	case <-o.Context().Done():
		return false
	}
}

// taggedResult is the result of one of many operations on a stream.
type taggedResult struct {
	id      string
	payload []byte // JSON
}

// EncodeTo implements jsoncodec.Encoder.
func (r taggedResult) EncodeTo(out *bytes.Buffer) error {
	out.WriteString(`{"id":`)
	if err := jsoncodec.Encode(out, r.id); err != nil {
		return err
	}
	out.WriteString(`,"payload":`)
	out.Write(r.payload)
	out.WriteByte('}')
	return nil
}
