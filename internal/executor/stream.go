package executor

import (
	"bytes"
	"context"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fairshare"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
)

// EventSource yields the events of a subscription, to one goroutine at a time. The
// resolver that starts a subscription passes its source to SetSource.
type EventSource interface {
	// Next waits for the next event; it calls idle before it waits. After an error
	// it is not called again.
	Next(ctx context.Context, idle func()) (NextEvent, error)
	// Close releases what the source holds.
	Close()
}

// NextEvent is the event that a subscription answers next.
type NextEvent struct {
	Cursor  event.Cursor    // the cursor that the client reaches with it
	Deliver func()          // passes the event to the schema, which then resolves it; nil if there is no event and only the cursor is sent
	Caller  *auth.Principal // the principal it is resolved for
	// ShareKey is equal for subscribers that get the same response: equal operations
	// whose events are equal in Cursor and ShareKey share one. Empty: share with none.
	ShareKey string
}

// sourceKey is the extension of an operation's statistics that holds its source.
const sourceKey = "backplane.source"

// SetSource sets the event source of the subscription that a resolver starts under
// the context.
func SetSource(ctx context.Context, s EventSource) {
	graphql.GetOperationContext(ctx).Stats.SetExtension(sourceKey, s)
}

// Stream is an operation in execution, for one goroutine at a time.
type Stream struct {
	x          *Executor
	op         *graphql.OperationContext
	responses  graphql.ResponseHandler
	source     EventSource // nil if the schema brings its own events
	group      *shareGroup // of equal subscriptions; nil if there can be none
	leaveGroup func()
	ended      bool
	memory     int64 // estimate for one response
}

// Run executes a query or mutation and returns its response. The context that resolvers get
// ends after Limits.Time. Run takes its memory from the grant of ctx, if there is one, which
// the caller releases once the response is written. An error means that nothing ran, since
// there was no memory, or the caller writes too fast or has too much under way.
func (x *Executor) Run(ctx context.Context, op *Operation) (*graphql.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, x.limits.Time)
	defer cancel()
	if op.Kind() == ast.Subscription {
		return x.errorResponse(ctx, fault.New(fault.BadRequest, "A subscription needs a transport that streams.")), nil
	}
	if err := x.cfg.Writes.Take(ctx, x.countWrites(op)); err != nil {
		return nil, err
	}
	hold, err := x.workload.execute(ctx, op.cost)
	if err != nil {
		return nil, err
	}
	defer hold.Release()
	grant := membudget.GrantFrom(ctx)
	before := grant.Bytes()
	if err := grant.Take(ctx, op.MemoryEstimate()); err != nil {
		return nil, err
	}
	ctx = fairshare.WithAdmission(ctx)
	stream := x.Stream(ctx, op)
	defer stream.Close()
	resp := stream.Next(ctx, func() {})
	if resp == nil {
		return x.errorResponse(ctx, context.Cause(ctx)), nil
	}
	grant.Shrink(before + responseFactor*int64(len(resp.Data)))
	return resp.Response, nil
}

// countWrites returns how many fields of the operation count against the rate of writes: those of a
// mutation, fragments expanded and repeats counted, but for the uncounted ones. A repeat under an
// idempotency key counts as any other. The limit of root fields bounds it.
func (x *Executor) countWrites(op *Operation) int {
	if op.Kind() != ast.Mutation {
		return 0
	}
	return x.countWritesOf(op.definition.SelectionSet)
}

func (x *Executor) countWritesOf(set ast.SelectionSet) (n int) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if !x.cfg.UncountedMutations[sel.Name] && !strings.HasPrefix(sel.Name, "__") {
				n++
			}
		case *ast.InlineFragment:
			n += x.countWritesOf(sel.SelectionSet)
		case *ast.FragmentSpread:
			n += x.countWritesOf(sel.Definition.SelectionSet)
		}
	}
	return n
}

// Stream starts the operation, which yields one response for a query or
// mutation, one per event for a subscription. It sets no time limit; the
// operation lives until ctx ends. The caller closes it.
func (x *Executor) Stream(ctx context.Context, op *Operation) *Stream {
	s := &Stream{x: x, leaveGroup: func() {}, op: x.operationContext(op), memory: op.MemoryEstimate()}
	start := x.withPresenter(s.withOperation(ctx))
	s.responses = x.startSchema(start, op)
	s.source, _ = s.op.Stats.GetExtension(sourceKey).(EventSource)
	if errs := graphql.GetErrors(start); errs != nil {
		s.closeSource()
		s.responses = graphql.OneShot(&graphql.Response{Errors: errs})
	}
	if s.source == nil {
		return s // nothing to share, so its digest is not computed
	}
	if d, ok := op.shareDigest(); ok {
		s.group, s.leaveGroup = x.shared.joinGroup(d)
	}
	return s
}

func (x *Executor) operationContext(op *Operation) *graphql.OperationContext {
	return &graphql.OperationContext{
		Variables:              op.variables,
		OperationName:          op.definition.Name,
		Doc:                    op.document.ast,
		Operation:              op.definition,
		DisableIntrospection:   x.cfg.DisableIntrospection,
		RecoverFunc:            recoverPanic,
		ResolverMiddleware:     x.cfg.AroundField,
		RootResolverMiddleware: x.cfg.AroundRootField,
	}
}

// withOperation returns the context under which the schema runs the operation.
func (s *Stream) withOperation(ctx context.Context) context.Context {
	return graphql.WithOperationContext(cursor.With(ctx, s.x.cfg.Cursors), s.op)
}

// Next returns the next response, or nil after the last and once ctx has ended,
// which must be that of the stream or a child of it. It calls idle before it
// waits for an event.
func (s *Stream) Next(ctx context.Context, idle func()) *Response {
	switch {
	case ctx.Err() != nil || s.ended:
		return nil
	case s.source == nil:
		idle()
		return newResponse(s.x.executeNext(s.withOperation(ctx), s.responses))
	}
	e, err := s.source.Next(ctx, idle)
	switch {
	case err != nil:
		s.ended = true
		s.closeSource()
		if ctx.Err() != nil {
			return nil
		}
		return newResponse(s.x.errorResponse(s.withOperation(ctx), err))
	case e.Deliver == nil:
		return newResponse(&graphql.Response{Extensions: map[string]any{cursorKey: s.x.cfg.Cursors.Encode(e.Cursor)}})
	case s.group == nil || e.ShareKey == "":
		return s.resolveEvent(ctx, e)
	}
	return s.x.shared.getOrResolve(ctx, s.group, eventKey{e.Cursor, e.ShareKey}, func(shared bool) *Response {
		if !shared {
			return s.resolveEvent(ctx, e)
		}
		// Other subscribers wait for the response too, so it outlives the one that began it.
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.x.limits.Time)
		defer cancel()
		return s.resolveShared(detached, e)
	})
}

// resolveShared is resolveEvent with memory and database connections that count against no
// caller: a subscriber whose share is used up must not keep the others waiting.
func (s *Stream) resolveShared(ctx context.Context, e NextEvent) *Response {
	grant := s.x.cfg.Memory.OpenShared()
	defer grant.Release()
	return s.resolveEvent(membudget.WithGrant(fairshare.WithoutCaller(ctx), grant), e)
}

// resolveEvent delivers the event to the schema and returns its response; nil once ctx has
// ended. It waits for the memory that the operation needs.
func (s *Stream) resolveEvent(ctx context.Context, e NextEvent) *Response {
	if membudget.GrantFrom(ctx).Await(ctx, s.memory) != nil {
		return nil
	}
	e.Deliver()
	ctx = s.withOperation(auth.With(ctx, e.Caller))
	resp := s.x.executeNext(ctx, func(ctx context.Context) *graphql.Response {
		SetResponseCursor(ctx, s.x.cfg.Cursors.Encode(e.Cursor))
		resp := s.responses(ctx)
		if resp != nil {
			resp.Data = bytes.Clone(resp.Data) // the schema overwrites it with the next one
		}
		return resp
	})
	return newResponse(resp)
}

// Close releases what the stream holds.
func (s *Stream) Close() {
	s.leaveGroup()
	s.closeSource()
}

func (s *Stream) closeSource() {
	if s.source != nil {
		s.source.Close()
		s.source = nil
	}
}
