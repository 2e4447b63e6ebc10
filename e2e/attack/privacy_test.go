package attack

import (
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// actorsOf returns the actors of events by their types; "null" for none.
func actorsOf(events any) map[string]string {
	actors := map[string]string{}
	list, _ := events.([]any)
	for _, e := range list {
		actor, ok := harness.At(e, "actor").(string)
		if !ok {
			actor = "null"
		}
		actors[harness.Text(e, "type")] = actor
	}
	return actors
}

// TestStaff_is_not_named_to_customers reads the history of an order over each transport: the customer has placed it, by an API key
// of its own, and staff has created the product and refused the order.
func TestStaff_is_not_named_to_customers(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		staff := harness.CreateUserWithRole(t, p, root, "clerk", "STAFF")
		start := staff.EventCursor(t)
		harness.CreateProduct(t, staff, "TEA", 10)
		ada := harness.SignUp(t, p, "ada")
		key := ada.Do(t, `mutation { createApiKey(input: {name: "k", scopes: ["orders:read", "orders:write", "users:read"]}) { apiKey { id } secret } }`, nil)
		byKey := harness.Caller{BaseURL: p.BaseURL, Token: harness.Text(key, "createApiKey", "secret")}
		order := harness.Text(byKey.Do(t, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("TEA", 1)}}), "placeOrder", "order", "id")
		staff.Do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id}) { userErrors { code } } }`, harness.Fields{"id": order})

		keyID, clerk, self := harness.Text(key, "createApiKey", "apiKey", "id"), staff.UserID(t), ada.UserID(t)
		want := map[string]string{"PRODUCT_CREATED": "null", "API_KEY_CREATED": self, "ORDER_PLACED": keyID, "ORDER_CANCELLED": "null"}
		const query = `query($after: Cursor, $id: ID!) { events(after: $after, types: [PRODUCT_CREATED, API_KEY_CREATED, ORDER_PLACED, ORDER_CANCELLED]) { nodes { type actor } } order(id: $id) { events { nodes { type actor } } } }`
		check := func(reader string, got map[string]string) {
			t.Helper()
			for typ, actor := range got {
				if actor != want[typ] {
					t.Errorf("%s sees the actor %s of %s, want %s", reader, actor, typ, want[typ])
				}
			}
			if got["ORDER_CANCELLED"] == "" || got["ORDER_PLACED"] == "" {
				t.Errorf("%s sees the events %v", reader, got)
			}
		}
		harness.Eventually(t, "the events have positions", func() bool {
			return actorsOf(harness.At(ada.Do(t, query, harness.Fields{"after": start, "id": order}), "order", "events", "nodes"))["ORDER_CANCELLED"] != ""
		})
		seen := ada.Do(t, query, harness.Fields{"after": start, "id": order})
		check("a query", actorsOf(harness.At(seen, "events", "nodes")))
		check("a query of the order", actorsOf(harness.At(seen, "order", "events", "nodes")))
		check("a query by the key", actorsOf(harness.At(byKey.Do(t, query, harness.Fields{"after": start, "id": order}), "order", "events", "nodes")))
		rest := ada.MustREST(t, http.StatusOK, "GET /events?after="+start, "")
		if strings.Contains(string(rest.Body), clerk) || !strings.Contains(string(rest.Body), keyID) {
			t.Errorf("GET /events gives %s", rest.Body)
		}
		for transport := range harness.Transports {
			s := harness.Subscribe(t, transport, ada, `subscription($after: Cursor) { orderEvents(after: $after) { type actor } }`, harness.Fields{"after": start})
			check(transport, actorsOf([]any{harness.MustNext(t, s).Event, harness.MustNext(t, s).Event}))
		}
		for typ, actor := range actorsOf(harness.At(staff.Do(t, query, harness.Fields{"after": start, "id": order}), "events", "nodes")) {
			if actor != map[string]string{"PRODUCT_CREATED": clerk, "ORDER_PLACED": keyID, "ORDER_CANCELLED": clerk}[typ] {
				t.Errorf("staff sees the actor %s of %s", actor, typ)
			}
		}
	})
}

// TestDeletion_blanks_the_notes_of_orders reads each note on every node first, so that caches hold it, in process memory and in Redis.
func TestDeletion_blanks_the_notes_of_orders(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		redis := "BACKPLANE_REDIS_URL=" + testenv.Redis(t)
		p := harness.StartServer(t, database, redis)
		root := harness.SignInAdmin(t, p)
		nodes := []*testenv.Process{p}
		if !strings.HasPrefix(database, "sqlite:") {
			nodes = append(nodes, testenv.Server(t, harness.Settings(database, redis)...))
		}
		read := func(node *testenv.Process, id string) string {
			reader := harness.Caller{BaseURL: node.BaseURL, Token: root.Token}
			return harness.Text(reader.Do(t, `query($id: ID!) { order(id: $id) { note } }`, harness.Fields{"id": id}), "order", "note")
		}
		harness.CreateProduct(t, root, "TEA", 10)
		notes := map[string]string{}
		for _, name := range []string{"ada", "bob"} {
			c := harness.SignUp(t, p, name)
			placed := c.Do(t, `mutation { placeOrder(input: {items: [{sku: "TEA", quantity: 1}], note: "ring at the back door"}) { order { id note } } }`, nil)
			notes[name] = harness.Text(placed, "placeOrder", "order", "id")
			for range 5 {
				for _, node := range nodes {
					if note := read(node, notes[name]); note != "ring at the back door" {
						t.Errorf("before the deletion the note of %s reads %q", name, note)
					}
					harness.Pause(t.Context(), 20*time.Millisecond) // the cache fills Redis behind its readers
				}
			}
			if name == "ada" {
				root.Do(t, `mutation($id: ID!) { deleteUser(input: {id: $id}) { userErrors { code } } }`, harness.Fields{"id": c.UserID(t)})
			}
		}
		for name, want := range map[string]string{"ada": "", "bob": "ring at the back door"} {
			if got := read(p, notes[name]); got != want {
				t.Errorf("the note of %s reads %q, want %q", name, got, want)
			}
			for _, node := range nodes {
				harness.Eventually(t, "the other nodes show the note of "+name+" as it is", func() bool { return read(node, notes[name]) == want })
			}
		}
		for _, node := range nodes {
			node.Stop()
		}
		fresh := testenv.Server(t, harness.Settings(database, redis)...) // reads Redis
		if got := read(fresh, notes["ada"]); got != "" {
			t.Errorf("Redis still has the note %q", got)
		}
		harness.RunCommand(t, database, "doctor") // its audit of orders and events still holds
	})
}

// TestDeletion_of_a_long_history hides it over each transport at once, and goes on after the process was killed.
func TestDeletion_of_a_long_history(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	p := harness.StartServer(t, database)
	ada := harness.SignUp(t, p, "ada").UserID(t)
	start := harness.SignInAdmin(t, p).EventCursor(t)
	p.Kill()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), fmt.Sprintf(`INSERT INTO events (seq, position, id, type, occurred_at, actor, subject_id, subject_version, user_id, data)
			SELECT 1000000 + i, h.head + i, 'evt_history' || i, 'user.updated', now(), '', '%[1]s', 1, '%[1]s', '{"username":"secret"}'
			FROM generate_series(1, %[2]d) AS i, sequencer AS h;
		UPDATE sequencer SET head = head + %[2]d; SELECT setval('events_seq_seq', 2000000)`, ada, harness.Size(20_000, 200_000)))
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	root := harness.SignInAdmin(t, p)
	root.Do(t, `mutation($id: ID!) { deleteUser(input: {id: $id}) { userErrors { code } } }`, harness.Fields{"id": ada})
	left := func() (n int) {
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM events WHERE CAST(data AS text) LIKE '%secret%'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if left() == 0 {
		t.Log("all was erased before it could be read")
	}
	page, err := root.Send(t.Context(), `query($after: Cursor) { events(after: $after, first: 50) { nodes { type data } } }`, harness.Fields{"after": start})
	if err != nil {
		t.Fatal(err)
	}
	seen := []string{fmt.Sprint(page.Data), string(root.MustREST(t, http.StatusOK, "GET /events?after="+start, "").Body)}
	for transport := range harness.Transports {
		s := harness.Subscribe(t, transport, root, `subscription($after: Cursor) { events(after: $after) { type data } }`, harness.Fields{"after": start})
		seen = append(seen, fmt.Sprint(harness.MustNext(t, s).Event))
	}
	for _, text := range seen {
		if strings.Contains(text, "secret") || !strings.Contains(text, "redacted") {
			t.Errorf("a reader sees %.500s", text)
		}
	}
	p.Kill()
	t.Logf("%d events were left when the process was killed", left())
	p.Start()
	harness.EventuallyWithin(t, 60*time.Second, "the data is erased", func() bool { return left() == 0 })
	harness.RunCommand(t, database, "doctor")
}
