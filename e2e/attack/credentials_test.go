package attack

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// routes returns a request for each operation of the OpenAPI document, and one for each other
// transport.
func routes(t *testing.T, p *testenv.Process) []browserRequest {
	t.Helper()
	resp, err := http.Get(p.BaseURL + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &document); err != nil || len(document.Paths) < 10 {
		t.Fatalf("the OpenAPI document has %d paths, %v", len(document.Paths), err)
	}
	parameter := regexp.MustCompile(`\{[^}]+\}`)
	all := slices.Clone(browserRequests[:len(browserRequests)-1]) // without GraphiQL, a page for all
	for path, methods := range document.Paths {
		for method := range methods {
			if method = strings.ToUpper(method); method == http.MethodGet || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch || method == http.MethodDelete {
				all = append(all, browserRequest{method + " " + path, method, parameter.ReplaceAllString(path, "1"), `{}`, []string{"Content-Type", "application/json"}})
			}
		}
	}
	return all
}

// TestServer_refuses_dead_credentials_everywhere sends credentials that were valid once, or look
// as if they were, to every route: none is taken for an anonymous caller.
func TestServer_refuses_dead_credentials_everywhere(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		key := harness.WithAPIKey(t, root, harness.AdminName, "orders:read")
		id := harness.Text(root.Do(t, `{ viewer { apiKeys { id } } }`, nil), "viewer", "apiKeys", 0, "id")
		root.Do(t, `mutation($in: RevokeApiKeyInput!) { revokeApiKey(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": id}))
		signedOut := harness.SignUp(t, p, "ada")
		signedOut.Do(t, `mutation { signOut(input: {}) { userErrors { code } } }`, nil)
		deleted := harness.SignUp(t, p, "bob")
		user := deleted.UserID(t)
		root.Do(t, `mutation($in: DeleteUserInput!) { deleteUser(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": user}))
		parts := strings.Split(root.Token, ".")
		for name, token := range map[string]string{
			"a revoked key": key.Token, "a session that was signed out": signedOut.Token, "the session of a deleted user": deleted.Token,
			"a token with another signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), "a token without a signature": parts[0] + "." + parts[1] + ".",
			"no token": "nonsense",
		} {
			for _, r := range routes(t, p) {
				if status, body := r.send(t, p.BaseURL, "", "Authorization", "Bearer "+token); status != http.StatusUnauthorized {
					t.Errorf("%s with %s: %d %s, want 401", r.name, name, status, body)
				}
			}
		}
	})
}
