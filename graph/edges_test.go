package graph_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// sizes are the lengths of lists over which the number of statements must not grow.
var sizes = []int{10, 50, 100}

func TestEdges_take_the_same_statements_for_lists_of_any_length(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		query string // %d is the length of the outer list
		want  int
	}{
		{
			"orders with user, items and product",
			`{ orders(first: %d) { nodes { number user { username } items { quantity product { name } } } } }`, 4,
		},
		{
			"the same by way of edges, and twice",
			`{ orders(first: %d) { edges { node { user { username } items { product { name } } } } nodes { items { product { name } } user { name } } } }`, 4,
		},
		{
			"a page of orders of each user, down to the stock",
			`{ users(first: %d) { nodes { orders(first: 3) { nodes { items { product { name stock } } } } } } }`, 5,
		},
		{
			"two lists of each user, counted",
			`{ users(first: %d) { nodes { a: orders(first: 1) { totalCount } b: orders(filter: {status: PAID}, first: 1) { totalCount edges { node { id } } } } } }`, 5,
		},
		{
			"a page of the history of each order, counted, with subjects",
			`{ orders(first: %d) { nodes { events(first: 2) { totalCount nodes { type subject { id } } } } } }`, 4,
		},
		{
			"users of orders of users",
			`{ users(first: %d) { nodes { orders(first: 2) { nodes { user { orders(first: 2) { nodes { user { username } } } } } } } } }`, 4,
		},
		{"products with stock", `{ products(first: %d) { nodes { sku stock } } }`, 2},
		{"events with subjects", `{ events(first: %d, types: [ORDER_PLACED]) { nodes { subject { ... on Order { items { sku } } } } } }`, 3},
	}
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 120, Orders: 300, Lines: 3})
		for _, tt := range tests {
			for _, n := range sizes {
				if got := s.count(t, staff, fmt.Sprintf(tt.query, n), nil); got != tt.want {
					t.Errorf("%s, a list of %d: %d statements, want %d", tt.name, n, got, tt.want)
				}
			}
		}
	})
}

func TestLookups_by_id_share_a_statement(t *testing.T) {
	t.Parallel()
	s := newServer(t, testenv.SQLite(t))
	s.fill(t, demo.Size{Users: 20, Orders: 20, Lines: 1})
	var ids []any
	for _, list := range []string{"users", "products", "orders"} {
		nodes, _ := s.ask(t, staff, `{ list: `+list+`(first: 10) { nodes { id } } }`, nil)["list"].(map[string]any)["nodes"].([]any)
		for _, n := range nodes {
			ids = append(ids, n.(map[string]any)["id"])
		}
	}
	users, orders := "{", "{"
	for i := range 10 {
		users += fmt.Sprintf(" u%d: user(id: %q) { username }", i, ids[i])
		orders += fmt.Sprintf(" o%d: node(id: %q) { ... on Order { number items { sku } } }", i, ids[20+i])
	}
	for _, tt := range []struct {
		name, query string
		vars        map[string]any
		want        int
	}{
		{"nodes of three kinds", `query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Order { user { username } items { sku } } ... on Product { stock } } }`, map[string]any{"ids": ids}, 6},
		{"ten users by id", users + " }", nil, 1},
		{"ten orders by id, and the items of each", orders + " }", nil, 11},
	} {
		if got := s.count(t, staff, tt.query, tt.vars); got != tt.want {
			t.Errorf("%s: %d statements, want %d", tt.name, got, tt.want)
		}
	}
}

// TestEdges_of_the_whole_schema_are_declared asks for everything that each list of
// the schema leads to, for short and for long lists: a field that reads something
// without a declaration in package loader takes a statement for each item.
func TestEdges_of_the_whole_schema_are_declared(t *testing.T) {
	t.Parallel()
	s := newServer(t, testenv.SQLite(t))
	s.fill(t, demo.Size{Users: 40, Orders: 200, Lines: 2})
	schema, lists := contract(t), 0
	for _, f := range schema.Query.Fields {
		if !strings.HasSuffix(f.Type.Name(), "Connection") {
			continue
		}
		lists++
		for _, of := range schema.Types[schema.Types[f.Type.Name()].Fields.ForName("nodes").Type.Name()].Fields {
			query := func(n int) string {
				return fmt.Sprintf("{ %s(first: %d) { nodes { %s } } }", f.Name, n, everything(schema, of, 4))
			}
			few, many := s.count(t, staff, query(3), nil), s.count(t, staff, query(30), nil)
			if many > few {
				t.Errorf("%s: %d statements for 3 items, %d for 30; declare the edge in package loader", query(30), few, many)
			}
		}
	}
	if lists == 0 {
		t.Error("the schema has no list")
	}
}

// everything selects a field with all that it leads to, so many levels deep.
func everything(schema *ast.Schema, f *ast.FieldDefinition, levels int) string {
	def := schema.Types[f.Type.Name()]
	if def.IsLeafType() {
		return f.Name
	}
	args := ""
	switch {
	case f.Arguments.ForName("first") != nil:
		args = "(first: 2)"
	case f.Arguments.ForName("instanceId") != nil:
		args = `(instanceId: "till-1")`
	}
	return f.Name + args + " { " + fields(schema, def, levels) + " }"
}

func fields(schema *ast.Schema, def *ast.Definition, levels int) string {
	if def.IsAbstractType() {
		var all []string
		for _, possible := range schema.GetPossibleTypes(def) {
			all = append(all, fmt.Sprintf("... on %s { __typename %s }", possible.Name, fields(schema, possible, levels)))
		}
		return strings.Join(all, " ")
	}
	all := []string{"__typename"}
	for _, f := range def.Fields {
		leaf := schema.Types[f.Type.Name()].IsLeafType()
		if leaf || levels > 0 && f.Name != "edges" && f.Name != "pageInfo" {
			all = append(all, alias(def, f)+everything(schema, f, levels-1))
		}
	}
	return strings.Join(all, " ")
}

// alias keeps fields of different types at one position apart.
func alias(def *ast.Definition, f *ast.FieldDefinition) string {
	return strings.ToLower(def.Name) + "_" + f.Name + ": "
}

func TestNodes_know_every_kind_of_id(t *testing.T) {
	t.Parallel()
	s := newServer(t, testenv.SQLite(t))
	for _, kind := range uid.Kinds() {
		if kind == uid.KindService || kind == uid.KindInstance {
			continue // every node has these in memory; registry_test.go asks for them
		}
		id := string(kind) + "_00000000000000000000000000"
		if got := s.count(t, staff, `query($id: ID!) { node(id: $id) { id } }`, map[string]any{"id": id}); got != 1 {
			t.Errorf("node(id: %q) took %d statements, want 1: package loader knows nothing of the kind", id, got)
		}
	}
}

func TestEdges_of_payloads_are_read_in_bulk(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 2, Orders: 1, Lines: 1, Products: 100})
		products := s.ask(t, staff, `{ products(first: 100, filter: {active: true}) { nodes { sku } } }`, nil)
		user := s.ask(t, staff, `{ users(first: 1, filter: {status: ACTIVE}) { nodes { id } } }`, nil)
		as := &auth.Principal{UserID: uid.User(user["users"].(map[string]any)["nodes"].([]any)[0].(map[string]any)["id"].(string)), Credential: staff.Credential}
		var took []int
		for _, lines := range []int{2, 40} {
			var items []any
			for _, n := range products["products"].(map[string]any)["nodes"].([]any)[:lines] {
				items = append(items, map[string]any{"sku": n.(map[string]any)["sku"], "quantity": 1})
			}
			s.take()
			got := s.run(t, as, `mutation($items: [OrderItemInput!]!) { placeOrder(input: {items: $items}) {
				order { user { username } items { product { sku stock } } } userErrors { code } } }`, map[string]any{"items": items})
			if !strings.Contains(got, `"userErrors":[]`) {
				t.Fatalf("placeOrder gave %s", got)
			}
			took = append(took, len(reads(s.take())))
		}
		if took[0] != 4 || took[1] != 4 {
			t.Errorf("payloads of orders with 2 and 40 lines took %v statements, want 4 each: user, items, products, stocks", took)
		}
	})
}

// reads returns the statements behind the last COMMIT.
func reads(list []string) []string {
	for i, q := range slices.Backward(list) {
		if q == "COMMIT" {
			return list[i+1:]
		}
	}
	return list
}

// TestEdges_of_events_are_read_in_bulk_for_each_response follows the log: each response has
// loaders of its own, which take what a query takes and know nothing of the last.
func TestEdges_of_events_are_read_in_bulk_for_each_response(t *testing.T) {
	t.Parallel()
	s := newServer(t, testenv.SQLite(t))
	s.fill(t, demo.Size{Users: 2, Orders: 12, Lines: 20})
	ctx, cancel := context.WithCancel(auth.With(t.Context(), staff))
	defer cancel()
	var hub sync.WaitGroup
	hub.Go(func() { s.hub.Run(ctx) }) //nolint:errcheck // it has none
	defer hub.Wait()
	defer cancel()
	start := s.ask(t, staff, `{ events(first: 1) { edges { cursor } } }`, nil)["events"].(map[string]any)["edges"].([]any)[0].(map[string]any)["cursor"]
	op, refusal := s.exec.Prepare(ctx, executor.Request{
		Query: `subscription($after: Cursor) { events(after: $after, types: [ORDER_PLACED]) {
			subject { ... on Order { user { name } items { product { name stock } } } } } }`,
		Variables: map[string]any{"after": start},
	})
	if refusal != nil {
		t.Fatal(refusal.Errors)
	}
	next := s.exec.Stream(ctx, op)
	defer next.Close()
	for i := range 3 {
		s.take()
		resp := next.Next(ctx, func() {})
		if len(resp.Errors) > 0 || !strings.Contains(string(resp.Data), `"stock":`) {
			t.Fatalf("response %d: %s, %v", i, resp.Data, resp.Errors)
		}
		var took []string
		for _, q := range s.take() {
			if !isOfLog(q) {
				took = append(took, q)
			}
		}
		if len(took) != 5 {
			t.Errorf("response %d took %d statements, want 5: subject, user, items, products, stocks\n%s", i, len(took), strings.Join(took, "\n"))
		}
	}
}

// isOfLog reports whether a statement reads the log.
func isOfLog(query string) bool {
	return strings.Contains(query, "FROM events") || strings.Contains(query, "timelines")
}

func TestEdges_take_no_statement_for_values_in_memory(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url, holding)
		s.fill(t, demo.Size{Users: 120, Orders: 300, Lines: 3})
		byID := s.ask(t, staff, `{ users(first: 1) { nodes { id } } }`, nil)["users"].(map[string]any)["nodes"].([]any)[0].(map[string]any)
		for _, tt := range []struct {
			name, query string
			want        int // once it is held
		}{
			{"a user by id", `query($id: ID!) { user(id: $id) { username email } }`, 0},
			{"the same as a node", `query($id: ID!) { node(id: $id) { ... on User { username } } }`, 0},
			{"orders with user, items and product", fiftyOrders, 1},
			{"products with stock", `{ products(first: 100) { nodes { name stock } } }`, 1},
		} {
			vars := byID
			if !strings.Contains(tt.query, "$id") {
				vars = nil
			}
			s.ask(t, staff, tt.query, vars)
			if got := s.count(t, staff, tt.query, vars); got != tt.want {
				t.Errorf("%s took %d statements the second time, want %d", tt.name, got, tt.want)
			}
		}
	})
}

func TestEdges_read_at_most_500_keys_a_statement(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 103, Orders: 3000, Lines: 1})
		s.take()
		s.run(t, staff, largeBatch, nil)
		if got := len(s.take()); got != 6 {
			t.Errorf("the items of 2,000 orders took %d statements with their users and orders, want 6: 500 keys in each", got)
		}
	})
}
