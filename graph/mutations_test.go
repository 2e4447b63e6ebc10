package graph_test

import (
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/testenv"
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
			order { user { name orders(orderBy: TOTAL_ASC) { totalCount nodes { itemCount } } } items { product { stock } } }
		}`, map[string]any{"p": id, "u": user})
		want := `{"a":{"product":{"stock":15}},"b":{"product":{"stock":12}},"c":{"product":{"stock":22}},
			"d":{"order":{"user":{"name":"","orders":{"totalCount":1,"nodes":[{"itemCount":2}]}},"items":[{"product":{"stock":20}}]}},
			"e":{"order":{"user":{"name":"","orders":{"totalCount":2,"nodes":[{"itemCount":2},{"itemCount":3}]}},"items":[{"product":{"stock":17}}]}},
			"f":{"user":{"name":"Fresh","orders":{"totalCount":2}}}}`
		if want = strings.NewReplacer("\n", "", "\t", "").Replace(want); got != want {
			t.Errorf("the mutations answered\n%s, want\n%s", got, want)
		}
	})
}
