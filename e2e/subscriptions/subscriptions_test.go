package subscriptions

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestServer_sends_every_subscriber_exactly_the_log(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		s := harness.OpenShop(t, harness.StartServer(t, database), 3, 1_000_000, 3)
		a := &harness.Audience{T: t, Nodes: []harness.Caller{s.Admin}, After: s.Admin.LogHead(t)}
		for range harness.Size(2, 10) {
			a.Join("event stream")
			a.Join("socket")
		}
		each := harness.Size(15, 1000)
		l := s.PlaceOrders(t.Context(), 8, func(n int) bool { return n < each }, harness.Never)
		late := harness.Subscribe(t, "socket", s.Admin, harness.FollowEvents, map[string]any{"after": a.After})
		want := s.Admin.LogAfter(t, a.After, len(l.Placed))
		a.Verify(want)
		for i, cursor := range want {
			if m := harness.MustNext(t, late); m.Cursor != cursor {
				t.Fatalf("the late subscriber got %s as number %d, want %s", m.Cursor, i, cursor)
			}
		}
		s.Verify(t, l)
	})
}

func TestServer_resumes_subscriptions_on_another_node(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	first := harness.StartServer(t, database)
	second := testenv.Server(t, harness.Settings(database)...)
	s := harness.OpenShop(t, second, 3, 1_000_000, 3)
	a := &harness.Audience{T: t, After: s.Admin.LogHead(t), Nodes: []harness.Caller{{BaseURL: first.BaseURL, Token: s.Admin.Token}, s.Admin}}
	for range harness.Size(2, 10) {
		a.Join("event stream")
		a.Join("socket")
	}
	each := harness.Size(40, 1000)
	done := make(chan *harness.OrderLedger, 1)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the rush did not end"))
	defer cancel()
	go func() { done <- s.PlaceOrders(ctx, 8, func(n int) bool { return n < each }, harness.Never) }()
	a.AwaitEvents(20)
	first.Kill()
	l := <-done
	a.Verify(s.Admin.LogAfter(t, a.After, len(l.Placed)))
	s.Verify(t, l)
}

func TestServer_shows_a_subscriber_only_events_it_may_see(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		harness.CreateProduct(t, root, "TEA", 100)
		ada, bob := harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "bob")
		after := root.LogHead(t)
		id := harness.Text(ada.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		ofUser := `subscription($after: Cursor, $id: ID!) { userEvents(userId: $id, after: $after) { cursor type subjectId subject { id } } }`
		ofOrders := `subscription($after: Cursor) { orderEvents(after: $after) { cursor type subjectId subject { ... on Order { id items { product { stock } } } } } }`
		order := func(c harness.Caller, quantity int) string {
			return harness.Text(c.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("TEA", quantity)}}), "placeOrder", "order", "id")
		}
		vars := map[string]any{"after": after, "id": id}
		want := map[harness.Subscription][]string{}
		bobs, adas := order(bob, 1), order(ada, 2)
		for transport := range harness.Transports {
			want[harness.Subscribe(t, transport, ada, ofUser, vars)] = []string{adas}
			want[harness.Subscribe(t, transport, ada, ofOrders, map[string]any{"after": after})] = []string{adas}
			want[harness.Subscribe(t, transport, root, ofUser, vars)] = []string{adas}
			want[harness.Subscribe(t, transport, root, ofOrders, map[string]any{"after": after})] = []string{bobs, adas}
			want[harness.Subscribe(t, transport, bob, ofOrders, map[string]any{"after": after})] = []string{bobs}
		}
		for l, orders := range want {
			for i, id := range orders {
				m := harness.MustNext(t, l)
				if harness.Text(m.Event, "subjectId") != id || harness.Text(m.Event, "subject", "id") != id || harness.Text(m.Event, "type") != "ORDER_PLACED" {
					t.Errorf("message %d is %v with code %q, want that order %s was placed", i, m.Event, m.Code, id)
				}
			}
		}
	})
}

func TestServer_ends_the_streams_of_callers_that_lost_access(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		ends := map[string]func(c harness.Caller, id string){
			"signs out": func(c harness.Caller, _ string) {
				c.Do(t, `mutation { revokeAllSessions(input: {}) { userErrors { code } } }`, nil)
			},
			"is deactivated": func(_ harness.Caller, id string) {
				root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, status: DEACTIVATED}) { userErrors { code } } }`, map[string]any{"id": id})
			},
		}
		for what, end := range ends {
			c := harness.SignUp(t, p, what)
			id := harness.Text(c.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
			vars := map[string]any{"after": root.LogHead(t)}
			stream, sock := harness.Subscribe(t, "event stream", c, harness.FollowEvents, vars), harness.Subscribe(t, "socket", c, harness.FollowEvents, vars)
			end(c, id)
			if m := lastOf(t, stream); m.Code != "UNAUTHENTICATED" {
				t.Errorf("the event stream of a user that %s ends with the code %q, want UNAUTHENTICATED", what, m.Code)
			}
			if m := lastOf(t, sock); !strings.HasPrefix(m.End, "4403 ") {
				t.Errorf("the socket of a user that %s ends with %q, want 4403", what, m.End)
			}
		}
	})
}

// standingLimit is the promise: what ends a credential on one node ends its streams on
// all within a second. The rest is for a busy machine.
const standingLimit = time.Second + 2*time.Second

func TestServer_ends_and_narrows_streams_on_all_nodes_within_a_second(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	here := harness.StartServer(t, database)
	there := testenv.Server(t, harness.Settings(database)...)
	root := harness.SignInAdmin(t, here)
	update := `mutation($id: ID!, $status: UserStatus, $roles: [Role!]) { updateUser(input: {id: $id, status: $status, roles: $roles}) { userErrors { code } } }`
	var key harness.Caller
	for what, tt := range map[string]struct {
		credential func(c harness.Caller) string // that the streams are opened with
		end        func(c harness.Caller, id string)
	}{
		"a session that is revoked": {func(c harness.Caller) string { return c.Token }, func(c harness.Caller, _ string) {
			c.Do(t, `mutation { revokeAllSessions(input: {}) { userErrors { code } } }`, nil)
		}},
		"a user that is deactivated": {func(c harness.Caller) string { return c.Token }, func(_ harness.Caller, id string) {
			root.Do(t, update, map[string]any{"id": id, "status": "DEACTIVATED"})
		}},
		"an API key that is revoked": {func(c harness.Caller) string {
			made := c.Do(t, `mutation { createApiKey(input: {name: "k", scopes: ["users:read"]}) { secret apiKey { id } userErrors { code } } }`, nil)
			key = harness.Caller{Token: harness.Text(made, "createApiKey", "apiKey", "id")}
			return harness.Text(made, "createApiKey", "secret")
		}, func(c harness.Caller, _ string) {
			c.Do(t, `mutation($id: ID!) { revokeApiKey(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": key.Token})
		}},
	} {
		c := harness.SignUp(t, here, what[2:])
		id := harness.Text(c.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		credential := harness.Caller{BaseURL: there.BaseURL, Token: tt.credential(c)}
		vars := map[string]any{"after": root.LogHead(t)}
		stream, sock := harness.Subscribe(t, "event stream", credential, harness.FollowEvents, vars), harness.Subscribe(t, "socket", credential, harness.FollowEvents, vars)
		harness.CreateProduct(t, root, strings.ReplaceAll(what, " ", "-"), 1)
		harness.MustNext(t, stream)
		harness.MustNext(t, sock)
		began := time.Now()
		tt.end(c, id)
		if m := lastOf(t, stream); m.Code != "UNAUTHENTICATED" {
			t.Errorf("the event stream of %s ends with the code %q, want UNAUTHENTICATED", what, m.Code)
		}
		if m := lastOf(t, sock); !strings.HasPrefix(m.End, "4403 ") {
			t.Errorf("the socket of %s ends with %q, want 4403", what, m.End)
		}
		took := time.Since(began)
		t.Logf("the streams of %s ended after %v", what, took)
		if took > standingLimit {
			t.Errorf("the streams of %s ended after %v, want a second", what, took)
		}
	}

	sam, bob := harness.SignUp(t, here, "sam"), harness.SignUp(t, here, "bob")
	id := harness.Text(sam.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
	root.Do(t, update, map[string]any{"id": id, "roles": []any{"STAFF"}})
	harness.Pause(t.Context(), time.Second)
	tea := harness.CreateProduct(t, root, "TEA", 10)
	root.Events(t, 1, map[string]any{"subject": tea}) // so that it is not what they hear of first
	order := map[string]any{"items": []any{harness.OrderLine("TEA", 1)}}
	l := harness.Subscribe(t, "socket", harness.Caller{BaseURL: there.BaseURL, Token: sam.Token}, harness.FollowEvents, map[string]any{"after": root.LogHead(t)})
	bob.Do(t, harness.PlaceOrder, order)
	if m := harness.MustNext(t, l); harness.Text(m.Event, "type") != "ORDER_PLACED" {
		t.Errorf("staff got %+v, want the order of another user", m)
	}
	root.Do(t, update, map[string]any{"id": id, "roles": []any{"CUSTOMER"}})
	if m := harness.MustNext(t, l); harness.Text(m.Event, "type") != "USER_UPDATED" {
		t.Errorf("a former STAFF got %+v, want the event of its own change", m)
	}
	harness.Pause(t.Context(), time.Second)
	bob.Do(t, harness.PlaceOrder, order)
	harness.CreateProduct(t, root, "SALT", 1)
	if m := harness.MustNext(t, l); harness.Text(m.Event, "type") != "PRODUCT_CREATED" {
		t.Errorf("a former STAFF got %+v, want the product and no order", m)
	}
}

// lastOf skips events and returns what ends the stream: an error, or the words
// of the transport.
func lastOf(t *testing.T, l harness.Subscription) harness.Message {
	t.Helper()
	for {
		if m := harness.MustNext(t, l); m.Event == nil {
			return m
		}
	}
}

func TestServer_refuses_cursors_that_cannot_be_followed(t *testing.T) {
	t.Parallel()
	database := harness.Databases["SQLite"](t)
	p := harness.StartServer(t, database)
	root := harness.SignInAdmin(t, p)
	codec := harness.Cursors(t, database)
	head := harness.DecodeCursor(t, codec, root.LogHead(t))
	beyond := event.Cursor{Timeline: head.Timeline, Position: head.Position + 1000}
	for transport := range harness.Transports {
		for cursor, want := range map[string]string{
			"000000000000.1": "CURSOR_UNKNOWN", beyond.String(): "CURSOR_UNKNOWN", codec.Encode(beyond): "CURSOR_UNKNOWN", "nonsense": "CURSOR_INVALID",
		} {
			if m := harness.MustNext(t, harness.Subscribe(t, transport, root, harness.FollowEvents, map[string]any{"after": cursor})); m.Code != want {
				t.Errorf("%s after %s: code %q, want %s", transport, cursor, m.Code, want)
			}
		}
	}
	for transport := range harness.Transports {
		if m := harness.MustNext(t, harness.Subscribe(t, transport, harness.Anonymous(p), harness.FollowEvents, nil)); m.Code != "UNAUTHENTICATED" {
			t.Errorf("%s: an anonymous caller got %+v, want UNAUTHENTICATED", transport, m)
		}
	}
}

func TestServer_tells_subscribers_that_it_stops(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	vars := map[string]any{"after": root.LogHead(t)}
	stream, sock := harness.Subscribe(t, "event stream", root, harness.FollowEvents, vars), harness.Subscribe(t, "socket", root, harness.FollowEvents, vars)
	harness.CreateProduct(t, root, "TEA", 1)
	if a, b := harness.MustNext(t, stream), harness.MustNext(t, sock); a.Cursor == "" || a.Cursor != b.Cursor {
		t.Errorf("the listeners got %v and %v, want the product", a, b)
	}
	p.Stop()
	if m := harness.MustNext(t, stream); !strings.Contains(m.End, "stopping") {
		t.Errorf("the event stream ends with %+v, want that the server is stopping", m)
	}
	if m := harness.MustNext(t, sock); !strings.HasPrefix(m.End, "1001 ") {
		t.Errorf("the socket ends with %q, want 1001", m.End)
	}
}
