package graph

import (
	"context"
	"strconv"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
)

// live is the source of a subscription. Each response first takes its event
// from the log and then lets the schema resolve it, all in the goroutine of the
// transport: nothing runs beside it that could be left over, a client that reads
// slowly takes slowly, and the rights and loaders are those of the response.
type live struct {
	events *event.Follower
	out    chan *event.Event // what the schema reads; has room for the one event of a response
	common bool              // responses depend on roles and scopes, not on the user

	caller  *auth.Principal // for whom and when rights were last told
	blanked int
	rights  string
}

// follow begins a subscription to the events behind the cursor.
func (r *Resolver) follow(ctx context.Context, f event.Filter, after *event.Cursor) (<-chan *event.Event, error) {
	events, err := r.hub.Follow(ctx, f, after)
	if err != nil {
		return nil, err
	}
	l := &live{events: events, out: make(chan *event.Event, 1), common: isCommon(graphql.GetOperationContext(ctx))}
	executor.SetSource(ctx, l)
	return l.out, nil
}

// Next implements operation.Source.
func (l *live) Next(ctx context.Context, idle func()) (executor.Turn, error) {
	e, cursor, err := l.events.Next(ctx, idle)
	if err != nil || e == nil {
		return executor.Turn{At: cursor}, err
	}
	return executor.Turn{At: cursor, Hand: func() { l.hand(e) }, Caller: l.events.Caller(), Rights: l.rightsNow()}, nil
}

// hand gives the event to the schema, in the place of one that was left because
// its response was given up.
func (l *live) hand(e *event.Event) {
	select {
	case <-l.out:
	default:
	}
	l.out <- e
}

// Close implements operation.Source.
func (l *live) Close() { l.events.Close() }

// rightsNow says to whom the event that was taken looks as it does to the caller.
func (l *live) rightsNow() string {
	p, blanked := l.events.Caller(), l.events.Blanked()
	if p == l.caller && blanked == l.blanked && l.rights != "" {
		return l.rights
	}
	l.caller, l.blanked = p, blanked
	l.rights = strconv.Itoa(blanked) + " " + p.Rights()
	if !l.common {
		l.rights += " " + string(p.UserID) + " " + p.Credential.ID
	}
	return l.rights
}
