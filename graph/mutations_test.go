package graph_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// TestMutations_of_one_document_read_afresh checks that no mutation answers with what another of
// its document has read before it, on each kind of edge: an object of its own, a page and its
// count, a list of lines.
func TestMutations_of_one_document_read_afresh(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 3, Orders: 3, Lines: 1})
		s.ask(t, staff, `mutation { createProduct(input: {sku: "FRESH", name: "Fresh", price: {amount: "1.00", currency: "EUR"}, stock: 10}) { product { id } } }`, nil)
		id := s.ask(t, staff, `{ productBySku(sku: "FRESH") { id } }`, nil)["productBySku"].(map[string]any)["id"]
		user := s.ask(t, staff, `mutation { createUser(input: {username: "fresh"}) { user { id } } }`, nil)["createUser"].(map[string]any)["user"].(map[string]any)["id"]
		got := s.run(t, staff, `mutation($p: ID!, $u: ID!) {
			a: adjustStock(input: {productId: $p, by: 5}) { product { stock } }
			b: adjustStock(input: {productId: $p, by: -3}) { product { stock } }
			c: adjustStock(input: {productId: $p, by: 10}) { product { stock } }
			d: placeOrder(input: {items: [{sku: "FRESH", quantity: 2}], userId: $u}) { ...Placed }
			e: placeOrder(input: {items: [{sku: "FRESH", quantity: 3}], userId: $u}) { ...Placed }
			f: updateUser(input: {id: $u, name: "Fresh"}) { user { name orders(first: 0) { totalCount } } }
		}
		fragment Placed on PlaceOrderPayload {
			order { user { name orders(orderBy: TOTAL_ASC) { totalCount nodes { total { amount } } } } items { product { stock } } }
		}`, map[string]any{"p": id, "u": user})
		want := `{"a":{"product":{"stock":15}},"b":{"product":{"stock":12}},"c":{"product":{"stock":22}},
			"d":{"order":{"user":{"name":"","orders":{"totalCount":1,"nodes":[{"total":{"amount":"2.00"}}]}},"items":[{"product":{"stock":20}}]}},
			"e":{"order":{"user":{"name":"","orders":{"totalCount":2,"nodes":[{"total":{"amount":"2.00"}},{"total":{"amount":"3.00"}}]}},"items":[{"product":{"stock":17}}]}},
			"f":{"user":{"name":"Fresh","orders":{"totalCount":2}}}}`
		if want = strings.NewReplacer("\n", "", "\t", "").Replace(want); got != want {
			t.Errorf("the mutations answered\n%s, want\n%s", got, want)
		}
	})
}

// TestRefusals_leave_the_other_fields_of_a_document selects every root field that refuses a
// caller next to one that answers: the answer stays.
func TestRefusals_leave_the_other_fields_of_a_document(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	keyWithoutScopes := &auth.Principal{UserID: uid.NewUser(time.Unix(0, 0)), Roles: []auth.Role{auth.Customer}, Credential: auth.APIKeyCredential("key_00000000000000000000000000")}
	refused := 0
	for _, op := range m.operations() {
		root, _, _ := strings.Cut(op.name, ".")
		if root == "Subscription" {
			continue
		}
		// A mutation that any caller may try, and whose input is refused by a rule.
		answered := "other: products(first: 1) { totalCount } "
		if root == "Mutation" {
			answered = `other: signIn(input: {login: "x", password: "x"}) { userErrors { code } } `
		}
		document := strings.Replace(op.document, "{ field:", "{ "+answered+"field:", 1)
		for name, as := range map[string]*auth.Principal{"anonymous": nil, "a key without scopes": keyWithoutScopes} {
			ctx := t.Context()
			if as != nil {
				ctx = auth.With(ctx, as)
			}
			prepared, refusal := m.exec.Prepare(ctx, executor.Request{Query: document, Variables: op.variables})
			if refusal != nil {
				t.Fatalf("%s is refused: %v", document, refusal.Errors)
			}
			resp, err := m.exec.Run(ctx, prepared)
			if err != nil {
				t.Fatal(err)
			}
			var data map[string]json.RawMessage
			if err := json.Unmarshal(resp.Data, &data); err != nil || len(data["other"]) < len(`{"x":`) {
				t.Errorf("%s for %s: data = %s (%v), want the answer of the other field", op.name, name, resp.Data, resp.Errors)
			}
			if len(resp.Errors) > 0 {
				refused++
			}
		}
	}
	if refused < 80 {
		t.Errorf("%d calls were refused, want 80 or more: the test covers nothing else", refused)
	}
}

func TestMutations_keep_the_result_of_one_when_another_is_refused(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 3, Orders: 3, Lines: 1})
		order := s.ask(t, staff, `{ orders(first: 1) { nodes { user { id } items { sku } } } }`, nil)["orders"].(map[string]any)["nodes"].([]any)[0].(map[string]any)
		s.ask(t, staff, `mutation { createProduct(input: {sku: "KEPT", name: "Kept", stock: 5, price: {amount: "1.00", currency: "EUR"}}) { product { id } } }`, nil)
		customer := &auth.Principal{
			UserID: uid.User(order["user"].(map[string]any)["id"].(string)), Roles: []auth.Role{auth.Customer},
			Credential: auth.SessionCredential("ses_00000000000000000000000000"),
		}
		got := s.run(t, customer, `mutation {
			a: placeOrder(input: {items: [{sku: "KEPT", quantity: 1}]}) { order { itemCount } }
			b: createProduct(input: {sku: "X", name: "X", price: {amount: "1.00", currency: "EUR"}}) { product { id } }
			c: placeOrder(input: {items: [{sku: "KEPT", quantity: 2}]}) { order { itemCount } }
		}`, nil)
		if want := `{"a":{"order":{"itemCount":1}},"b":null,"c":{"order":{"itemCount":1}}}`; !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "input:3:4: b This needs the role STAFF or ADMIN.\n") {
			t.Errorf("the mutations answered %s, want an error of b and %s", got, want)
		}
	})
}
