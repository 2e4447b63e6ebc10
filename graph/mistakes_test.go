package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// userErrorsOf calls a mutation and returns its userErrors, as path and code.
func (s *server) userErrorsOf(t *testing.T, as *auth.Principal, mutation, input string) (all []string) {
	t.Helper()
	payload := s.ask(t, as, `mutation { `+mutation+`(input: {`+input+`}) { userErrors { path code } } }`, nil)[mutation].(map[string]any)
	for _, e := range payload["userErrors"].([]any) {
		var path []string
		for _, part := range e.(map[string]any)["path"].([]any) {
			path = append(path, part.(string))
		}
		all = append(all, strings.Join(path, ".")+" "+e.(map[string]any)["code"].(string))
	}
	return all
}

func TestUserErrors_list_every_mistake_of_an_input(t *testing.T) {
	t.Parallel()
	s := newServer(t, testenv.SQLite(t))
	s.fill(t, demo.Size{Users: 2, Orders: 2, Lines: 1})
	product := s.ask(t, staff, `{ products(first: 1) { nodes { id } } }`, nil)["products"].(map[string]any)["nodes"].([]any)[0].(map[string]any)["id"]
	user := s.ask(t, staff, `{ users(first: 1) { nodes { id } } }`, nil)["users"].(map[string]any)["nodes"].([]any)[0].(map[string]any)["id"]
	service := s.ask(t, staff, `mutation { registerService(input: {name: "echo"}) { service { id } } }`, nil)["registerService"].(map[string]any)["service"].(map[string]any)["id"]
	for _, tt := range []struct {
		mutation, input string
		want            []string
	}{
		{
			"createProduct", `sku: "a b", name: " ", description: "\u0001", price: {amount: "1.999", currency: "EUR"}, stock: -1, legacyId: "."`,
			[]string{"sku SKU_INVALID", "name BAD_INPUT", "description BAD_INPUT", "price.amount AMOUNT_INVALID", "stock STOCK_INVALID", "legacyId LEGACY_ID_INVALID"},
		},
		{
			"updateProduct", fmt.Sprintf(`id: %q, sku: "a b", name: null, price: {amount: "1", currency: "XXX"}, active: null, legacyId: ".."`, product),
			[]string{"sku SKU_INVALID", "name BAD_INPUT", "active BAD_INPUT", "price.currency CURRENCY_UNKNOWN", "legacyId LEGACY_ID_INVALID"},
		},
		{
			"createUser", `username: "", email: "x", name: "\u200b", password: "short", roles: [STAFF, STAFF], legacyId: "a b"`,
			[]string{"username USERNAME_INVALID", "email EMAIL_INVALID", "name BAD_INPUT", "roles BAD_INPUT", "legacyId LEGACY_ID_INVALID", "password PASSWORD_INVALID"},
		},
		{
			"signUp", `username: "", email: "x", password: "correct horse", name: "\u200b"`,
			[]string{"username USERNAME_INVALID", "email EMAIL_INVALID", "name BAD_INPUT"},
		},
		{
			"signUp", `username: "a!", email: "lovelace@example", password: "lovelace123"`,
			[]string{"username USERNAME_INVALID", "email EMAIL_INVALID", "password PASSWORD_INVALID"},
		},
		{
			"updateUser", fmt.Sprintf(`id: %q, username: "a!", email: "x", name: null, status: DELETED, roles: []`, user),
			[]string{"username USERNAME_INVALID", "email EMAIL_INVALID", "roles BAD_INPUT", "status BAD_INPUT", "name BAD_INPUT"},
		},
		{
			"placeOrder", `items: [{sku: "a b", quantity: 0}, {sku: "SKU", quantity: -1}, {sku: "SKU", quantity: 1}], note: "\u0001", expectedTotal: {amount: "1.999", currency: "EUR"}, legacyId: "."`,
			[]string{
				"items.0.sku PRODUCT_NOT_FOUND", "items.0.quantity QUANTITY_INVALID", "items.1.quantity QUANTITY_INVALID", "items.2.sku ORDER_LINES_INVALID",
				"note BAD_INPUT", "expectedTotal.amount AMOUNT_INVALID", "legacyId LEGACY_ID_INVALID",
			},
		},
		{
			"placeOrder", fmt.Sprintf(`userId: %q, items: [{sku: "NONE", quantity: 1}, {sku: "NEITHER", quantity: 1}]`, user),
			[]string{"items.0.sku PRODUCT_NOT_FOUND", "items.1.sku PRODUCT_NOT_FOUND"},
		},
		{
			"registerService", `name: "till", description: "\u0001", tags: ["a b"], metadata: {a: "\u0001"}, healthCheck: {path: "x", interval: "1ns", healthyThreshold: 99, unhealthyThreshold: -1}`,
			[]string{
				"description BAD_INPUT", "tags SERVICE_INVALID", "metadata.a BAD_INPUT", "healthCheck.path SERVICE_INVALID", "healthCheck.interval SERVICE_INVALID",
				"healthCheck.timeout SERVICE_INVALID", "healthCheck.healthyThreshold SERVICE_INVALID", "healthCheck.unhealthyThreshold SERVICE_INVALID",
			},
		},
		{
			"updateService", fmt.Sprintf(`id: %q, description: null, tags: ["a b"], trusted: true`, service),
			[]string{"tags SERVICE_INVALID", "trustedAddresses SERVICE_INVALID", "description BAD_INPUT"},
		},
		{
			"registerInstance", `service: "echo", instanceId: "a b", url: "ftp://x", weight: 0, incarnation: -1, ttl: "1ns"`,
			[]string{"instanceId INSTANCE_INVALID", "url INSTANCE_INVALID", "incarnation INSTANCE_INVALID", "ttl INSTANCE_INVALID"},
		},
		{
			"createApiKey", `name: " ", scopes: ["none"], expiresAt: "2001-01-01T00:00:00Z"`,
			[]string{"name BAD_INPUT", "scopes SCOPE_INVALID", "expiresAt EXPIRY_INVALID"},
		},
	} {
		if diff := cmp.Diff(tt.want, s.userErrorsOf(t, staff, tt.mutation, tt.input)); diff != "" {
			t.Errorf("%s(%s) (-want +got):\n%s", tt.mutation, tt.input, diff)
		}
	}
}

func TestPlaceOrder_is_placed_at_the_total_that_was_agreed_to(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 2, Orders: 2, Lines: 1})
		user := s.ask(t, staff, `{ users(first: 1) { nodes { id } } }`, nil)["users"].(map[string]any)["nodes"].([]any)[0].(map[string]any)["id"].(string)
		created := s.ask(t, staff, `mutation { createProduct(input: {sku: "MOVES", name: "Moves", stock: 9, price: {amount: "1.00", currency: "EUR"}}) { product { id } } }`, nil)
		product := created["createProduct"].(map[string]any)["product"].(map[string]any)["id"]
		as := &auth.Principal{UserID: uid.User(user), Roles: []auth.Role{auth.Customer}, Credential: auth.SessionCredential("ses_00000000000000000000000000")}
		place := func(amount, currency string) string {
			return s.run(t, as, `mutation($total: MoneyInput) { placeOrder(input: {items: [{sku: "MOVES", quantity: 3}], expectedTotal: $total}) {
				order { total { amount } } currentTotal { amount currency } userErrors { code path message } } }`,
				map[string]any{"total": map[string]any{"amount": amount, "currency": currency}})
		}
		placed := `{"placeOrder":{"order":{"total":{"amount":"%s"}},"currentTotal":null,"userErrors":[]}}`
		moved := `{"placeOrder":{"order":null,"currentTotal":{"amount":"%s","currency":"EUR"},"userErrors":[{"code":"PRICE_CHANGED","path":["expectedTotal"],"message":"The prices have changed: the order costs %[1]s EUR now."}]}}`
		if got, want := place("3", "EUR"), fmt.Sprintf(placed, "3.00"); got != want {
			t.Errorf("an order at its total = %s, want %s", got, want)
		}
		s.ask(t, staff, `mutation($id: ID!) { updateProduct(input: {id: $id, price: {amount: "1.01", currency: "EUR"}}) { userErrors { code } } }`, map[string]any{"id": product})
		for _, total := range [][2]string{{"3.00", "EUR"}, {"3.04", "EUR"}, {"3.03", "USD"}} {
			if got, want := place(total[0], total[1]), fmt.Sprintf(moved, "3.03"); got != want {
				t.Errorf("an order at %v = %s, want %s", total, got, want)
			}
		}
		if got, want := place("3.03", "EUR"), fmt.Sprintf(placed, "3.03"); got != want {
			t.Errorf("an order at its new total = %s, want %s", got, want)
		}
		if stock := s.run(t, staff, `{ productBySku(sku: "MOVES") { stock } }`, nil); stock != `{"productBySku":{"stock":3}}` {
			t.Errorf("the stock is %s, want 3: what was refused takes nothing", stock)
		}
	})
}
