package rest

import (
	"encoding/json"
	"net/http"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// problemEvent is the name of the event by which a stream says that it went wrong.
// The name error is taken: it is what browsers call the loss of a connection.
const problemEvent = "problem"

// Follow returns the subscription that serves a request whose client wants an event
// stream, and the events that stand for its responses. An error means that there is
// none for it.
func (s *Shim) Follow(r *http.Request) (*executor.Operation, func(*graphql.Response) (name string, data []byte), error) {
	e, err := s.paths[r.Pattern].endpoint(r.Method)
	if err != nil {
		return nil, nil, err
	}
	if s.cfg.Used != nil {
		s.cfg.Used(r.Context(), e.name)
	}
	rt, err := e.pick(r, ast.Subscription)
	if err != nil {
		return nil, nil, err
	}
	in, err := s.bind(r, rt)
	if err != nil {
		return nil, nil, err
	}
	op, err := s.prepare(r.Context(), rt, in)
	if err != nil {
		return nil, nil, err
	}
	return op, func(resp *graphql.Response) (string, []byte) { return rt.event(r, in, resp) }, nil
}

// event returns the event that stands for a response: what happened as a plain
// message, or the problem document of what went wrong.
func (rt *route) event(r *http.Request, in *bound, resp *graphql.Response) (name string, data []byte) {
	var err error = fault.New(fault.Internal, fault.InternalError, "Something went wrong on our side.")
	if len(resp.Errors) > 0 {
		err = rt.failed(in, faultOf(resp.Errors[0]))
	} else if value := findAll(resp.Data, rt.answer.way); len(value) > 0 && string(value) != "null" {
		data, _ = rt.answer.view.append(nil, value)
		return "", data
	}
	doc, _ := json.Marshal(problem.NewDocument(r, problem.SetHeaders(http.Header{}, err), err)) // plain text and numbers
	return problemEvent, doc
}
