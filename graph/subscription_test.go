package graph_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/order"
)

// pages is a log without a database.
type pages struct {
	eventlog.Store

	mu       sync.Mutex
	timeline string
	events   []*event.Event
}

// State implements eventlog.Store.
func (p *pages) State(context.Context) (eventlog.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return eventlog.State{Timeline: p.timeline, Oldest: 1, Head: event.Position(len(p.events))}, nil
}

// Read implements eventlog.Store.
func (p *pages) Read(_ context.Context, f event.Filter, s eventlog.Span) (found []*event.Event, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events[s.After:] {
		if f.Conditions().Match(e) && len(found) < s.Limit && (s.Before == 0 || e.Cursor.Position < s.Before) {
			found = append(found, e)
		}
	}
	return found, nil
}

// add appends an event of an order of the user.
func (p *pages) add(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := event.Cursor{Timeline: p.timeline, Position: event.Position(len(p.events) + 1)}
	p.events = append(p.events, &event.Event{Type: order.EventOrderPlaced, SubjectID: "ord_1", Related: []string{user}, Cursor: at})
}

func (p *pages) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeline = "b"
}

// following runs the test with the responses of a subscription by usr_me, in fake
// time. It fails if a goroutine is left.
func following(t *testing.T, query string, test func(p *pages, next func() *graphql.Response)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(auth.With(t.Context(), &auth.Principal{UserID: "usr_me", Credential: auth.SessionCredential("ses_1")}))
		defer cancel()
		p := &pages{timeline: "a"}
		log := slog.New(slog.DiscardHandler)
		hub, err := eventlog.NewHub(eventlog.NewLog(p), log, eventlog.HubConfig{})
		if err != nil {
			t.Fatal(err)
		}
		go hub.Run(ctx) //nolint:errcheck // it has none
		synctest.Wait()
		x, err := graph.NewExecutor(graph.Domains{Hub: hub}, nil, executor.Config{Cursors: codec, Planned: planned}, log)
		if err != nil {
			t.Fatal(err)
		}
		op, refusal := x.Prepare(ctx, executor.Request{Query: query})
		if refusal != nil {
			t.Fatal(refusal.Errors)
		}
		responses := x.Stream(ctx, op)
		defer responses.Close()
		test(p, func() *graphql.Response {
			if resp := responses.Next(ctx, func() {}); resp != nil {
				return resp.Response
			}
			return nil
		})
	})
}

// codec is that of the cursors of the tests.
var codec = cursor.NewRandomCodec()

// describeResponse is what a response says, in one line, with its cursor in plain.
func describeResponse(resp *graphql.Response) string {
	if resp == nil {
		return "the end"
	}
	code := any("")
	if len(resp.Errors) > 0 {
		code = resp.Errors[0].Extensions["code"]
	}
	text, only := executor.ResponseCursor(resp)
	if at, err := codec.Decode(text); err == nil && !strings.Contains(text, ".") {
		text = at.String()
	}
	return fmt.Sprintf("%s%v %s %v", resp.Data, code, text, only)
}

func TestSubscription_yields_events_cursors_and_the_reason_of_its_end(t *testing.T) {
	t.Parallel()
	following(t, `subscription { events { type } }`, func(p *pages, next func() *graphql.Response) {
		want := func(what, want string) {
			t.Helper()
			if got := describeResponse(next()); got != want {
				t.Errorf("%s: the response says %s, want %s", what, got, want)
			}
		}
		p.add("usr_me")
		p.add("usr_me")
		want("the first event", `{"events":{"type":"ORDER_PLACED"}} a.1 false`)
		want("the second event", `{"events":{"type":"ORDER_PLACED"}} a.2 false`)
		p.add("usr_other")
		want("an event of another user", ` a.3 true`)
		start := time.Now()
		time.AfterFunc(time.Hour, func() { p.add("usr_me") })
		want("an event after a long silence", `{"events":{"type":"ORDER_PLACED"}} a.4 false`)
		if time.Since(start) < time.Hour {
			t.Error("something was said though there was nothing to say")
		}
		p.restore()
		want("a restore", `CURSOR_UNKNOWN  false`)
		want("after that", "the end")
		want("and for ever", "the end")
	})
}

func TestSubscription_orderEvents_yields_events_of_the_order_only(t *testing.T) {
	t.Parallel()
	following(t, `subscription { orderEvents(orderId: "", userId: "usr_me") { type } }`, func(p *pages, next func() *graphql.Response) {
		p.add("usr_me")
		if got := describeResponse(next()); got != " a.1 true" {
			t.Errorf("of the order without an id: %s, want nothing but progress", got)
		}
	})
}
