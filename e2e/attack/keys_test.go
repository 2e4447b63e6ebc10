package attack

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// createKey makes an API key for the caller in its own session.
func createKey(t *testing.T, c harness.Caller, scopes ...any) harness.Caller {
	t.Helper()
	data := c.Do(t, `mutation($in: CreateApiKeyInput!) { createApiKey(input: $in) { secret userErrors { code } } }`,
		harness.Input(harness.Fields{"name": "k", "scopes": scopes}))
	secret := harness.Text(data, "createApiKey", "secret")
	if secret == "" {
		t.Fatalf("createApiKey gave %v", data)
	}
	return harness.Caller{BaseURL: c.BaseURL, Token: secret}
}

// elevations are what makes an ADMIN of an account, or ends one.
func elevations(id string) map[string]string {
	return map[string]string{
		"creating an ADMIN":   `mutation { createUser(input: {username: "evil", password: "correct horse battery", roles: [ADMIN]}) { user { id } userErrors { code } } }`,
		"raising an account":  fmt.Sprintf(`mutation { updateUser(input: {id: %q, roles: [ADMIN]}) { user { id } userErrors { code } } }`, id),
		"deactivating":        fmt.Sprintf(`mutation { updateUser(input: {id: %q, status: DEACTIVATED}) { user { id } userErrors { code } } }`, id),
		"deleting an account": fmt.Sprintf(`mutation { deleteUser(input: {id: %q}) { user { id } userErrors { code } } }`, id),
	}
}

func TestAPIKey_cannot_make_an_ADMIN(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		victim := harness.SignUp(t, p, "victim").UserID(t)
		key := createKey(t, root, "users:read", "users:write", "legacy:write", "services:read")
		for what, mutation := range elevations(victim) {
			if code := key.RefusalCode(t, mutation, nil); code != "FORBIDDEN" {
				t.Errorf("%s by a key with users:write gave %q, want FORBIDDEN", what, code)
			}
		}
		for transport := range harness.Transports {
			for what, mutation := range elevations(victim) {
				if m := harness.MustNext(t, harness.Subscribe(t, transport, key, mutation, nil)); m.Code != "FORBIDDEN" {
					t.Errorf("%s by a key with users:write over the %s gave %+v, want FORBIDDEN", what, transport, m)
				}
			}
		}
		key.MustREST(t, http.StatusForbidden, "DELETE /users/"+victim, "")
		if got := root.Do(t, `{ users { nodes { username roles status } } }`, nil); fmt.Sprint(got) !=
			"map[users:map[nodes:[map[roles:[CUSTOMER] status:ACTIVE username:victim] map[roles:[ADMIN] status:ACTIVE username:"+harness.AdminName+"]]]]" {
			t.Errorf("the key changed the accounts to %v", got)
		}

		// what a key may do, its owner may do now: an elevated key ends with the role
		harness.CreateUserWithRole(t, p, root, "second", "ADMIN")
		second := harness.SignIn(t, p, "second", "a password of mine")
		elevated := createKey(t, second, "users:read", "users:write", "users:admin", "service:echo", "legacy:write")
		elevated.Do(t, fmt.Sprintf(`mutation { updateUser(input: {id: %q, roles: [STAFF]}) { user { id } userErrors { code } } }`, victim), nil)
		root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, roles: [STAFF]}) { userErrors { code } } }`, harness.Fields{"id": second.UserID(t)})
		harness.Pause(t.Context(), time.Second)
		for what, mutation := range elevations(victim) {
			if code := elevated.RefusalCode(t, mutation, nil); code != "FORBIDDEN" {
				t.Errorf("%s by a key of a former ADMIN gave %q, want FORBIDDEN", what, code)
			}
		}
		for _, mutation := range []string{
			`mutation { createUser(input: {username: "old", legacyId: "7"}) { user { id } userErrors { code } } }`,
			`mutation { registerService(input: {name: "echo"}) { service { id } userErrors { code } } }`,
		} {
			if code := elevated.RefusalCode(t, mutation, nil); code != "FORBIDDEN" {
				t.Errorf("%s by a key of a former ADMIN gave %q, want FORBIDDEN", mutation, code)
			}
		}
		elevated.MustREST(t, http.StatusForbidden, "DELETE /users/"+victim, "")
	})
}

func TestAPI_keys_that_an_intruder_made_end_on_request(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		for i, mutation := range []string{
			`mutation { revokeAllSessions(input: {keepCurrent: true, revokeApiKeys: true}) { userErrors { code } } }`,
			`mutation { changePassword(input: {currentPassword: "a password of mine", newPassword: "another password", revokeApiKeys: true}) { userErrors { code } } }`,
		} {
			name := fmt.Sprint("ada", i)
			harness.CreateUserWithRole(t, p, harness.SignInAdmin(t, p), name, "CUSTOMER")
			ada := harness.SignIn(t, p, name, "a password of mine")
			key := createKey(t, ada, "users:read")
			key.Do(t, "{ viewer { user { id } } }", nil)
			ada.Do(t, mutation, nil)
			if a, err := key.Send(t.Context(), "{ viewer { user { id } } }", nil); err != nil || a.Status != http.StatusUnauthorized {
				t.Errorf("after %s the key gives %+v, %v; want 401", mutation, a, err)
			}
			ada.Do(t, "{ viewer { user { id } } }", nil)
		}
	})
}

func TestAPIKey_that_may_only_write_reads_nothing(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
		harness.CreateProduct(t, root, "CUP", 9)
		id := harness.Text(ada.Do(t, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("CUP", 1)}}), "placeOrder", "order", "id")
		writer := createKey(t, root, "orders:write", "users:write", "products:write")
		for name, c := range map[string]harness.Caller{"of an ADMIN": writer, "of the customer": createKey(t, ada, "orders:write")} {
			const cancel = `mutation($id: ID!) { cancelOrder(input: {id: $id, ifVersion: 99}) { order { number note items { sku } total { amount } } userErrors { code } } }`
			got := c.Do(t, cancel, harness.Fields{"id": id})
			if harness.Text(got, "cancelOrder", "userErrors", 0, "code") != "VERSION_CONFLICT" || harness.At(got, "cancelOrder", "order") != nil {
				t.Errorf("cancelOrder by a key %s that may not read gave %v, want a conflict without the order", name, got)
			}
			for transport := range harness.Transports {
				m := harness.MustNext(t, harness.Subscribe(t, transport, c, cancel, harness.Fields{"id": id}))
				if harness.Text(m.Event, "userErrors", 0, "code") != "VERSION_CONFLICT" || m.Event["order"] != nil {
					t.Errorf("cancelOrder over the %s by a key %s that may not read gave %+v, want a conflict without the order", transport, name, m)
				}
			}
			a := c.MustREST(t, http.StatusForbidden, "POST /orders/"+id+"/cancel", "{}", "If-Match", `"99"`)
			if !strings.Contains(string(a.Body), "orders:read") {
				t.Errorf("the refusal does not name the scope: %s", a.Body)
			}
		}
		got := writer.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, ifVersion: 99}) { user { email } userErrors { code } } }`, harness.Fields{"id": ada.UserID(t)})
		if harness.Text(got, "updateUser", "userErrors", 0, "code") != "VERSION_CONFLICT" || harness.At(got, "updateUser", "user") != nil {
			t.Errorf("updateUser by a key that may not read gave %v, want a conflict without the account", got)
		}
		if got := ada.Do(t, `query($id: ID!) { order(id: $id) { status } }`, harness.Fields{"id": id}); harness.Text(got, "order", "status") != "PENDING" {
			t.Errorf("a refused call changed the order: %v", got)
		}
	})
}

func TestAPIKey_that_may_not_read_the_answer_changes_nothing(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
		harness.CreateProduct(t, root, "CUP", 9)
		const line = `{"items": [{"sku": "CUP", "quantity": 1}]}`
		key := createKey(t, ada, "orders:read", "orders:write")
		if a := key.MustREST(t, http.StatusForbidden, "POST /orders", line); !strings.Contains(string(a.Body), "users:read") {
			t.Errorf("the refusal does not name the scope: %s", a.Body)
		}
		placed := `mutation { placeOrder(input: {items: [{sku: "CUP", quantity: 1}]}) { order { id user { username } } userErrors { code } } }`
		if code := key.RefusalCode(t, placed, nil); code != "FORBIDDEN" {
			t.Errorf("placeOrder with the user gave %q, want FORBIDDEN", code)
		}
		for transport := range harness.Transports {
			if m := harness.MustNext(t, harness.Subscribe(t, transport, key, placed, nil)); m.Code != "FORBIDDEN" {
				t.Errorf("placeOrder with the user over the %s gave %+v, want FORBIDDEN", transport, m)
			}
		}
		if got := ada.Do(t, `{ orders { totalCount } }`, nil); harness.Number(got, "orders", "totalCount") != 0 {
			t.Errorf("refused calls placed orders: %v", got)
		}
		createKey(t, ada, "orders:read", "orders:write", "users:read").MustREST(t, http.StatusCreated, "POST /orders", line)
		key.Do(t, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("CUP", 1)}})
		if got := ada.Do(t, `{ orders { totalCount } }`, nil); harness.Number(got, "orders", "totalCount") != 2 {
			t.Errorf("orders = %v, want the two that were allowed", got)
		}
	})
}

func TestDuplicate_calls_need_permission(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
		harness.CreateProduct(t, root, "CUP", 9)
		id := harness.Text(ada.Do(t, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("CUP", 1)}}), "placeOrder", "order", "id")
		session := harness.Text(ada.Do(t, `{ viewer { sessions { id } } }`, nil), "viewer", "sessions", 0, "id")
		second := harness.CreateUserWithRole(t, p, root, "second", "ADMIN")
		cancel := fmt.Sprintf(`mutation { cancelOrder(input: {id: %q, idempotencyKey: "c"}) { order { id note user { email } } userErrors { code } } }`, id)
		revoke := fmt.Sprintf(`mutation { revokeSession(input: {id: %q, idempotencyKey: "r"}) { session { id address } userErrors { code } } }`, session)
		rename := `mutation { createUser(input: {username: "new", idempotencyKey: "u"}) { user { id } userErrors { code } } }`
		for _, mutation := range []string{cancel, revoke, rename} {
			second.Do(t, mutation, nil)
			second.Do(t, mutation, nil)
		}
		second.MustREST(t, http.StatusOK, "POST /orders/"+id+"/cancel", "{}", "Idempotency-Key", "rest")
		root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, roles: [CUSTOMER]}) { userErrors { code } } }`, harness.Fields{"id": second.UserID(t)})
		harness.Pause(t.Context(), time.Second)
		if got := second.Do(t, cancel, nil); harness.Text(got, "cancelOrder", "userErrors", 0, "code") != "ORDER_NOT_FOUND" || harness.At(got, "cancelOrder", "order") != nil {
			t.Errorf("a duplicate of cancelOrder by a former ADMIN gave %v, want ORDER_NOT_FOUND", got)
		}
		if got := second.Do(t, revoke, nil); harness.Text(got, "revokeSession", "userErrors", 0, "code") != "SESSION_NOT_FOUND" || harness.At(got, "revokeSession", "session") != nil {
			t.Errorf("a duplicate of revokeSession by a former ADMIN gave %v, want SESSION_NOT_FOUND", got)
		}
		if code := second.RefusalCode(t, rename, nil); code != "FORBIDDEN" {
			t.Errorf("a duplicate of createUser by a former ADMIN gave %q, want FORBIDDEN", code)
		}
		for transport := range harness.Transports {
			m := harness.MustNext(t, harness.Subscribe(t, transport, second, cancel, nil))
			if harness.Text(m.Event, "userErrors", 0, "code") != "ORDER_NOT_FOUND" || m.Event["order"] != nil {
				t.Errorf("a duplicate of cancelOrder over the %s by a former ADMIN gave %+v, want ORDER_NOT_FOUND", transport, m)
			}
		}
		second.MustREST(t, http.StatusNotFound, "POST /orders/"+id+"/cancel", "{}", "Idempotency-Key", "rest")
	})
}

func TestStream_token_is_no_credential(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	ada, thief := harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "thief")
	token := string(ada.MustREST(t, http.StatusCreated, "PUT /graphql", "").Body)
	json := []string{"Content-Type", "application/json", "X-GraphQL-Event-Stream-Token", token}
	const start = `{"query": "mutation { updateUser(input: {id: \"x\", name: \"x\"}) { userErrors { code } } }", "extensions": {"operationId": "1"}}`
	for name, c := range map[string]harness.Caller{"an anonymous caller": harness.Anonymous(p), "another user": thief} {
		for what, call := range map[string]func() *harness.RESTAnswer{
			"opening the stream": func() *harness.RESTAnswer {
				return c.MustREST(t, http.StatusUnauthorized, "GET /graphql?token="+token, "", "Accept", "text/event-stream")
			},
			"starting an operation": func() *harness.RESTAnswer {
				return c.MustREST(t, http.StatusUnauthorized, "POST /graphql", start, json...)
			},
			"stopping an operation": func() *harness.RESTAnswer {
				return c.MustREST(t, http.StatusUnauthorized, "DELETE /graphql?operationId=1&token="+token, "")
			},
		} {
			if a := call(); !strings.Contains(string(a.Body), "UNAUTHENTICATED") {
				t.Errorf("%s by %s: %s, want UNAUTHENTICATED", what, name, a.Body)
			}
		}
	}
	ada.MustREST(t, http.StatusAccepted, "POST /graphql", start, json...)
	ada.MustREST(t, http.StatusOK, "DELETE /graphql?operationId=1&token="+token, "")
}
