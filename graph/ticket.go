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

// createStreamTicket returns a ticket for the operation if that can be executed. A
// browser would get no reason if the stream failed only when it opens.
func (r *Resolver) createStreamTicket(ctx context.Context, in model.CreateStreamTicketInput) (*session.Ticket, error) {
	req := executor.Request{Query: in.Query, OperationName: optionalText(in.OperationName)}
	var err error
	if req.Variables, err = decodeVariables(in.Variables.Value()); err != nil {
		return nil, err
	}
	op, refusal := r.prepare(ctx, req)
	switch {
	case refusal != nil:
		return nil, inputErrors(refusal)
	case op.Kind() == ast.Mutation:
		return nil, fault.New(fault.BadInput, "A ticket is for a subscription or a query; mutations are sent by POST.").At("query")
	}
	purpose, err := executor.Pack(req)
	if err != nil {
		return nil, err
	}
	return r.domains.Sessions.CreateTicket(ctx, purpose)
}

// decodeVariables reads a JSON object, numbers as they are written; empty text and null
// are an empty object.
func decodeVariables(text json.RawMessage) (fields map[string]any, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		return nil, fault.New(fault.BadInput, "The variables must be a JSON object.").At("variables")
	}
	return fields, nil
}

// inputErrors returns the errors of a refused document as errors of the input field that
// holds it.
func inputErrors(refusal *executor.Refusal) error {
	field := "query"
	if refusal.Stage == executor.StageCoerce {
		field = "variables"
	}
	var errs []error
	for _, e := range refusal.Errors {
		code, _ := e.Extensions["code"].(string)
		errs = append(errs, fault.New(fault.Code(code), "%s", e.Message).At(field))
	}
	return errors.Join(errs...)
}
