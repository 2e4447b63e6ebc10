// Package sse serves GraphQL over server-sent events: event streams of one operation (distinct
// connections mode of GraphQL over SSE), single connections that carry many, and the event
// streams of legacy REST routes.
//
// It owns the encoding of events, resuming by Last-Event-ID, keep-alives, and reservations:
// tokens of single connections, on which other requests of the same user start and stop operations. Admission,
// credentials, operations and limits are those of package connection.
//
// A stream takes its connection over from net/http where it can, and then outlives the
// request. A reservation counts as a connection from PUT until its stream has closed, or until
// no stream came within Config.InitTime:
//
//	reserved ── GET with the token ──▶ open ── client gone, credential ended, drain ──▶ closing
//	    │  operations may start, their results wait for the stream                          ▲
//	    └── no stream in time ──────────────────────────────────────────────────────────────┘
//
// A stream that we close says why: an error that a new credential or a later attempt mends as
// the last response, otherwise a comment and retry: so that EventSource reconnects.
package sse

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// Server serves event streams. Its methods are safe for concurrent use.
type Server struct {
	connections *connection.Manager
	cfg         connection.Config

	mu           sync.Mutex
	reservations map[string]*reservation // by token
}

// New returns a Server whose streams are counted and closed by the manager.
func New(connections *connection.Manager) *Server {
	return &Server{connections: connections, cfg: connections.Config(), reservations: map[string]*reservation{}}
}

// Allow returns why an operation that could run must not, nil if it may.
type Allow func(*executor.Operation) error

// EventEncoder returns the event for a response: its name, empty for that of plain messages,
// and its data, which is JSON; no data for no event.
type EventEncoder func(*graphql.Response) (name string, data []byte)

// Serve answers with an event stream of the operation's results (distinct connections mode).
// The stream may outlive the call. An error means that nothing was answered, and the caller
// must. What is wrong with the document is an event of the stream, since browsers show a page
// nothing of another answer; allow may refuse the operation by other rules.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, caller connection.Caller, req executor.Request, allow Allow) error {
	st := s.newStreamOf(r, caller)
	op, refusal := s.connections.Prepare(st.ctx, resumeAfter(r, req))
	if refusal == nil {
		if err := allow(op); err != nil {
			st.timer.Stop()
			return err
		}
	}
	return s.serveOperation(w, r, st, op, refusal)
}

// ServeEncoded answers with an event stream of the operation in events of the encoder's, under
// the conditions of Serve.
func (s *Server) ServeEncoded(w http.ResponseWriter, r *http.Request, caller connection.Caller, op *executor.Operation, encode EventEncoder) error {
	st := s.newStreamOf(r, caller)
	st.encodeEvent = encode
	return s.serveOperation(w, r, st, op, nil)
}

// serveOperation answers with the stream of one operation, unless it is not admitted.
func (s *Server) serveOperation(w http.ResponseWriter, r *http.Request, st *stream, op *executor.Operation, refusal *executor.Refusal) error {
	if err := s.connections.Admit(st.ctx, st, st.cred.Principal()); err != nil {
		st.timer.Stop()
		return err
	}
	st.open(w, r)
	st.run(r, func() {
		defer s.connections.Release(st)
		st.runOperation(op, refusal)
	})
	return nil
}

// resumeAfter returns the request with the cursor of Last-Event-ID as its variable after. A
// browser that reconnects sends the variables of its first request again; the header is
// always younger.
func resumeAfter(r *http.Request, req executor.Request) executor.Request {
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

func (s *Server) newStreamOf(r *http.Request, caller connection.Caller) *stream {
	cred := new(connection.Credential)
	cred.Set(caller)
	return s.newStream(r, cred)
}

func (s *Server) newStream(r *http.Request, cred *connection.Credential) *stream {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	st := &stream{s: s, cancel: cancel, cred: cred, opened: time.Now(), writing: semaphore.NewWeighted(1)}
	st.ctx = auth.WithCurrent(ctx, cred.Principal)
	st.timer = time.AfterFunc(connection.UnsetDelay, st.onTimer)
	st.lock() // until there is something to write to
	return st
}
