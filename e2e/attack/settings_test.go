package attack

import (
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// TestDoctor_finds_unsafe_settings on a database that a server has made.
func TestDoctor_finds_unsafe_settings(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		harness.RunCommand(t, database, "migrate")
		folder := t.TempDir()
		out, err := runIn(t, folder, harness.Settings(database), "doctor")
		if err != nil || !strings.Contains(out, "no problems found\n") || !strings.Contains(out, "- warning: BACKPLANE_RATE_LIMIT is off") {
			t.Errorf("doctor without a rate limit: %v\n%s", err, out)
		}
		out, err = runIn(t, folder, harness.Settings(database, "BACKPLANE_RATE_LIMIT=on"), "doctor")
		if err != nil || out != "no problems found\n" {
			t.Errorf("doctor with safe settings: %v\n%s", err, out)
		}
		unsafe := harness.Settings(database, "BACKPLANE_TRUSTED_PROXIES=0.0.0.0/0", "BACKPLANE_ADMIN_LISTEN=203.0.113.7:9090", "BACKPLANE_ADMIN_PASSWORD=Password123!", "BACKPLANE_REDIS_URL=redis://cache.shop.example")
		out, err = runIn(t, folder, unsafe, "doctor")
		if err == nil || strings.Contains(out, "no problems found") {
			t.Errorf("doctor with unsafe settings: %v\n%s", err, out)
		}
		for _, name := range []string{"TRUSTED_PROXIES has 0.0.0.0/0", "ADMIN_LISTEN is 203.0.113.7:9090", "ADMIN_PASSWORD is among", "REDIS_URL has no credential", "REDIS_URL does not require TLS"} {
			if !strings.Contains(out, "\n- BACKPLANE_"+name) && !strings.HasPrefix(out, "- BACKPLANE_"+name) {
				t.Errorf("doctor does not find %s:\n%s", name, out)
			}
		}
	})
}

// TestServer_hides_its_pages if the operator says so: GraphiQL, and the page and the document of the REST routes.
func TestServer_hides_its_pages(t *testing.T) {
	t.Parallel()
	for setting, status := range map[string]int{"on": http.StatusOK, "off": http.StatusNotFound} {
		c := harness.Anonymous(harness.StartServer(t, harness.Databases["SQLite"](t), "BACKPLANE_DOCS="+setting))
		for _, path := range []string{"/", "/graphiql/graphiql.js", "/docs", "/openapi.json"} {
			c.MustREST(t, status, "GET "+path, "")
		}
		c.MustREST(t, http.StatusOK, "GET /products", "")
		a, err := c.REST(t.Context(), "GET /graphql", "", "Accept", "text/html")
		if err != nil || (a.Status == http.StatusOK) != (setting == "on") {
			t.Errorf("GET /graphql for a browser, with %s: %+v, %v", setting, a, err)
		}
	}
}

// TestPasswords_that_attackers_try_first_are_refused wherever a password is set.
func TestPasswords_that_attackers_try_first_are_refused(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "adalovelace")
		for _, password := range []string{"Password123!", "1234567890", "AdaLovelace1815"} {
			for name, set := range map[string]func() (*harness.Answer, error){
				"signUp": func() (*harness.Answer, error) {
					return harness.Anonymous(p).Send(t.Context(), `mutation($in: SignUpInput!) { signUp(input: $in) { user { id } userErrors { code path } } }`,
						harness.Input(harness.Fields{"username": "ada-lovelace", "password": password}))
				},
				"createUser": func() (*harness.Answer, error) {
					return root.Send(t.Context(), `mutation($in: CreateUserInput!) { createUser(input: $in) { user { id } userErrors { code path } } }`,
						harness.Input(harness.Fields{"username": "countess", "name": "Ada Lovelace", "password": password}))
				},
				"setPassword": func() (*harness.Answer, error) {
					return root.Send(t.Context(), `mutation($in: SetPasswordInput!) { setPassword(input: $in) { user { id } userErrors { code path } } }`,
						harness.Input(harness.Fields{"id": ada.UserID(t), "newPassword": password}))
				},
				"changePassword": func() (*harness.Answer, error) {
					return ada.Send(t.Context(), `mutation($in: ChangePasswordInput!) { changePassword(input: $in) { user { id } userErrors { code path } } }`,
						harness.Input(harness.Fields{"currentPassword": "a password of mine", "newPassword": password}))
				},
			} {
				a, err := set()
				if err != nil || harness.Text(a.Data, name, "userErrors", 0, "code") != "PASSWORD_INVALID" || harness.At(a.Data, name, "user") != nil {
					t.Errorf("%s with %s: %+v, %v", name, password, a, err)
				}
			}
			a, err := harness.Anonymous(p).REST(t.Context(), "POST /users", `{"username": "ada-lovelace", "password": "`+password+`"}`, "Content-Type", "application/json")
			if err != nil || a.Status != 422 || harness.Text(a.JSON(t), "code") != "PASSWORD_INVALID" {
				t.Errorf("POST /users with %s: %d %s, %v", password, a.Status, a.Body, err)
			}
		}
	})
}
