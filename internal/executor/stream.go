package executor

import (
	"bytes"
	"context"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
)

// Source is where the events of a subscription come from, for one goroutine at a
// time. A resolver that begins a subscription gives it to SetSource.
type Source interface {
	// Next waits for the next turn; it calls idle before it waits. After an error
	// it is not called again.
	Next(ctx context.Context, idle func()) (Turn, error)
	// Close gives back what the source holds.
	Close()
}

// Turn is an event that a subscription is to answer next.
type Turn struct {
	At     event.Cursor    // the place that the client reaches with it
	Hand   func()          // gives the event to the schema, which then resolves it; nil if there is none, and only the place is told
	Caller *auth.Principal // for whom it is resolved
	// Rights says to whom the event looks the same: equal operations whose turns are
	// equal in At and Rights have equal responses. Empty if nobody is known to.
	Rights string
}

// sourceKey is where an operation keeps its source.
const sourceKey = "backplane.source"

// SetSource says where the events of the subscription come from that a resolver
// begins under the context.
func SetSource(ctx context.Context, s Source) {
	graphql.GetOperationContext(ctx).Stats.SetExtension(sourceKey, s)
}

// Stream is an operation that runs, for one goroutine at a time.
type Stream struct {
	x         *Executor
	op        *graphql.OperationContext
	responses graphql.ResponseHandler
	source    Source // nil if the schema brings its own events
	group     *group // of equal subscriptions; nil if there can be none
	leave     func()
	over      bool
}

// Stream starts the operation, which yields one response for a query or
// mutation, one per event for a subscription. It sets no time limit; the
// operation lives until ctx ends. The caller closes it.
func (x *Executor) Stream(ctx context.Context, op *Operation) *Stream {
	s := &Stream{x: x, leave: func() {}, op: &graphql.OperationContext{
		RawQuery:               op.request.Query,
		Variables:              op.variables,
		OperationName:          op.request.OperationName,
		Doc:                    op.document.ast,
		Operation:              op.definition,
		Extensions:             op.request.Extensions,
		DisableIntrospection:   x.cfg.DisableIntrospection,
		RecoverFunc:            recovered,
		ResolverMiddleware:     x.cfg.AroundField,
		RootResolverMiddleware: x.cfg.AroundRootField,
	}}
	start := x.withPresenter(graphql.WithOperationContext(ctx, s.op))
	s.responses = x.guard(start, x.schema.Exec)
	s.source, _ = s.op.Stats.GetExtension(sourceKey).(Source)
	if errs := graphql.GetErrors(start); errs != nil {
		s.close()
		s.responses = graphql.OneShot(&graphql.Response{Errors: errs})
	}
	if d, ok := op.digest(); ok && s.source != nil {
		s.group, s.leave = x.shares.join(d)
	}
	return s
}

// Close gives back what the stream holds.
func (s *Stream) Close() {
	s.leave()
	s.close()
}

func (s *Stream) close() {
	if s.source != nil {
		s.source.Close()
		s.source = nil
	}
}

// Next returns the next response, or nil after the last and once ctx has ended,
// which must be that of the stream or a child of it. It calls idle before it
// waits for an event.
func (s *Stream) Next(ctx context.Context, idle func()) *Response {
	switch {
	case ctx.Err() != nil || s.over:
		return nil
	case s.source == nil:
		idle()
		return respond(s.x.next(graphql.WithOperationContext(ctx, s.op), s.responses))
	}
	turn, err := s.source.Next(ctx, idle)
	switch {
	case err != nil:
		s.over = true
		s.close()
		if ctx.Err() != nil {
			return nil
		}
		return respond(s.x.failed(graphql.WithOperationContext(ctx, s.op), err))
	case turn.Hand == nil:
		return respond(&graphql.Response{Extensions: map[string]any{cursorKey: turn.At.String()}})
	case s.group == nil || turn.Rights == "":
		return s.resolve(ctx, turn)
	}
	return s.x.shares.get(ctx, s.group, turnKey{turn.At, turn.Rights}, func(common bool) *Response {
		if !common {
			return s.resolve(ctx, turn)
		}
		// Others wait for it too, and must not lose it with who happened to come first.
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.x.limits.Time)
		defer cancel()
		return s.resolve(own, turn)
	})
}

// resolve lets the schema answer the turn.
func (s *Stream) resolve(ctx context.Context, turn Turn) *Response {
	turn.Hand()
	ctx = graphql.WithOperationContext(auth.With(ctx, turn.Caller), s.op)
	resp := s.x.next(ctx, func(ctx context.Context) *graphql.Response {
		NoteCursor(ctx, turn.At.String())
		resp := s.responses(ctx)
		if resp != nil {
			resp.Data = bytes.Clone(resp.Data) // the schema writes the next one over it
		}
		return resp
	})
	return respond(resp)
}

func respond(r *graphql.Response) *Response {
	if r == nil {
		return nil
	}
	return &Response{Response: r}
}
