package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
)

// streamTicket makes a ticket for the operation, if that could run: who finds
// out only when the stream opens, in a browser, is told nothing.
func (r *Resolver) streamTicket(ctx context.Context, in model.CreateStreamTicketInput) (*session.Ticket, error) {
	req := executor.Request{Query: in.Query, OperationName: text(in.OperationName)}
	var err error
	if req.Variables, err = object(in.Variables.Value()); err != nil {
		return nil, err
	}
	op, refusal := r.prepare(ctx, req)
	switch {
	case refusal != nil:
		return nil, mendable(refusal)
	case op.Kind() == ast.Mutation:
		return nil, fault.New(fault.Invalid, fault.BadInput, "A ticket is for a subscription or a query; mutations are sent by POST.").At("query")
	}
	purpose, err := executor.Pack(req)
	if err != nil {
		return nil, err
	}
	return r.sessions.CreateTicket(ctx, purpose)
}

// object reads a JSON object, numbers as they are written; nothing and null are
// an empty one.
func object(text json.RawMessage) (fields map[string]any, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		return nil, fault.New(fault.Invalid, fault.BadInput, "The variables must be a JSON object.").At("variables")
	}
	return fields, nil
}

// mendable returns what is wrong with a document as errors of the input that
// holds it.
func mendable(refusal *executor.Refusal) error {
	field := "query"
	if refusal.Stage == executor.StageCoerce {
		field = "variables"
	}
	var errs []error
	for _, e := range refusal.Errors {
		code, _ := e.Extensions["code"].(string)
		errs = append(errs, fault.New(fault.Invalid, fault.Code(code), "%s", e.Message).At(field))
	}
	return errors.Join(errs...)
}
