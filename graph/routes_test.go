package graph_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/rest"
)

// routeBodies are valid bodies of the routes that take one.
var routeBodies = map[string]string{
	"PATCH /products/{id}":            `{"name": "name"}`,
	"PATCH /users/{id}":               `{"name": "name"}`,
	"POST /auth/refresh":              `{"refresh_token": "x"}`,
	"POST /auth/sign-in":              `{"login": "someuser", "password": "battery horse correct"}`,
	"POST /orders":                    `{"items": [{"sku": "NONE", "quantity": 1}]}`,
	"POST /orders/{id}/cancel":        `{}`,
	"POST /orders/{id}/deliver":       `{}`,
	"POST /orders/{id}/refund":        `{}`,
	"POST /orders/{id}/ship":          `{}`,
	"POST /outcomes":                  `{"lease": "x", "ok": true}`,
	"POST /products":                  `{"sku": "SKU-1", "name": "name", "price": {"amount": "1.00", "currency": "EUR"}}`,
	"POST /products/{id}/stock":       `{"by": 1}`,
	"POST /services":                  `{"name": "echo"}`,
	"POST /services/{name}/instances": `{"instance_id": "i1", "url": "http://192.0.2.1"}`,
	"POST /services/{name}/instances/{instance_id}/heartbeat":   `{}`,
	"PATCH /services/{name}/instances/{instance_id}":            `{"weight": 2}`,
	"POST /services/{name}/instances/{instance_id}/drain":       `{}`,
	"POST /services/{name}/instances/{instance_id}/maintenance": `{"enabled": false}`,
	"POST /services/{name}/pick":                                `{}`,
	"POST /users":                                               `{"username": "someuser", "password": "battery horse correct"}`,
	"PUT /products/{id}":                                        `{"sku": "SKU-1", "name": "name", "description": "x", "price": {"amount": "1.00", "currency": "EUR"}}`,
	"PUT /services/{name}":                                      `{"description": "x"}`,
	"PUT /services/{name}/instances/{instance_id}":              `{"url": "http://192.0.2.1"}`,
	"PUT /users/{id}":                                           `{"username": "someuser"}`,
	"PUT /users/{id}/password":                                  `{"password": "battery horse correct"}`,
}

// TestRoutes_are_the_golden_file calls every route of the REST shim as every kind of principal, as
// TestPermissions_are_the_golden_file does for the schema. The routes are those of the OpenAPI document.
func TestRoutes_are_the_golden_file(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	shim, err := rest.New(m.exec, rest.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, pattern := range shim.Patterns() {
		mux.Handle(pattern, shim)
	}
	var got strings.Builder
	for _, route := range routesOf(t, shim) {
		fmt.Fprintf(&got, "%s\n", route)
		outcomes := map[string][]string{}
		for _, name := range slices.Sorted(maps.Keys(m.principals)) {
			outcome := m.routeOutcome(t, mux, route, m.principals[name])
			outcomes[outcome] = append(outcomes[outcome], name)
		}
		for _, outcome := range []string{"passes", "hidden"} {
			if names := outcomes[outcome]; len(names) > 0 {
				fmt.Fprintf(&got, "  %s: %s\n", outcome, summarize(names, m.principals))
			}
		}
	}
	checkGolden(t, "testdata/routes.golden", got.String(), "who may call which route has changed")
}

// routesOf returns the routes of the OpenAPI document, as METHOD PATH.
func routesOf(t *testing.T, shim *rest.Shim) (routes []string) {
	t.Helper()
	rec := httptest.NewRecorder()
	shim.ServePage(rec, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	for path, methods := range document.Paths {
		for method := range methods {
			if method = strings.ToUpper(method); method != http.MethodHead && method != "PARAMETERS" {
				routes = append(routes, method+" "+path)
			}
		}
	}
	slices.Sort(routes)
	if len(routes) < 30 {
		t.Fatalf("the document has the routes %v", routes)
	}
	return routes
}

// routeOutcome calls the route for the object of the owner, at a version that does not fit where the route takes one. It is "passes", "hidden" or
// "refused", as of outcome.
func (m *permissionMatrix) routeOutcome(t *testing.T, mux *http.ServeMux, route string, as *auth.Principal) string {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	about := map[string]string{"/users": "User", "/orders": "Order", "/products": "Product"}["/"+strings.Split(path, "/")[1]]
	path = strings.NewReplacer("{id}", cmp.Or(m.ids[about], "none"), "{name}", "echo", "{instance_id}", "none").Replace(path)
	body, ok := routeBodies[route]
	if !ok && (method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch) {
		t.Fatalf("routeBodies has no body for %s", route)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(contextOf(t.Context(), as))
	r.Header.Set("Content-Type", "application/json")
	versioned := !strings.Contains(path, "/instances/") && !strings.HasSuffix(path, "/password")
	if method != http.MethodGet && method != http.MethodPost && versioned {
		r.Header.Set("If-Match", `"99999"`)
	}
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, r)
	if rec.Code < http.StatusBadRequest {
		return "passes"
	}
	var problem struct{ Code fault.Code }
	if err := json.Unmarshal(rec.Body.Bytes(), &problem); err != nil || problem.Code == "" {
		t.Fatalf("%s gave %d %s", route, rec.Code, rec.Body)
	}
	if problem.Code == fault.BadRequest || problem.Code == fault.BadInput {
		t.Fatalf("%s gave %d %s: the body in routeBodies does not fit", route, rec.Code, rec.Body)
	}
	if problem.Code == fault.Internal {
		t.Errorf("%s gave %d %s", route, rec.Code, rec.Body)
	}
	return outcomeOf(problem.Code)
}
