package orders

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

func TestServer_serves_the_life_of_an_order(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		harness.CreateProduct(t, harness.SignInAdmin(t, p), "TEA", 10)
		ada, bob := harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "bob")

		placed := ada.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("TEA", 3)}})
		id := harness.Text(placed, "placeOrder", "order", "id")
		read := `query($id: ID!) { order(id: $id) { status nextStatuses total { amount currency } user { username }
			items { sku quantity unitPrice { amount } product { stock } } } }`
		order := harness.At(ada.Do(t, read, map[string]any{"id": id}), "order")
		got := fmt.Sprint(harness.Text(order, "status"), harness.At(order, "nextStatuses"), harness.Text(order, "total", "amount"), harness.Text(order, "total", "currency"),
			harness.Text(order, "user", "username"), harness.Text(order, "items", 0, "unitPrice", "amount"), harness.Number(order, "items", 0, "product", "stock"))
		if want := "PENDING[PAID CANCELLED]37.50EURada12.507"; got != want {
			t.Errorf("the order reads %s, want %s", got, want)
		}

		if other := bob.Do(t, read, map[string]any{"id": id}); harness.At(other, "order") != nil {
			t.Errorf("another customer sees %v", other)
		}
		if other := bob.Do(t, `{ orders { nodes { id } totalCount } }`, nil); harness.Number(other, "orders", "totalCount") != 0 {
			t.Errorf("another customer lists %v", other)
		}
		refused := bob.Do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})
		if code := harness.Text(refused, "cancelOrder", "userErrors", 0, "code"); code != "ORDER_NOT_FOUND" {
			t.Errorf("cancelling another's order gave %s, want ORDER_NOT_FOUND", code)
		}

		cancelled := ada.Do(t, `mutation($id: ID!) { cancelOrder(input: {id: $id, reason: "too much"}) {
			order { status version items { product { stock } } } userErrors { code } } }`, map[string]any{"id": id})
		if harness.Text(cancelled, "cancelOrder", "order", "status") != "CANCELLED" || harness.Number(cancelled, "cancelOrder", "order", "items", 0, "product", "stock") != 10 {
			t.Errorf("cancelling gave %v, want CANCELLED and a stock of 10", cancelled)
		}
	})
}

func TestServer_lets_one_of_two_tabs_win(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		ada := harness.SignUp(t, p, "ada")
		id := harness.Text(ada.Do(t, `{ viewer { user { id version } } }`, nil), "viewer", "user", "id")
		var wins, conflicts, current int
		var mu sync.Mutex
		var tabs sync.WaitGroup
		for _, name := range []string{"Ada L.", "A. Lovelace"} {
			tabs.Go(func() {
				data := ada.Do(t, `mutation($id: ID!, $n: String!) { updateUser(input: {id: $id, ifVersion: 1, name: $n}) {
					user { version } userErrors { code } } }`, map[string]any{"id": id, "n": name})
				mu.Lock()
				defer mu.Unlock()
				switch harness.Text(data, "updateUser", "userErrors", 0, "code") {
				case "":
					wins++
				case "VERSION_CONFLICT":
					conflicts++
				}
				current += harness.Number(data, "updateUser", "user", "version")
			})
		}
		tabs.Wait()
		if wins != 1 || conflicts != 1 || current != 4 {
			t.Errorf("%d won, %d conflicted, versions shown add up to %d; want 1, 1, and both to show version 2", wins, conflicts, current)
		}
	})
}

func TestServer_ends_what_a_deleted_or_deactivated_user_could_do(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
	id := harness.Text(ada.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
	harness.CreateProduct(t, root, "TEA", 5)
	ada.Do(t, harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("TEA", 1)}})
	ada.Do(t, `mutation($id: ID!) { deleteUser(input: {id: $id}) { user { username status } userErrors { code } } }`, map[string]any{"id": id})
	harness.Eventually(t, "the deleted user's token stops working", func() bool {
		a, err := ada.Send(t.Context(), `{ viewer { user { id } } }`, nil)
		return err == nil && a.Status == http.StatusUnauthorized
	})
	orders := root.Do(t, `{ orders { nodes { user { username status email } } } }`, nil)
	if name := harness.Text(orders, "orders", "nodes", 0, "user", "username"); !strings.HasPrefix(name, "deleted-") {
		t.Errorf("the order's user reads %q, want a stand-in name", name)
	}
	harness.SignUp(t, p, "ada") // the name is free again
}

func TestServer_moves_paid_orders_on(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		harness.RunCommand(t, database, "migrate")
		harness.RunCommand(t, database, "seed", "--users", "20", "--orders", "60", "--lines", "2")
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		paid := root.Do(t, `{ orders(filter: {status: [PAID]}, first: 2) { nodes { id } } }`, nil)
		vars := map[string]any{"id": harness.Text(paid, "orders", "nodes", 0, "id")}
		for _, step := range []struct{ mutation, status string }{{"shipOrder", "SHIPPED"}, {"deliverOrder", "DELIVERED"}} {
			data := root.Do(t, `mutation($id: ID!) { `+step.mutation+`(input: {id: $id}) { order { status } userErrors { code } } }`, vars)
			if got := harness.Text(data, step.mutation, "order", "status"); got != step.status {
				t.Errorf("%s gave %v, want %s", step.mutation, data, step.status)
			}
		}
		vars["id"] = harness.Text(paid, "orders", "nodes", 1, "id")
		data := root.Do(t, `mutation($id: ID!) { refundOrder(input: {id: $id, reason: "late"}) { order { status nextStatuses refundRequestedAt } userErrors { code } } }`, vars)
		if harness.Text(data, "refundOrder", "order", "status") != "PAID" || harness.Text(data, "refundOrder", "order", "refundRequestedAt") == "" {
			t.Errorf("refundOrder gave %v, want the order PAID with a refund requested", data)
		}
		harness.RunCommand(t, database, "doctor")
	})
}

func TestServer_answers_abuse_with_a_clear_error(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	c := harness.SignInAdmin(t, p)
	deep := strings.Repeat("{ orders { nodes { user ", 50) + "{ id }" + strings.Repeat("} } }", 50)
	bomb := "query { ...F0 }"
	for i := range 29 {
		bomb += fmt.Sprintf(" fragment F%d on Query { ...F%d ...F%d }", i, i+1, i+1)
	}
	bomb += " fragment F29 on Query { __typename }"
	aliases := "{"
	for i := range 10_000 {
		aliases += fmt.Sprintf(" a%d: __typename", i)
	}
	tests := []struct {
		name  string
		query string
		vars  map[string]any
		codes []string
	}{
		{"50 levels of orders and users", deep, nil, []string{"TOO_DEEP"}},
		{"fragments that double", bomb, nil, []string{"FRAGMENTS_TOO_DEEP", "TOO_MANY_FIELDS"}},
		{"a circle of fragments", "query { ...A } fragment A on Query { ...B } fragment B on Query { ...A }", nil, []string{"GRAPHQL_VALIDATION_FAILED"}},
		{"10,000 aliases", aliases + " }", nil, []string{"TOO_MANY_ALIASES", "TOO_MANY_TOKENS", "TOO_MANY_FIELDS"}},
		{"a page of a billion", "{ orders(first: 1000000000) { nodes { id } } }", nil, []string{"PAGE_SIZE_INVALID", "TOO_COMPLEX"}},
		{"a number for a string", `{ userByUsername(username: 5) { id } }`, nil, []string{"GRAPHQL_VALIDATION_FAILED"}},
		{"a NUL in a string", `query($u: String!) { userByUsername(username: $u) { id } }`, map[string]any{"u": "a\x00b"}, []string{"BAD_INPUT"}},
		{"a NUL in a literal", `{ userByUsername(username: "a\u0000b") { id } }`, nil, []string{"BAD_INPUT", "GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED"}},
		{"an id with a NUL", `query($i: ID!) { node(id: $i) { id } }`, map[string]any{"i": "ord_\x00"}, []string{"BAD_INPUT"}},
	}
	for _, tt := range tests {
		a, err := c.Send(t.Context(), tt.query, tt.vars)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		code := ""
		if len(a.Errors) > 0 {
			code, _ = a.Errors[0].Extensions["code"].(string)
		}
		if a.Status >= 500 || !slices.Contains(tt.codes, code) {
			t.Errorf("%s gave status %d, code %q (%+v), want one of %v", tt.name, a.Status, code, a.Errors, tt.codes)
		}
		for _, e := range a.Errors {
			for _, leak := range []string{"model.", "uid.", "pq:", "SQL", "SELECT", "goroutine", ".go:", "github.com/backplane-dev/backplane/"} {
				if strings.Contains(e.Message, leak) {
					t.Errorf("%s: the message leaks %q: %s", tt.name, leak, e.Message)
				}
			}
		}
	}
}
