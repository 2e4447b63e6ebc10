package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"backplane/internal/event"
	"backplane/internal/operation"
)

// live is the source of a subscription. Each response first takes its event
// from the log and then lets the schema resolve it, all in the goroutine of the
// transport: nothing runs beside it that could be left over, a client that reads
// slowly takes slowly, and the rights and loaders are those of the response.
type live struct {
	events *event.Follower
	out    chan *event.Event // what the schema reads; has room for the one event of a response
	over   bool
}

// liveKey is where an operation keeps its live.
const liveKey = "backplane.live"

// follow begins a subscription to the events behind the cursor.
func (r *Resolver) follow(ctx context.Context, f event.Filter, after *event.Cursor) (<-chan *event.Event, error) {
	events, err := r.hub.Follow(ctx, f, after)
	if err != nil {
		return nil, err
	}
	l := &live{events: events, out: make(chan *event.Event, 1)}
	graphql.GetOperationContext(ctx).Stats.SetExtension(liveKey, l)
	return l.out, nil
}

// liveOf returns the source of the operation's events, nil if it has none.
func liveOf(ctx context.Context) *live {
	l, _ := graphql.GetOperationContext(ctx).Stats.GetExtension(liveKey).(*live)
	return l
}

// await waits for an event and hands it to the schema; ready says that it may
// be resolved. Otherwise the response is that of await: one that only tells a
// cursor, one that says why the subscription ends, or nil after the end.
func (l *live) await(ctx context.Context) (resp *graphql.Response, ready bool) {
	if l.over {
		return nil, false
	}
	e, cursor, err := l.events.Next(ctx)
	switch {
	case err != nil:
		l.over = true
		l.events.Close()
		if ctx.Err() != nil {
			return nil, false
		}
		graphql.AddError(ctx, err)
		return &graphql.Response{Errors: graphql.GetErrors(ctx)}, false
	case e == nil:
		operation.NoteCursor(ctx, cursor.String())
		return &graphql.Response{Extensions: graphql.GetExtensions(ctx)}, false
	}
	operation.NoteCursor(ctx, cursor.String())
	l.out <- e
	return nil, true
}
