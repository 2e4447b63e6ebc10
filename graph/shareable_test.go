package graph_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// demoGraph is the graph of a server over the demo's data, and the callers that may subscribe to it.
type demoGraph struct {
	domains  graph.Domains
	callers  []*auth.Principal
	log      eventlog.Store
	cursors  *cursor.Codec
	begin    string // the cursor ahead of all events
	resolved atomic.Int64
}

func openDemo(t *testing.T) *demoGraph {
	t.Helper()
	db := testenv.Open(t, store.Config{URL: testenv.SQLite(t)})
	if _, err := demo.FillShop(t.Context(), db, func(string, ...string) (string, error) { return "hash", nil }); err != nil {
		t.Fatal(err)
	}
	events := eventlog.NewLog(db.Events())
	hub, err := eventlog.NewHub(events, slog.New(slog.DiscardHandler), eventlog.HubConfig{Ring: 100}) // most are replayed
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	services, picks := registryOf(t, db)
	d := &demoGraph{log: db.Events(), domains: graph.Domains{
		Users: user.NewService(db.Users(), nil, time.Now), Products: order.NewCatalog(db.Products(), time.Now), Orders: order.NewService(db.Orders(), time.Now),
		Registry: services, Sessions: new(session.Service), Log: events, Hub: hub, Picks: picks,
	}}
	made, err := db.Events().Read(t.Context(), event.Filter{Types: []event.Type{user.EventUserCreated}}, eventlog.Span{Limit: 12})
	if err != nil || len(made) < 12 {
		t.Fatalf("the demo has %d users, %v", len(made), err)
	}
	d.cursors = cursor.NewRandomCodec()
	d.begin = d.cursors.Encode(event.Cursor{Timeline: made[0].Cursor.Timeline})
	for i, e := range made {
		d.callers = append(d.callers, principals(uid.User(e.SubjectID), i)...)
	}
	return d
}

// principals are some of those that may act for a user: sessions and API keys.
func principals(id uid.User, n int) []*auth.Principal {
	roles := [][]auth.Role{{auth.Admin}, {auth.Staff}, {auth.Customer}, {auth.Service}, {auth.Customer}, {auth.Customer, auth.Staff}}[n%6]
	return []*auth.Principal{
		{UserID: id, Roles: roles, Credential: auth.SessionCredential("ses_1")},
		{UserID: id, Roles: roles, Credential: auth.SessionCredential("ses_2")},
		{UserID: id, Roles: roles, Credential: auth.APIKeyCredential("key_1", auth.OrdersRead)},
		{UserID: id, Roles: roles, Credential: auth.APIKeyCredential("key_2", auth.UsersRead, auth.OrdersRead)},
	}
}

// newExecutor returns a new one, which shares nothing with others.
func (d *demoGraph) newExecutor(t *testing.T) *executor.Executor {
	t.Helper()
	hooks := graph.NewHooks(d.domains)
	p, err := executor.NewPreparer(graph.Definitions(), executor.Config{Cursors: d.cursors, AroundField: hooks.AroundField,
		AroundResponse: func(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
			d.resolved.Add(1)
			return hooks.AroundResponse(ctx, next)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.NewExecutor(graph.NewSchema(graph.NewResolver(d.domains, nil, p)), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// randomRequest is one of few operations, in one of many spellings, and which
// events it asks for.
func (d *demoGraph) randomRequest(r *rand.Rand) (executor.Request, event.Filter) {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	space := pick(" ", "\n", ", ", " # a comment\n")
	fields := pick("type", "id data", "cursor type subjectId subjectVersion occurredAt actor", "... on Event { id } ...F",
		"id subject { __typename id }", "type subject { ... on Order { number note user { username email } } ... on User { username email roles } }",
		"id subject { ... on Product { sku price { amount } stock active } }")
	fragment := ""
	if strings.Contains(fields, "...F") {
		fragment = " fragment F on Event { type }"
	}
	about := d.callers[r.IntN(len(d.callers))].UserID
	roots := []struct {
		field  string
		filter event.Filter
	}{
		{"events(after: $after)", event.Filter{}},
		{"events(after: $after, types: [ORDER_PLACED, PRODUCT_CREATED])", event.Filter{Types: []event.Type{order.EventOrderPlaced, order.EventProductCreated}}},
		{"orderEvents(after: $after)", event.Filter{Types: order.OrderEntity.EventTypes()}},
		{fmt.Sprintf("userEvents(userId: %q, after: $after)", about), event.Filter{UserID: about}},
	}
	root := roots[r.IntN(len(roots))]
	return executor.Request{
		Query:     "subscription($after: Cursor)" + space + "{" + space + root.field + "{" + space + strings.Join(strings.Split(fields, " "), space) + space + "}}" + fragment,
		Variables: map[string]any{"after": d.begin},
	}, root.filter
}

// listener is a subscription and its caller, which may change.
type listener struct {
	caller atomic.Pointer[auth.Principal]
	stream *executor.Stream
	ctx    context.Context //nolint:containedctx // it is the life of the stream
}

func (d *demoGraph) listen(t *testing.T, x *executor.Executor, p *auth.Principal, req executor.Request) *listener {
	t.Helper()
	l := &listener{}
	l.caller.Store(p)
	l.ctx = auth.WithCurrent(t.Context(), l.caller.Load)
	op, refusal := x.Prepare(l.ctx, req)
	if refusal != nil {
		t.Fatalf("%s: %v", req.Query, refusal.Errors)
	}
	l.stream = x.Stream(l.ctx, op)
	t.Cleanup(l.stream.Close)
	return l
}

// next returns the next response as text.
func (l *listener) next(t *testing.T) string {
	t.Helper()
	resp := l.stream.Next(l.ctx, func() {})
	if resp == nil {
		t.Fatal("the stream ended")
	}
	text, err := resp.Encoded(func(r *graphql.Response) ([]byte, error) {
		return fmt.Appendf(nil, "%s %v %v", r.Data, r.Errors, r.Extensions), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSubscription_shares_exactly_the_responses_each_would_get_alone(t *testing.T) {
	t.Parallel()
	d := openDemo(t)
	r := rand.New(rand.NewPCG(1, 2))
	together := d.newExecutor(t)
	var delivered, alone int64
	for range 20 {
		req, filter := d.randomRequest(r)
		const listeners, most = 12, 10
		some := r.Perm(len(d.callers))[:4]
		var shared, unshared [listeners]*listener
		var callers [listeners]*auth.Principal
		var visible [listeners]int
		for i := range listeners {
			callers[i] = d.callers[some[r.IntN(len(some))]]
			shared[i], unshared[i] = d.listen(t, together, callers[i], req), d.listen(t, d.newExecutor(t), callers[i], req)
			filter.Audience = event.AudienceOf(callers[i])
			found, err := d.log.Read(t.Context(), filter, eventlog.Span{Limit: most})
			if err != nil {
				t.Fatal(err)
			}
			visible[i] = len(found)
		}
		promoted := r.IntN(listeners) // sees more from the middle on
		var want [listeners][most]string
		alone -= d.resolved.Load()
		for i := range listeners {
			for n := range visible[i] {
				unshared[i].promoteAt(i == promoted && n == visible[i]/2, callers[i])
				want[i][n] = unshared[i].next(t)
			}
		}
		alone += d.resolved.Load()
		for n := range most {
			for _, i := range r.Perm(listeners) {
				if n >= visible[i] {
					continue
				}
				shared[i].promoteAt(i == promoted && n == visible[i]/2, callers[i])
				if got := shared[i].next(t); got != want[i][n] {
					t.Fatalf("%s\nas %+v: response %d is shared as\n%s\nalone it was\n%s", req.Query, callers[i], n, got, want[i][n])
				}
				delivered++
			}
		}
	}
	if made := d.resolved.Load() - alone; delivered == 0 || made > delivered*3/4 {
		t.Errorf("%d responses were made for %d deliveries, want much to be shared", made, delivered)
	}
}

func (l *listener) promoteAt(now bool, p *auth.Principal) {
	if now {
		l.caller.Store(&auth.Principal{UserID: p.UserID, Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential("ses_3")})
	}
}
