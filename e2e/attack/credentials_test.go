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

// openToAll are the requests of routes that need no credential, or bring their own: a client renews its
// access token by some of them, and sends the old one with every request.
var openToAll = map[string]bool{
	"GraphQL": true, "GraphQL by GET": true, "REST": true, "GET /products": true, "GET /products/{id}": true, "POST /auth/sign-in": true, "POST /auth/refresh": true,
}

// TestServer_refuses_dead_credentials_everywhere sends credentials that were valid once, or look
// as if they were, to every route: none is taken for an anonymous caller, but for an access token where
// a caller needs no credential.
func TestServer_refuses_dead_credentials_everywhere(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_ACCESS_TOKEN_TIME=5s")
		root := harness.SignInAdmin(t, p)
		key := harness.WithAPIKey(t, root, harness.AdminName, "orders:read")
		id := harness.Text(root.Do(t, `{ viewer { apiKeys { id } } }`, nil), "viewer", "apiKeys", 0, "id")
		root.Do(t, `mutation($in: RevokeApiKeyInput!) { revokeApiKey(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": id}))
		signedOut := harness.SignUp(t, p, "ada")
		signedOut.Do(t, `mutation { signOut(input: {}) { userErrors { code } } }`, nil)
		deleted := harness.SignUp(t, p, "bob")
		user := deleted.UserID(t)
		root = harness.SignInAdmin(t, p)
		root.Do(t, `mutation($in: DeleteUserInput!) { deleteUser(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": user}))
		expired := awaitExpiry(t, harness.SignUp(t, p, "eve"))
		parts := strings.Split(root.Token, ".")
		authorizations := map[string]string{"another scheme": "Basic YTpi", "no token at all": "Bearer", "a bare token": "nonsense", "two tokens": "Bearer a b"}
		for name, token := range map[string]string{
			"a revoked key": key.Token, "a session that was signed out": signedOut.Token, "the session of a deleted user": deleted.Token, "an expired token": expired.Token,
			"a token with another signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), "a token without a signature": parts[0] + "." + parts[1] + ".",
			"no token": "nonsense",
		} {
			authorizations[name] = "Bearer " + token
		}
		for name, authorization := range authorizations {
			for _, r := range routes(t, p) {
				open := openToAll[r.name] && strings.Count(authorization, ".") == 2
				if status, body := r.send(t, p.BaseURL, "", "Authorization", authorization); (status == http.StatusUnauthorized) == open {
					t.Errorf("%s with %s: %d %s, want 401: %v", r.name, name, status, body, !open)
				}
			}
		}
	})
}

// awaitExpiry waits until the token of the caller has expired.
func awaitExpiry(t *testing.T, c harness.Caller) harness.Caller {
	t.Helper()
	harness.Eventually(t, "the token has expired", func() bool {
		a, err := c.Send(t.Context(), `{ viewer { id } }`, nil)
		return err == nil && len(a.Errors) > 0 && a.Errors[0].Extensions["code"] == "TOKEN_EXPIRED"
	})
	return c
}

// TestServer_lets_a_client_renew_a_token_that_it_still_sends as clients do that send the header with every
// request, over GraphQL and REST.
func TestServer_lets_a_client_renew_a_token_that_it_still_sends(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_ACCESS_TOKEN_TIME=3s")
		data := harness.Anonymous(p).Do(t, `mutation { signUp(input: {username: "ada", password: "a password of mine"}) { session { accessToken refreshToken } } }`, nil)
		refreshToken := harness.Text(data, "signUp", "session", "refreshToken")
		ada := awaitExpiry(t, harness.Caller{BaseURL: p.BaseURL, Token: harness.Text(data, "signUp", "session", "accessToken")})
		const challenge = `Bearer realm="backplane", error="invalid_token", error_description="The access token has expired; refresh it."`
		for _, tt := range []struct {
			document string
			status   int
			fails    int // fields, with TOKEN_EXPIRED
		}{
			{`{ __typename products(first: 1) { nodes { id } } }`, 200, 0},
			{`{ __schema { queryType { name } } }`, 200, 0},
			{`{ products(first: 1) { nodes { id } } orders(first: 1) { nodes { id } } }`, 200, 1},
			{`{ viewer { id } }`, 401, 1},
			{`{ viewer { id } orders { nodes { id } } }`, 401, 2},
			{`mutation { placeOrder(input: {items: [{sku: "NONE", quantity: 1}]}) { userErrors { code } } }`, 401, 1},
			{`mutation { signIn(input: {login: "ada", password: "a password of mine"}) { session { accessToken } } }`, 200, 0},
			{`mutation { signUp(input: {username: "bob", password: "a password of mine"}) { session { accessToken } } }`, 200, 0},
		} {
			a, err := ada.Send(t.Context(), tt.document, nil)
			if err != nil {
				t.Fatal(err)
			}
			fails := 0
			for _, e := range a.Errors {
				if e.Extensions["code"] == "TOKEN_EXPIRED" {
					fails++
				}
			}
			if note := harness.Text(a.Extensions, "credential", "code"); a.Status != tt.status || fails != tt.fails || len(a.Errors) != fails || note != "TOKEN_EXPIRED" || a.Header.Get("WWW-Authenticate") != challenge {
				t.Errorf("%s = %+v, want status %d and TOKEN_EXPIRED %d times", tt.document, a, tt.status, tt.fails)
			}
		}
		for line, tt := range map[string]struct {
			body   string
			status int
		}{
			"POST /auth/sign-in": {`{"login": "ada", "password": "a password of mine"}`, 200},
			"GET /products":      {"", 200},
			"GET /orders":        {"", 401},
			"GET /services":      {"", 401},
			"POST /users":        {`{"username": "carol", "password": "a password of mine"}`, 401}, // it may have been meant for createUser
		} {
			if a := ada.MustREST(t, tt.status, line, tt.body, "Content-Type", "application/json"); a.Header.Get("WWW-Authenticate") != challenge {
				t.Errorf("%s has the header %q, want %q", line, a.Header.Get("WWW-Authenticate"), challenge)
			}
		}
		for _, way := range []func() string{
			func() string {
				a, err := ada.Send(t.Context(), `mutation($t: String!) { refreshSession(input: {refreshToken: $t}) { session { accessToken refreshToken } } }`, map[string]any{"t": refreshToken})
				if err != nil || a.Status != http.StatusOK {
					t.Fatalf("refreshSession = %+v, %v", a, err)
				}
				refreshToken = harness.Text(a.Data, "refreshSession", "session", "refreshToken")
				return harness.Text(a.Data, "refreshSession", "session", "accessToken")
			},
			func() string {
				a := ada.MustREST(t, http.StatusOK, "POST /auth/refresh", `{"refresh_token": "`+refreshToken+`"}`, "Content-Type", "application/json")
				return harness.Text(a.JSON(t), "access_token")
			},
		} {
			harness.Caller{BaseURL: p.BaseURL, Token: way()}.Do(t, `{ viewer { user { username } } }`, nil)
		}
		harness.Eventually(t, "a security event says that an expired token was refused", func() bool {
			recorded := false
			for _, e := range harness.SecurityEvents(t, p) {
				recorded = recorded || e.Type == "credential.refused" && e.Detail == "EXPIRED" && e.User != ""
				if e.Type == "permission.denied" {
					t.Errorf("a refused token is recorded as %+v as well", e)
				}
			}
			return recorded
		})
	})
}
