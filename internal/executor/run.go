package executor

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Run executes a query or mutation and returns its response, never nil. The
// context that resolvers get ends after Limits.Time.
func (x *Executor) Run(ctx context.Context, op *Operation) *graphql.Response {
	ctx, cancel := context.WithTimeout(ctx, x.limits.Time)
	defer cancel()
	if op.Kind() == ast.Subscription {
		return x.failed(ctx, fault.New(fault.Invalid, fault.BadRequest, "A subscription needs a transport that streams."))
	}
	stream := x.Stream(ctx, op)
	defer stream.Close()
	resp := stream.Next(ctx, func() {})
	if resp == nil {
		return x.failed(ctx, context.Cause(ctx))
	}
	return resp.Response
}

// next yields one response with its errors, under a presenter of its own and within
// the limit of bytes.
func (x *Executor) next(ctx context.Context, responses graphql.ResponseHandler) (resp *graphql.Response) {
	ctx = x.withPresenter(ctx)
	defer func() {
		if r := recover(); r != nil {
			resp = x.failed(ctx, recovered(ctx, r))
		}
	}()
	resp = x.cfg.AroundResponse(ctx, func(ctx context.Context) *graphql.Response {
		resp := responses(ctx)
		if resp == nil {
			return nil
		}
		resp.Errors = append(resp.Errors, graphql.GetErrors(ctx)...)
		resp.Extensions = graphql.GetExtensions(ctx)
		return progressOnly(resp)
	})
	if resp != nil && len(resp.Data) > x.limits.Response {
		return x.tooLarge(ctx, resp)
	}
	return resp
}

// tooLarge stands for a response that is too large. It keeps the cursor: a
// subscription goes on behind it.
func (x *Executor) tooLarge(ctx context.Context, resp *graphql.Response) *graphql.Response {
	refusal := x.failed(ctx, fault.New(fault.Invalid, fault.ResponseTooLarge,
		"The response is larger than %d bytes: ask for fewer fields or shorter lists.", x.limits.Response))
	refusal.Extensions = resp.Extensions
	return refusal
}

// guard starts the schema; a panic in it becomes a response.
func (x *Executor) guard(ctx context.Context, exec func(context.Context) graphql.ResponseHandler) (h graphql.ResponseHandler) {
	defer func() {
		if r := recover(); r != nil {
			h = graphql.OneShot(x.failed(ctx, recovered(ctx, r)))
		}
	}()
	return exec(ctx)
}

func (x *Executor) withPresenter(ctx context.Context) context.Context {
	p := &presenter{log: x.log, limit: x.limits.Errors, logged: map[string]bool{}}
	return graphql.WithResponseContext(ctx, p.present, recovered)
}

// failed is the response of an operation that ended without one.
func (x *Executor) failed(ctx context.Context, err error) *graphql.Response {
	ctx = x.withPresenter(ctx)
	graphql.AddError(ctx, err)
	return &graphql.Response{Errors: graphql.GetErrors(ctx)}
}
