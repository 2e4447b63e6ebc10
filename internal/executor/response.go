package executor

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/membudget"
)

// Response is a response of a stream. Equal subscriptions may share it, so it must not
// be changed.
type Response struct {
	*graphql.Response

	once sync.Once
	text []byte
	err  error
}

func newResponse(r *graphql.Response) *Response {
	if r == nil {
		return nil
	}
	return &Response{Response: r}
}

// Encoded returns encode's result for the response, computed once for all subscribers
// that share it. All of them must pass the same function.
func (r *Response) Encoded(encode func(*graphql.Response) ([]byte, error)) ([]byte, error) {
	r.once.Do(func() { r.text, r.err = encode(r.Response) })
	return r.text, r.err
}

// startSchema starts the operation of ctx; a panic of the schema becomes a response.
func (x *Executor) startSchema(ctx context.Context, op *Operation) (h graphql.ResponseHandler) {
	defer func() {
		if r := recover(); r != nil {
			h = graphql.OneShot(x.errorResponse(ctx, recoverPanic(ctx, r)))
		}
	}()
	return x.exec(ctx, op)
}

// executeNext returns one response with its errors, under a presenter of its own and
// within the limit of bytes.
func (x *Executor) executeNext(ctx context.Context, responses graphql.ResponseHandler) (resp *graphql.Response) {
	meter := &responseMeter{limit: int64(x.limits.Response), grant: membudget.GrantFrom(ctx)}
	ctx = withMeter(x.withPresenter(ctx), meter)
	defer func() {
		if r := recover(); r != nil {
			resp = x.errorResponse(ctx, recoverPanic(ctx, r))
		}
	}()
	resp = x.cfg.AroundResponse(ctx, func(ctx context.Context) *graphql.Response {
		resp := responses(ctx)
		if resp == nil {
			return nil
		}
		resp.Errors = append(resp.Errors, graphql.GetErrors(ctx)...)
		resp.Extensions = graphql.GetExtensions(ctx)
		return resp
	})
	return x.checkSize(ctx, resp, meter)
}

// checkSize replaces a response that is too large, for its limit or for the memory budget. It
// keeps the cursor: a subscription goes on after it.
func (x *Executor) checkSize(ctx context.Context, resp *graphql.Response, meter *responseMeter) *graphql.Response {
	if resp == nil {
		return nil
	}
	if len(resp.Data) > x.limits.Response {
		_ = meter.end(errTooLarge(meter.limit)) // which is read below
	}
	ended := meter.ended.Load()
	if ended == nil {
		return resp
	}
	refusal := x.errorResponse(ctx, ended)
	refusal.Extensions = resp.Extensions
	return refusal
}

func (x *Executor) withPresenter(ctx context.Context) context.Context {
	p := &presenter{log: x.log, limit: x.limits.Errors, onError: x.cfg.OnError, reported: map[string]bool{}}
	return graphql.WithResponseContext(ctx, p.presentError, recoverPanic)
}

// errorResponse is the response of an operation that ended without one.
func (x *Executor) errorResponse(ctx context.Context, err error) *graphql.Response {
	ctx = x.withPresenter(ctx)
	graphql.AddError(ctx, err)
	return &graphql.Response{Errors: graphql.GetErrors(ctx)}
}

// cursorKey is the extension that holds the cursor of a subscription's response.
const cursorKey = "cursor"

// SetResponseCursor sets the cursor in the event log that the client reaches with the
// response being made. Clients find it in the extension cursor, event streams also in
// id:. Resolvers and hooks call it under the context of the response; the first call
// of a response counts.
func SetResponseCursor(ctx context.Context, cursor string) {
	if graphql.GetExtension(ctx, cursorKey) == nil {
		graphql.RegisterExtension(ctx, cursorKey, cursor)
	}
}

// ResponseCursor returns the cursor that a response carries, empty if none, and whether
// it carries nothing else. Transports send a cursor alone when the stream is idle, so
// that a quiet stream does not fall behind the log's retention.
func ResponseCursor(resp *graphql.Response) (cursor string, only bool) {
	cursor, _ = resp.Extensions[cursorKey].(string)
	return cursor, cursor != "" && len(resp.Data) == 0 && len(resp.Errors) == 0
}
