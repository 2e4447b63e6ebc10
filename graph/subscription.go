package graph

import (
	"context"
	"strconv"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/executor"
)

// subscriptionSource is the event source of a subscription. Each response pulls its event
// from the log and then lets the schema resolve it, all in the transport's goroutine. So
// no goroutine can leak, a slow client applies backpressure to its own stream only, and
// rights and loaders are those of the response.
type subscriptionSource struct {
	events    *eventlog.Follower
	out       chan *event.Event // read by the schema; has capacity for the one event of a response
	shareable bool              // responses depend on roles and scopes, not on the user

	caller  *auth.Principal // caller and blanked of lastKey
	blanked int
	lastKey string
}

// followEvents starts a subscription to the events after the cursor.
func (r *Resolver) followEvents(ctx context.Context, f event.Filter, after *event.Cursor) (<-chan *event.Event, error) {
	events, err := r.domains.Hub.Follow(ctx, f, after)
	if err != nil {
		return nil, err
	}
	l := &subscriptionSource{events: events, out: make(chan *event.Event, 1), shareable: isShareable(graphql.GetOperationContext(ctx))}
	executor.SetSource(ctx, l)
	return l.out, nil
}

// Next implements executor.EventSource.
func (l *subscriptionSource) Next(ctx context.Context, idle func()) (executor.NextEvent, error) {
	e, cursor, err := l.events.Next(ctx, idle)
	if err != nil || e == nil {
		return executor.NextEvent{Cursor: cursor}, err
	}
	return executor.NextEvent{Cursor: cursor, Deliver: func() { l.deliver(e) }, Caller: l.events.Caller(), ShareKey: l.shareKey()}, nil
}

// deliver passes the event to the schema. It replaces an event that was not read because
// its response was abandoned.
func (l *subscriptionSource) deliver(e *event.Event) {
	select {
	case <-l.out:
	default:
	}
	l.out <- e
}

// Close implements executor.EventSource.
func (l *subscriptionSource) Close() { l.events.Close() }

// shareKey is equal for callers that get the same response to the same event.
func (l *subscriptionSource) shareKey() string {
	p, blanked := l.events.Caller(), l.events.RedactionCount()
	if p == l.caller && blanked == l.blanked && l.lastKey != "" {
		return l.lastKey
	}
	l.caller, l.blanked = p, blanked
	l.lastKey = strconv.Itoa(blanked) + " " + p.Rights()
	if !l.shareable {
		l.lastKey += " " + string(p.UserID) + " " + p.Credential.ID
	}
	return l.lastKey
}
