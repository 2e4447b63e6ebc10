package graph_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestRefused_callers_get_what_is_for_all_and_the_reason for everything else, at each field. The
// golden files of permissions and routes hold every field to it.
func TestRefused_callers_get_what_is_for_all_and_the_reason(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		for _, tt := range []struct {
			document string
			fails    []string // the fields with TOKEN_EXPIRED
		}{
			{`{ __typename __schema { queryType { name } } products(first: 1) { nodes { id } } }`, nil},
			{`{ products(first: 1) { nodes { id } } orders(first: 1) { nodes { id } } viewer { id } }`, []string{"orders", "viewer"}},
			{`{ services(first: 1) { nodes { id } } }`, []string{"services"}},
			{`{ node(id: "ord_00000000000000000000000000") { id } }`, []string{"node"}},
			{`mutation { placeOrder(input: {items: [{sku: "A", quantity: 1}]}) { order { id } } }`, []string{"placeOrder"}},
			{`mutation { signUp(input: {username: "ada", password: "battery horse correct"}) { session { accessToken } userErrors { code } } signOut(input: {}) { session { id } } }`, []string{"signOut"}},
			{`mutation { signIn(input: {login: "ada", password: "battery horse correct"}) { session { accessToken } } }`, nil},
			{`mutation { refreshSession(input: {refreshToken: "x"}) { userErrors { code } } }`, nil},
		} {
			op, refusal := s.exec.Prepare(t.Context(), executor.Request{Query: tt.document})
			if refusal != nil {
				t.Fatalf("%s: %v", tt.document, refusal.Errors)
			}
			resp, err := s.exec.Run(contextOf(t.Context(), refused), op)
			if err != nil {
				t.Fatal(err)
			}
			failed := map[string]bool{}
			for _, e := range resp.Errors {
				if e.Extensions["code"] != string(fault.TokenExpired) {
					t.Errorf("%s: %v", tt.document, e)
				}
				failed[e.Path.String()] = true
			}
			if got := slices.Sorted(maps.Keys(failed)); !slices.Equal(got, tt.fails) {
				t.Errorf("%s fails at %v, want %v", tt.document, got, tt.fails)
			}
			note, _ := resp.Extensions["credential"].(map[string]any)
			if note["code"] != fault.TokenExpired || note["message"] == "" {
				t.Errorf("%s: the extensions are %v", tt.document, resp.Extensions)
			}
		}
	})
}
