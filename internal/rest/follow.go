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

// problemEvent is the name of the event that carries a problem document. The name error
// is taken: browsers use it for a lost connection.
const problemEvent = "problem"

// Follow returns the subscription of a request for an event stream, and a function that
// turns its responses into events. An error means that no subscription serves the
// request.
func (s *Shim) Follow(r *http.Request) (*executor.Operation, func(*graphql.Response) (name string, data []byte), error) {
	e, err := s.paths[r.Pattern].endpointFor(r.Method)
	if err != nil {
		return nil, nil, err
	}
	if s.cfg.OnCall != nil {
		s.cfg.OnCall(r.Context(), e.name)
	}
	rt, err := e.selectRoute(r, ast.Subscription)
	if err != nil {
		return nil, nil, err
	}
	in, err := s.bindRequest(r, rt)
	if err != nil {
		return nil, nil, err
	}
	op, err := s.prepareOperation(r.Context(), rt, in)
	if err != nil {
		return nil, nil, err
	}
	return op, func(resp *graphql.Response) (string, []byte) { return rt.streamEvent(r, in, resp) }, nil
}

// streamEvent returns the event of a response: the result as an unnamed event, or a
// problem document.
func (rt *route) streamEvent(r *http.Request, in *boundRequest, resp *graphql.Response) (name string, data []byte) {
	var err error = fault.New(fault.Internal, "Something went wrong on our side.")
	if len(resp.Errors) > 0 {
		err = rt.problemOf(in, faultOf(resp.Errors[0]))
	} else if value := findPath(resp.Data, rt.answer.path); len(value) > 0 && string(value) != "null" {
		data, _ = rt.answer.view.appendValue(nil, value)
		return "", data
	}
	doc, _ := json.Marshal(problem.NewDocument(r, problem.SetHeaders(http.Header{}, r, err), err)) // plain text and numbers
	return problemEvent, doc
}
