package attack

import (
	"fmt"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// longLists are operations that take a list, each with the format of its values.
var longLists = map[string]struct{ query, format string }{
	"products":          {`query($list: [String!]) { products(filter: {skus: $list}) { totalCount } }`, "S%d"},
	"nodes":             {`query($list: [ID!]!) { nodes(ids: $list) { id } }`, "prd_%026d"},
	"events":            {`query($list: [EventType!]) { events(types: $list) { totalCount } }`, "ORDER_PLACED%.0d"},
	"orders":            {`query($list: [OrderStatus!]) { orders(filter: {status: $list}) { totalCount } }`, "PAID%.0d"},
	"payments":          {`query($list: [PaymentStatus!]) { payments(filter: {status: $list}) { totalCount } }`, "PENDING%.0d"},
	"replayDeadLetters": {`mutation($list: [ID!]) { replayDeadLetters(input: {ids: $list}) { userErrors { code } } }`, "dlt_%026d"},
	"registerService":   {`mutation($list: [String!]) { registerService(input: {name: "s", tags: $list}) { userErrors { code } } }`, "t%d"},
}

// TestLists_have_bounds_that_fit_each_database sends lists of thousands of values: each is refused with a reason, before a statement
// with more parameters than the database takes.
func TestLists_have_bounds_that_fit_each_database(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := harness.SignInAdmin(t, harness.StartServer(t, database))
		send := func(field string, n int) string {
			t.Helper()
			values := make([]string, n)
			for i := range values {
				values[i] = fmt.Sprintf(longLists[field].format, i)
			}
			a, err := root.Send(t.Context(), longLists[field].query, harness.Fields{"list": values})
			if err != nil {
				t.Fatal(err)
			}
			return codeOf(a, field)
		}
		for field := range longLists {
			if code := send(field, 9_000); code == "" || code == "INTERNAL" {
				t.Errorf("%s of 9,000 values gave %q, want a refusal", field, code)
			}
		}
		if code := send("products", 1000); code != "" {
			t.Errorf("products of 1,000 SKUs gave %s", code)
		}
	})
}
