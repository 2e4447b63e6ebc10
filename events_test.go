package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

const readEvents = `query($first: Int, $after: Cursor, $types: [EventType!], $subject: ID) {
	events(first: $first, after: $after, types: $types, subjectId: $subject) {
		edges { cursor node { id cursor type actor subjectId subjectVersion data subject { __typename id } } }
		pageInfo { hasNextPage hasPreviousPage endCursor } totalCount
	} }`

// events returns the types of the events that the caller sees, and its last
// cursor, once the log is as long as it is meant to be.
func (c caller) events(t *testing.T, want int, vars map[string]any) (types []string, page any) {
	t.Helper()
	eventually(t, fmt.Sprintf("there are %d events", want), func() bool {
		return number(c.do(t, readEvents, vars), "events", "totalCount") >= want
	})
	page = at(c.do(t, readEvents, vars), "events") // again, as an answer reads its page before it counts
	for i := range at(page, "edges").([]any) {
		types = append(types, text(page, "edges", i, "node", "type"))
		if text(page, "edges", i, "cursor") != text(page, "edges", i, "node", "cursor") {
			t.Errorf("edge %d has another cursor than its event", i)
		}
	}
	return types, page
}

func TestServer_shows_everybody_the_events_they_may_see(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		staff := signInAdmin(t, p)
		product := createProduct(t, staff, "TEA", 10)
		ada, bob := signUp(t, p, "ada"), signUp(t, p, "bob")
		id := text(ada.do(t, placeOrder, map[string]any{"items": []any{line("TEA", 3)}}), "placeOrder", "order", "id")
		ada.do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})

		got, page := ada.events(t, 4, nil)
		if want := []string{"PRODUCT_CREATED", "USER_CREATED", "ORDER_PLACED", "ORDER_CANCELLED"}; !slices.Equal(got, want) {
			t.Errorf("ada sees %v, want %v", got, want)
		}
		placed := at(page, "edges", 2, "node")
		if text(placed, "subjectId") != id || text(placed, "subject", "id") != id || text(placed, "subject", "__typename") != "Order" ||
			number(placed, "subjectVersion") != 1 || text(placed, "data", "status") != "PENDING" || !strings.HasPrefix(text(placed, "actor"), "usr_") {
			t.Errorf("the event of the order reads %v", placed)
		}
		if got, _ := bob.events(t, 2, nil); !slices.Equal(got, []string{"PRODUCT_CREATED", "USER_CREATED"}) {
			t.Errorf("bob sees %v, want the product and himself", got)
		}
		if got, _ := staff.events(t, 1, map[string]any{"types": []any{"ORDER_PLACED"}, "subject": id}); len(got) != 1 {
			t.Errorf("staff see %v of the order's placing", got)
		}
		if got, _ := staff.events(t, 1, map[string]any{"subject": product}); !slices.Equal(got, []string{"PRODUCT_CREATED"}) {
			t.Errorf("of the product staff see %v", got)
		}
		for who, want := range map[caller]any{ada: text(placed, "id"), bob: nil} {
			if node := at(who.do(t, `query($id: ID!) { node(id: $id) { id } }`, map[string]any{"id": text(placed, "id")}), "node"); at(node, "id") != want {
				t.Errorf("node(id) of the event gives %v, want %v", node, want)
			}
		}
		history := ada.do(t, `{ orders { nodes { events(last: 1) { nodes { type } pageInfo { hasPreviousPage } totalCount } } } }`, nil)
		if h := at(history, "orders", "nodes", 0, "events"); text(h, "nodes", 0, "type") != "ORDER_CANCELLED" || at(h, "pageInfo", "hasPreviousPage") != true || number(h, "totalCount") != 2 {
			t.Errorf("the order's history reads %v", h)
		}
	})
}

func TestServer_pages_the_log_and_refuses_foreign_cursors(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		staff := signInAdmin(t, p)
		for i := range 5 {
			createProduct(t, staff, fmt.Sprint("SKU", i), 1)
		}
		types := []any{"PRODUCT_CREATED"}
		staff.events(t, 5, map[string]any{"types": types})
		var seen []string
		vars := map[string]any{"first": 2, "types": types}
		for more := true; more; {
			_, page := staff.events(t, 5, vars)
			for i := range at(page, "edges").([]any) {
				seen = append(seen, text(page, "edges", i, "node", "data", "sku"))
			}
			vars["after"], more = text(page, "pageInfo", "endCursor"), at(page, "pageInfo", "hasNextPage") == true
		}
		if want := []string{"SKU0", "SKU1", "SKU2", "SKU3", "SKU4"}; !slices.Equal(seen, want) {
			t.Errorf("the pages hold %v, want %v", seen, want)
		}
		head := text(staff.do(t, `{ eventCursor }`, nil), "eventCursor")
		timeline, _, _ := strings.Cut(head, ".")
		for cursor, want := range map[string]string{
			head: "", timeline + ".0": "", "000000000000.1": "CURSOR_UNKNOWN", timeline + ".999999": "CURSOR_UNKNOWN", "nonsense": "CURSOR_INVALID",
		} {
			if got := staff.refusal(t, readEvents, map[string]any{"after": cursor}); got != want {
				t.Errorf("after %s: %q, want %q", cursor, got, want)
			}
		}
		if got := stranger(p).refusal(t, `{ eventCursor }`, nil); got != "UNAUTHENTICATED" {
			t.Errorf("a stranger's eventCursor: %q, want UNAUTHENTICATED", got)
		}
		p.Stop()
		runCommand(t, database, "migrate", "--after-restore")
		p.Start()
		if got := staff.refusal(t, readEvents, map[string]any{"after": head}); got != "CURSOR_UNKNOWN" {
			t.Errorf("after a restore: %q, want CURSOR_UNKNOWN", got)
		}
	})
}

func TestServer_gives_events_their_places_when_the_node_that_did_so_dies(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"through PostgreSQL", "through Redis"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := settings(testenv.Postgres(t))
			if name == "through Redis" {
				env = append(env, "BACKPLANE_REDIS_URL="+testenv.Redis(t))
			}
			env = append(env, "BACKPLANE_LOG_LEVEL=info")
			runCommand(t, strings.TrimPrefix(env[0], "BACKPLANE_DATABASE_URL="), "migrate")
			first := testenv.Server(t, env...)
			eventually(t, "the first node numbers", func() bool { return strings.Contains(first.Logs(), "this node numbers events") })
			second := testenv.Server(t, env...)
			here, there := signInAdmin(t, first), signInAdmin(t, second)
			types := map[string]any{"types": []any{"PRODUCT_CREATED"}}

			createProduct(t, there, "A", 1)
			there.events(t, 1, types)
			first.Kill()
			createProduct(t, there, "B", 1)
			there.events(t, 2, types)
			first.Start()
			createProduct(t, here, "C", 1)
			second.Stop()
			createProduct(t, here, "D", 1)
			if got, _ := here.events(t, 4, types); len(got) != 4 {
				t.Errorf("the log has %d products, want 4", len(got))
			}
		})
	}
}

// refusal returns the code of the operation's first error, or nothing.
func (c caller) refusal(t *testing.T, query string, vars map[string]any) string {
	t.Helper()
	a, err := c.send(t.Context(), query, vars)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Errors) == 0 {
		return ""
	}
	code, _ := a.Errors[0].Extensions["code"].(string)
	return code
}
