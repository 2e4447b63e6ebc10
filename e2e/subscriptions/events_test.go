package subscriptions

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestServer_shows_each_caller_the_events_it_may_see(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		staff := harness.SignInAdmin(t, p)
		product := harness.CreateProduct(t, staff, "TEA", 10)
		ada, bob := harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "bob")
		id := harness.Text(ada.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("TEA", 3)}}), "placeOrder", "order", "id")
		ada.Do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})

		got, page := ada.Events(t, 4, nil)
		if want := []string{"PRODUCT_CREATED", "USER_CREATED", "ORDER_PLACED", "ORDER_CANCELLED"}; !slices.Equal(got, want) {
			t.Errorf("ada sees %v, want %v", got, want)
		}
		placed := harness.At(page, "edges", 2, "node")
		if harness.Text(placed, "subjectId") != id || harness.Text(placed, "subject", "id") != id || harness.Text(placed, "subject", "__typename") != "Order" ||
			harness.Number(placed, "subjectVersion") != 1 || harness.Text(placed, "data", "status") != "PENDING" || !strings.HasPrefix(harness.Text(placed, "actor"), "usr_") {
			t.Errorf("the event of the order reads %v", placed)
		}
		if got, _ := bob.Events(t, 2, nil); !slices.Equal(got, []string{"PRODUCT_CREATED", "USER_CREATED"}) {
			t.Errorf("bob sees %v, want the product and himself", got)
		}
		if got, _ := staff.Events(t, 1, map[string]any{"types": []any{"ORDER_PLACED"}, "subject": id}); len(got) != 1 {
			t.Errorf("staff see %v of the order's placing", got)
		}
		if got, _ := staff.Events(t, 1, map[string]any{"subject": product}); !slices.Equal(got, []string{"PRODUCT_CREATED"}) {
			t.Errorf("of the product staff see %v", got)
		}
		for caller, want := range map[harness.Caller]any{ada: harness.Text(placed, "id"), bob: nil} {
			if node := harness.At(caller.Do(t, `query($id: ID!) { node(id: $id) { id } }`, map[string]any{"id": harness.Text(placed, "id")}), "node"); harness.At(node, "id") != want {
				t.Errorf("node(id) of the event gives %v, want %v", node, want)
			}
		}
		history := ada.Do(t, `{ orders { nodes { events(last: 1) { nodes { type } pageInfo { hasPreviousPage } totalCount } } } }`, nil)
		if h := harness.At(history, "orders", "nodes", 0, "events"); harness.Text(h, "nodes", 0, "type") != "ORDER_CANCELLED" || harness.At(h, "pageInfo", "hasPreviousPage") != true || harness.Number(h, "totalCount") != 2 {
			t.Errorf("the order's history reads %v", h)
		}
	})
}

func TestServer_pages_the_log_and_refuses_foreign_cursors(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		staff := harness.SignInAdmin(t, p)
		for i := range 5 {
			harness.CreateProduct(t, staff, fmt.Sprint("SKU", i), 1)
		}
		types := []any{"PRODUCT_CREATED"}
		staff.Events(t, 5, map[string]any{"types": types})
		var seen []string
		vars := map[string]any{"first": 2, "types": types}
		for more := true; more; {
			_, page := staff.Events(t, 5, vars)
			for i := range harness.At(page, "edges").([]any) {
				seen = append(seen, harness.Text(page, "edges", i, "node", "data", "sku"))
			}
			vars["after"], more = harness.Text(page, "pageInfo", "endCursor"), harness.At(page, "pageInfo", "hasNextPage") == true
		}
		if want := []string{"SKU0", "SKU1", "SKU2", "SKU3", "SKU4"}; !slices.Equal(seen, want) {
			t.Errorf("the pages hold %v, want %v", seen, want)
		}
		head := harness.Text(staff.Do(t, `{ eventCursor }`, nil), "eventCursor")
		codec := harness.Cursors(t, database)
		beyond := harness.DecodeCursor(t, codec, head)
		start := event.Cursor{Timeline: beyond.Timeline}
		beyond.Position += 1000
		for cursor, want := range map[string]string{
			head: "", codec.Encode(start): "", start.String(): "", "000000000000.1": "CURSOR_UNKNOWN", beyond.String(): "CURSOR_UNKNOWN",
			codec.Encode(beyond): "CURSOR_UNKNOWN", "nonsense": "CURSOR_INVALID",
		} {
			if got := staff.RefusalCode(t, harness.ReadEvents, map[string]any{"after": cursor}); got != want {
				t.Errorf("after %s: %q, want %q", cursor, got, want)
			}
		}
		if got := harness.Anonymous(p).RefusalCode(t, `{ eventCursor }`, nil); got != "UNAUTHENTICATED" {
			t.Errorf("an anonymous caller's eventCursor: %q, want UNAUTHENTICATED", got)
		}
		p.Stop()
		harness.RunCommand(t, database, "migrate", "--after-restore")
		p.Start()
		if got := staff.RefusalCode(t, harness.ReadEvents, map[string]any{"after": head}); got != "CURSOR_UNKNOWN" {
			t.Errorf("after a restore: %q, want CURSOR_UNKNOWN", got)
		}
	})
}

func TestServer_gives_events_positions_when_the_sequencer_dies(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"through PostgreSQL", "through Redis"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := harness.Settings(testenv.Postgres(t))
			if name == "through Redis" {
				env = append(env, "BACKPLANE_REDIS_URL="+testenv.Redis(t))
			}
			env = append(env, "BACKPLANE_LOG_LEVEL=info")
			harness.RunCommand(t, strings.TrimPrefix(env[0], "BACKPLANE_DATABASE_URL="), "migrate")
			first := testenv.Server(t, env...)
			harness.Eventually(t, "the first node numbers", func() bool { return strings.Contains(first.Logs(), "sequencer started") })
			second := testenv.Server(t, env...)
			here, there := harness.SignInAdmin(t, first), harness.SignInAdmin(t, second)
			types := map[string]any{"types": []any{"PRODUCT_CREATED"}}

			harness.CreateProduct(t, there, "A", 1)
			there.Events(t, 1, types)
			first.Kill()
			harness.CreateProduct(t, there, "B", 1)
			there.Events(t, 2, types)
			first.Start()
			harness.CreateProduct(t, here, "C", 1)
			second.Stop()
			harness.CreateProduct(t, here, "D", 1)
			if got, _ := here.Events(t, 4, types); len(got) != 4 {
				t.Errorf("the log has %d products, want 4", len(got))
			}
		})
	}
}
