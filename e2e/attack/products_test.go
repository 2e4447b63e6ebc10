package attack

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// TestProducts_that_are_hidden_read_as_absent asks for a product that is not for sale and for one that does not exist, in each way
// that there is. The answers differ in what the caller sent alone.
func TestProducts_that_are_hidden_read_as_absent(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		hidden := harness.Text(root.Do(t, `mutation { createProduct(input: {sku: "HIDDEN", name: "x", price: {amount: "1.00", currency: "EUR"}, stock: 10, active: false, legacyId: "777"}) {
			product { id } } }`, nil), "createProduct", "product", "id")
		harness.CreateProduct(t, root, "SHOWN", 10)
		absent := hidden[:len(hidden)-4] + "0000"
		customer := harness.SignUp(t, p, "ada")
		queries := []string{
			`{ product(id: "ID") { id } }`, `{ productBySku(sku: "SKU") { id } }`, `{ node(id: "ID") { id } nodes(ids: ["ID"]) { id } }`,
			`{ products(filter: {skus: ["SKU"]}) { nodes { id } totalCount pageInfo { endCursor } } }`, `{ products(filter: {legacyId: "LEGACY"}) { nodes { id } totalCount } }`,
			`{ products(filter: {active: false, skus: ["SKU"]}) { nodes { id } totalCount } }`,
			`mutation { placeOrder(input: {items: [{sku: "SHOWN", quantity: 1}, {sku: "SKU", quantity: 1}]}) { order { id } userErrors { code message path } } }`,
			`mutation { placeOrder(input: {items: [{sku: "SKU", quantity: 999999}]}) { order { id } userErrors { code message path } } }`,
			`mutation { adjustStock(input: {productId: "ID", by: 1}) { product { id } userErrors { code message path } } }`,
			`mutation { updateProduct(input: {id: "ID", name: "x"}) { product { id } userErrors { code message path } } }`,
			`{ events(subjectId: "ID") { nodes { id } totalCount } }`,
		}
		routes := [][2]string{
			{"GET /products/ID", ""}, {"GET /products/LEGACY", ""}, {"PATCH /products/ID", `{"name": "x"}`},
			{"POST /orders", `{"items": [{"sku": "SKU", "quantity": 1}]}`},
		}
		fill := func(text string, exists bool) string {
			if exists {
				return strings.NewReplacer("ID", hidden, "SKU", "HIDDEN", "LEGACY", "777").Replace(text)
			}
			return strings.NewReplacer("ID", absent, "SKU", "ABSENT", "LEGACY", "778").Replace(text)
		}
		mask := strings.NewReplacer(hidden, "ID", absent, "ID", "HIDDEN", "SKU", "ABSENT", "SKU", "777", "LEGACY", "778", "LEGACY")
		for name, c := range map[string]harness.Caller{"a customer": customer, "an anonymous caller": harness.Anonymous(p)} {
			for _, q := range queries {
				var answers [2]string
				for i, exists := range []bool{true, false} {
					a, err := c.Send(t.Context(), fill(q, exists), nil)
					if err != nil {
						t.Fatal(err)
					}
					answers[i] = mask.Replace(fmt.Sprintf("%d %v %v", a.Status, a.Data, a.Errors))
				}
				if answers[0] != answers[1] {
					t.Errorf("%s sends %s and gets\n%s for a hidden product, and\n%s for an absent one", name, q, answers[0], answers[1])
				}
			}
			for _, r := range routes {
				var answers [2]string
				for i, exists := range []bool{true, false} {
					a, err := c.REST(t.Context(), fill(r[0], exists), fill(r[1], exists), "Content-Type", "application/json", "X-Request-Id", "equal")
					if err != nil {
						t.Fatal(err)
					}
					answers[i] = mask.Replace(fmt.Sprintf("%d %s", a.Status, a.Body))
					if a.Status < http.StatusBadRequest {
						t.Errorf("%s calls %s and gets %s", name, r[0], answers[i])
					}
				}
				if answers[0] != answers[1] {
					t.Errorf("%s calls %s and gets\n%s for a hidden product, and\n%s for an absent one", name, r[0], answers[0], answers[1])
				}
			}
		}
	})
}
