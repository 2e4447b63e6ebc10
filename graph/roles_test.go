package graph_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// callers are one of each kind of principal, two of them customers.
func callers(t *testing.T, s *server) map[string]*auth.Principal {
	t.Helper()
	var ids []uid.User
	for _, n := range s.ask(t, staff, `{ orders(first: 30) { nodes { user { id } } } }`, nil)["orders"].(map[string]any)["nodes"].([]any) {
		id := uid.User(n.(map[string]any)["user"].(map[string]any)["id"].(string))
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	session := func(id uid.User, roles ...auth.Role) *auth.Principal {
		return &auth.Principal{UserID: id, Roles: roles, Credential: staff.Credential}
	}
	key := func(id uid.User, role auth.Role, scopes ...auth.Scope) *auth.Principal {
		return &auth.Principal{UserID: id, Roles: []auth.Role{role}, Credential: auth.APIKeyCredential("key_00000000000000000000000000", scopes...)}
	}
	return map[string]*auth.Principal{
		"anonymous":                     nil,
		"a customer":                    session(ids[0], auth.Customer),
		"another customer":              session(ids[1], auth.Customer),
		"a service":                     session(ids[2], auth.Service),
		"staff":                         session(ids[3], auth.Staff),
		"an admin":                      session(ids[4], auth.Admin),
		"a customer's key for orders":   key(ids[0], auth.Customer, auth.OrdersRead),
		"a customer's key for users":    key(ids[0], auth.Customer, auth.UsersRead),
		"a key of staff for orders":     key(ids[3], auth.Staff, auth.OrdersRead),
		"a key of an admin for nothing": key(ids[4], auth.Admin, auth.ProductsWrite),
	}
}

// TestCallers_get_the_same_with_and_without_in_process_values asks random
// things as every caller, of a server that has everything in memory and of one that holds
// nothing.
func TestCallers_get_the_same_with_and_without_in_process_values(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	answersAlike(t, url, func() *server { return newServer(t, url, holding) })
}

// answersAlike compares what a server answers that keeps what it reads with what one
// answers that does not.
func answersAlike(t *testing.T, url string, keeping func() *server) {
	t.Helper()
	plain := newServer(t, url)
	plain.fill(t, demo.Size{Users: 30, Orders: 60, Lines: 2})
	plain.hide(t)
	plain.number(t)
	warm := keeping()
	documents := &documents{schema: contract(t), rnd: rand.New(rand.NewPCG(1, 2)), ids: plain.ids(t)}
	var some []any
	for _, id := range documents.ids[:100] {
		some = append(some, id)
	}
	warm.ask(t, staff, `query($ids: [ID!]!) { nodes(ids: $ids) { ... on Product { stock } ... on Order { items { sku } } } }`,
		map[string]any{"ids": some})
	principals := callers(t, plain)
	n := 60
	if testenv.Soak() {
		n = 20_000
	}
	answered := 0
	for range n {
		query := documents.random()
		for name, as := range principals {
			want, got := plain.run(t, as, query, nil), warm.run(t, as, query, nil)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s gets something else from what is held (-read +held):\n%s\nfor %s", name, diff, query)
			}
			if strings.HasPrefix(got, "{") {
				answered++
			}
		}
	}
	if answered < n {
		t.Errorf("%d answers without errors to %d documents: the test asks for nothing", answered, n)
	}
}

// hide takes some products from sale, which only staff see then.
func (s *server) hide(t *testing.T) {
	t.Helper()
	for _, n := range s.ask(t, staff, `{ products(first: 20) { nodes { id } } }`, nil)["products"].(map[string]any)["nodes"].([]any) {
		got := s.run(t, staff, `mutation($id: ID!) { updateProduct(input: {id: $id, active: false}) { userErrors { code } } }`, n.(map[string]any))
		if !strings.Contains(got, `"userErrors":[]`) {
			t.Fatalf("updateProduct gave %s", got)
		}
	}
}

// ids returns ids of each kind.
func (s *server) ids(t *testing.T) (ids []string) {
	t.Helper()
	for _, list := range []string{"users(first: 20)", "products(first: 40)", "orders(first: 40)", "events(first: 20)"} {
		nodes := s.ask(t, staff, `{ list: `+list+` { nodes { id } } }`, nil)["list"].(map[string]any)["nodes"].([]any)
		for _, n := range nodes {
			ids = append(ids, n.(map[string]any)["id"].(string))
		}
	}
	return ids
}

// documents makes random queries of a schema.
type documents struct {
	schema *ast.Schema
	rnd    *rand.Rand
	ids    []string
}

func (d *documents) random() string {
	var b strings.Builder
	b.WriteString("{")
	for i := range 1 + d.rnd.IntN(3) {
		for field := ""; field == ""; {
			field = d.field(d.schema.Query.Fields[d.rnd.IntN(len(d.schema.Query.Fields))], 4)
			if field != "" {
				fmt.Fprintf(&b, " f%d: %s", i, field)
			}
		}
	}
	return b.String() + " }"
}

// field selects a field with random arguments and a random part of what is below,
// empty if it needs arguments that the test cannot guess.
func (d *documents) field(f *ast.FieldDefinition, levels int) string {
	args, ok := d.arguments(f)
	def := d.schema.Types[f.Type.Name()]
	switch {
	case !ok || strings.HasPrefix(f.Name, "__"):
		return ""
	case def.IsLeafType():
		return f.Name + args
	case levels == 0:
		return ""
	}
	return f.Name + args + " { " + d.fields(def, levels-1) + " }"
}

func (d *documents) fields(def *ast.Definition, levels int) string {
	all := []string{"__typename"}
	if def.IsAbstractType() {
		for _, possible := range d.schema.GetPossibleTypes(def) {
			all = append(all, fmt.Sprintf("... on %s { %s }", possible.Name, d.fields(possible, levels)))
		}
		return strings.Join(all, " ")
	}
	for _, f := range def.Fields {
		if d.rnd.IntN(2) == 0 {
			continue
		}
		if text := d.field(f, levels); text != "" {
			all = append(all, alias(def, f)+text)
		}
	}
	return strings.Join(all, " ")
}

func (d *documents) arguments(f *ast.FieldDefinition) (text string, ok bool) {
	var given []string
	for _, a := range f.Arguments {
		switch {
		case a.Name == "id":
			given = append(given, fmt.Sprintf("id: %q", d.ids[d.rnd.IntN(len(d.ids))]))
		case a.Name == "ids":
			given = append(given, fmt.Sprintf("ids: [%q, %q]", d.ids[d.rnd.IntN(len(d.ids))], d.ids[d.rnd.IntN(len(d.ids))]))
		case a.Name == "first":
			given = append(given, fmt.Sprintf("first: %d", 1+d.rnd.IntN(4)))
		case a.Type.NonNull && a.DefaultValue == nil:
			return "", false
		}
	}
	if len(given) == 0 {
		return "", true
	}
	return "(" + strings.Join(given, ", ") + ")", true
}
