package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// cursor returns the head of the log.
func (c caller) cursor(t *testing.T) string {
	t.Helper()
	return text(c.do(t, `{ eventCursor }`, nil), "eventCursor")
}

// head returns the cursor of the last event of a log that nobody writes to.
func (c caller) head(t *testing.T) (cursor string) {
	t.Helper()
	for range 20 { // what has just been committed gets its position a moment later
		before := cursor
		if cursor = c.cursor(t); cursor == before {
			break
		}
		pause(t.Context(), 100*time.Millisecond)
	}
	return cursor
}

// logAfter returns the cursors of the log once it holds n placed orders behind
// the cursor.
func (c caller) logAfter(t *testing.T, after string, orders int) (cursors []string) {
	t.Helper()
	placed := map[string]any{"after": nil, "types": []any{"ORDER_PLACED"}, "first": 1}
	eventually(t, fmt.Sprintf("%d orders are in the log", orders), func() bool {
		return number(c.do(t, readEvents, placed), "events", "totalCount") >= orders
	})
	for more := true; more; {
		page := at(c.do(t, readEvents, map[string]any{"after": after, "first": 100}), "events")
		edges, _ := at(page, "edges").([]any)
		for _, e := range edges {
			cursors = append(cursors, text(e, "cursor"))
			after = text(e, "cursor")
		}
		more = at(page, "pageInfo", "hasNextPage") == true
	}
	return cursors
}

// audience is clients that listen to the whole log at the same time. Each comes
// again at another node when its own is lost, behind the last event it got.
type audience struct {
	t     *testing.T
	nodes []caller // to listen at, in turn
	from  string   // all begin behind it
	heard [][]string
	over  []context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
}

func (a *audience) listen(transport string) {
	ctx, cancel := context.WithCancel(a.t.Context())
	n := len(a.heard)
	a.heard, a.over = append(a.heard, nil), append(a.over, cancel)
	a.wg.Go(func() {
		last := a.from
		for node := 0; ctx.Err() == nil; node++ {
			l, err := transports[transport](ctx, a.nodes[node%len(a.nodes)], followEvents, map[string]any{"after": last})
			for err == nil {
				var m message
				if m, err = l.next(); err == nil && m.end == "" {
					last = m.cursor
				}
				if err == nil && m.end == "" && !m.isProgress() {
					a.note(n, m)
				}
			}
			pause(ctx, 20*time.Millisecond) // the node is gone
		}
	})
}

// note keeps the cursor of a message; that of the transport must be that of the
// event.
func (a *audience) note(n int, m message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.cursor != text(m.field, "cursor") || m.cursor == "" {
		a.t.Errorf("client %d got the cursor %q with the event %v and code %q", n, m.cursor, m.field, m.code)
	}
	a.heard[n] = append(a.heard[n], m.cursor)
}

// await waits until each client has heard n events.
func (a *audience) await(n int) {
	a.t.Helper()
	within(a.t, 5*time.Minute, fmt.Sprintf("every client has heard %d events", n), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !slices.ContainsFunc(a.heard, func(h []string) bool { return len(h) < n })
	})
}

// check waits until the clients have heard all, and compares.
func (a *audience) check(want []string) {
	a.t.Helper()
	a.await(len(want))
	for _, leave := range a.over {
		leave()
	}
	a.wg.Wait()
	for n, got := range a.heard {
		if !slices.Equal(got, want) {
			a.t.Errorf("client %d heard %d events, and not the %d of the log in its order", n, len(got), len(want))
		}
	}
}

func TestServer_tells_every_listener_exactly_the_log(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		s := openShop(t, start(t, database), 3, 1_000_000, 3)
		a := &audience{t: t, nodes: []caller{s.root}, from: s.root.head(t)}
		for range size(2, 10) {
			a.listen("event stream")
			a.listen("socket")
		}
		each := size(15, 1000)
		l := s.rush(t.Context(), 8, func(n int) bool { return n < each }, never)
		late := listen(t, "socket", s.root, followEvents, map[string]any{"after": a.from})
		want := s.root.logAfter(t, a.from, len(l.placed))
		a.check(want)
		for i, cursor := range want {
			if m := mustNext(t, late); m.cursor != cursor {
				t.Fatalf("who comes late got %s as number %d, want %s", m.cursor, i, cursor)
			}
		}
		s.check(t, l)
	})
}

func TestServer_lets_listeners_go_on_at_another_node(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	first := start(t, database)
	second := testenv.Server(t, settings(database)...)
	s := openShop(t, second, 3, 1_000_000, 3)
	a := &audience{t: t, from: s.root.head(t), nodes: []caller{{first.BaseURL, s.root.token}, s.root}}
	for range size(2, 10) {
		a.listen("event stream")
		a.listen("socket")
	}
	each := size(40, 1000)
	done := make(chan *ledger, 1)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the rush did not end"))
	defer cancel()
	go func() { done <- s.rush(ctx, 8, func(n int) bool { return n < each }, never) }()
	a.await(20)
	first.Kill()
	l := <-done
	a.check(s.root.logAfter(t, a.from, len(l.placed)))
	s.check(t, l)
}

func TestServer_shows_a_listener_only_what_it_may_see(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root := signInAdmin(t, p)
		createProduct(t, root, "TEA", 100)
		ada, bob := signUp(t, p, "ada"), signUp(t, p, "bob")
		after := root.head(t)
		id := text(ada.do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		ofUser := `subscription($after: Cursor, $id: ID!) { userEvents(userId: $id, after: $after) { cursor type subjectId subject { id } } }`
		ofOrders := `subscription($after: Cursor) { orderEvents(after: $after) { cursor type subjectId subject { ... on Order { id items { product { stock } } } } } }`
		order := func(c caller, quantity int) string {
			return text(c.do(t, placeOrder, map[string]any{"items": []any{line("TEA", quantity)}}), "placeOrder", "order", "id")
		}
		vars := map[string]any{"after": after, "id": id}
		want := map[listener][]string{}
		bobs, adas := order(bob, 1), order(ada, 2)
		for transport := range transports {
			want[listen(t, transport, ada, ofUser, vars)] = []string{adas}
			want[listen(t, transport, ada, ofOrders, map[string]any{"after": after})] = []string{adas}
			want[listen(t, transport, root, ofUser, vars)] = []string{adas}
			want[listen(t, transport, root, ofOrders, map[string]any{"after": after})] = []string{bobs, adas}
			want[listen(t, transport, bob, ofOrders, map[string]any{"after": after})] = []string{bobs}
		}
		for l, orders := range want {
			for i, id := range orders {
				m := mustNext(t, l)
				if text(m.field, "subjectId") != id || text(m.field, "subject", "id") != id || text(m.field, "type") != "ORDER_PLACED" {
					t.Errorf("message %d is %v with code %q, want that order %s was placed", i, m.field, m.code, id)
				}
			}
		}
	})
}

func TestServer_ends_the_streams_of_who_may_not_listen_any_more(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root := signInAdmin(t, p)
		ends := map[string]func(c caller, id string){
			"signs out": func(c caller, _ string) {
				c.do(t, `mutation { revokeAllSessions(input: {}) { userErrors { code } } }`, nil)
			},
			"is deactivated": func(_ caller, id string) {
				root.do(t, `mutation($id: ID!) { updateUser(input: {id: $id, status: DEACTIVATED}) { userErrors { code } } }`, map[string]any{"id": id})
			},
		}
		for what, end := range ends {
			c := signUp(t, p, what)
			id := text(c.do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
			vars := map[string]any{"after": root.head(t)}
			stream, sock := listen(t, "event stream", c, followEvents, vars), listen(t, "socket", c, followEvents, vars)
			end(c, id)
			if m := lastOf(t, stream); m.code != "UNAUTHENTICATED" {
				t.Errorf("the event stream of who %s ends with the code %q, want UNAUTHENTICATED", what, m.code)
			}
			if m := lastOf(t, sock); !strings.HasPrefix(m.end, "4403 ") {
				t.Errorf("the socket of who %s ends with %q, want 4403", what, m.end)
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
	here := start(t, database)
	there := testenv.Server(t, settings(database)...)
	root := signInAdmin(t, here)
	update := `mutation($id: ID!, $status: UserStatus, $roles: [Role!]) { updateUser(input: {id: $id, status: $status, roles: $roles}) { userErrors { code } } }`
	var key caller
	for what, tt := range map[string]struct {
		credential func(c caller) string // that the streams are opened with
		end        func(c caller, id string)
	}{
		"a session that is revoked": {func(c caller) string { return c.token }, func(c caller, _ string) {
			c.do(t, `mutation { revokeAllSessions(input: {}) { userErrors { code } } }`, nil)
		}},
		"a user who is deactivated": {func(c caller) string { return c.token }, func(_ caller, id string) {
			root.do(t, update, map[string]any{"id": id, "status": "DEACTIVATED"})
		}},
		"an API key that is revoked": {func(c caller) string {
			made := c.do(t, `mutation { createApiKey(input: {name: "k", scopes: ["users:read"]}) { secret apiKey { id } userErrors { code } } }`, nil)
			key = caller{token: text(made, "createApiKey", "apiKey", "id")}
			return text(made, "createApiKey", "secret")
		}, func(c caller, _ string) {
			c.do(t, `mutation($id: ID!) { revokeApiKey(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": key.token})
		}},
	} {
		c := signUp(t, here, what[2:])
		id := text(c.do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		credential := caller{there.BaseURL, tt.credential(c)}
		vars := map[string]any{"after": root.head(t)}
		stream, sock := listen(t, "event stream", credential, followEvents, vars), listen(t, "socket", credential, followEvents, vars)
		createProduct(t, root, strings.ReplaceAll(what, " ", "-"), 1)
		mustNext(t, stream)
		mustNext(t, sock)
		began := time.Now()
		tt.end(c, id)
		if m := lastOf(t, stream); m.code != "UNAUTHENTICATED" {
			t.Errorf("the event stream of %s ends with the code %q, want UNAUTHENTICATED", what, m.code)
		}
		if m := lastOf(t, sock); !strings.HasPrefix(m.end, "4403 ") {
			t.Errorf("the socket of %s ends with %q, want 4403", what, m.end)
		}
		took := time.Since(began)
		t.Logf("the streams of %s ended after %v", what, took)
		if took > standingLimit {
			t.Errorf("the streams of %s ended after %v, want a second", what, took)
		}
	}

	sam, bob := signUp(t, here, "sam"), signUp(t, here, "bob")
	id := text(sam.do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
	root.do(t, update, map[string]any{"id": id, "roles": []any{"STAFF"}})
	pause(t.Context(), time.Second)
	tea := createProduct(t, root, "TEA", 10)
	root.events(t, 1, map[string]any{"subject": tea}) // so that it is not what they hear of first
	order := map[string]any{"items": []any{line("TEA", 1)}}
	l := listen(t, "socket", caller{there.BaseURL, sam.token}, followEvents, map[string]any{"after": root.head(t)})
	bob.do(t, placeOrder, order)
	if m := mustNext(t, l); text(m.field, "type") != "ORDER_PLACED" {
		t.Errorf("staff got %+v, want the order of somebody else", m)
	}
	root.do(t, update, map[string]any{"id": id, "roles": []any{"CUSTOMER"}})
	if m := mustNext(t, l); text(m.field, "type") != "USER_UPDATED" {
		t.Errorf("who is no staff any more got %+v, want to hear of it", m)
	}
	pause(t.Context(), time.Second)
	bob.do(t, placeOrder, order)
	createProduct(t, root, "SALT", 1)
	if m := mustNext(t, l); text(m.field, "type") != "PRODUCT_CREATED" {
		t.Errorf("who is no staff any more got %+v, want the product and no order", m)
	}
}

// lastOf skips events and returns what ends the stream: an error, or the words
// of the transport.
func lastOf(t *testing.T, l listener) message {
	t.Helper()
	for {
		if m := mustNext(t, l); m.field == nil {
			return m
		}
	}
}

func TestServer_refuses_cursors_that_cannot_be_followed(t *testing.T) {
	t.Parallel()
	p := start(t, databases["SQLite"](t))
	root := signInAdmin(t, p)
	timeline, _, _ := strings.Cut(root.head(t), ".")
	for transport := range transports {
		for cursor, want := range map[string]string{
			"000000000000.1": "CURSOR_UNKNOWN", timeline + ".999999": "CURSOR_UNKNOWN", "nonsense": "CURSOR_INVALID",
		} {
			if m := mustNext(t, listen(t, transport, root, followEvents, map[string]any{"after": cursor})); m.code != want {
				t.Errorf("%s after %s: code %q, want %s", transport, cursor, m.code, want)
			}
		}
	}
	for transport := range transports {
		if m := mustNext(t, listen(t, transport, stranger(p), followEvents, nil)); m.code != "UNAUTHENTICATED" {
			t.Errorf("%s: a stranger got %+v, want UNAUTHENTICATED", transport, m)
		}
	}
}

func TestServer_tells_listeners_that_it_stops(t *testing.T) {
	t.Parallel()
	p := start(t, databases["SQLite"](t))
	root := signInAdmin(t, p)
	vars := map[string]any{"after": root.head(t)}
	stream, sock := listen(t, "event stream", root, followEvents, vars), listen(t, "socket", root, followEvents, vars)
	createProduct(t, root, "TEA", 1)
	if a, b := mustNext(t, stream), mustNext(t, sock); a.cursor == "" || a.cursor != b.cursor {
		t.Errorf("the listeners got %v and %v, want the product", a, b)
	}
	p.Stop()
	if m := mustNext(t, stream); !strings.Contains(m.end, "stopping") {
		t.Errorf("the event stream ends with %+v, want that the server is stopping", m)
	}
	if m := mustNext(t, sock); !strings.HasPrefix(m.end, "1001 ") {
		t.Errorf("the socket ends with %q, want 1001", m.end)
	}
}
