package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

const (
	adminName     = "root"
	adminPassword = "correct horse battery staple"
)

// databases are the two that every promise holds on, each as the URL of an empty
// one.
var databases = map[string]func(*testing.T) string{
	"SQLite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "backplane.db") },
	"PostgreSQL": func(t *testing.T) string { return testenv.Postgres(t) },
}

// onBoth runs the test on an empty database of each kind, by its URL.
func onBoth(t *testing.T, test func(t *testing.T, database string)) {
	t.Helper()
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, empty(t))
		})
	}
}

func settings(database string, more ...string) []string {
	return append([]string{
		"BACKPLANE_DATABASE_URL=" + database, "BACKPLANE_SECRET_KEY=" + strings.Repeat("k", 43), "BACKPLANE_RATE_LIMIT=off",
		"BACKPLANE_ADMIN_USERNAME=" + adminName, "BACKPLANE_ADMIN_PASSWORD=" + adminPassword,
	}, more...)
}

// runCommand runs a command of the binary that must succeed, beside any server.
func runCommand(t *testing.T, database string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t), args...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), settings(database)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("backplane %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts a server with an ADMIN and no rate limit on the migrated database.
func start(t *testing.T, database string, more ...string) *testenv.Process {
	t.Helper()
	runCommand(t, database, "migrate")
	return testenv.Server(t, settings(database, more...)...)
}

// caller is somebody who sends GraphQL requests; token is empty for a stranger.
type caller struct {
	base  string
	token string
}

// answer is a GraphQL response, and how HTTP carried it.
type answer struct {
	status int
	Data   map[string]any `json:"data"`
	Errors []struct {
		Message    string         `json:"message"`
		Extensions map[string]any `json:"extensions"`
	} `json:"errors"`
}

var httpClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 128}}

// send posts an operation. An error means that no answer came.
func (c caller) send(ctx context.Context, query string, vars map[string]any, header ...string) (*answer, error) {
	body, err := json.Marshal(map[string]any{"query": query, "variables": vars})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/graphql", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/graphql-response+json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.StatusCode}
	if err := json.Unmarshal(text, a); err != nil {
		return nil, fmt.Errorf("status %d: %w: %s", resp.StatusCode, err, text)
	}
	return a, nil
}

// do sends an operation that must be answered without errors.
func (c caller) do(t *testing.T, query string, vars map[string]any) map[string]any {
	t.Helper()
	a, err := c.send(t.Context(), query, vars)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK || len(a.Errors) > 0 {
		t.Fatalf("%s\ngave status %d and errors %+v", query, a.status, a.Errors)
	}
	return a.Data
}

// at walks into decoded JSON by keys and indexes.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// text is at for a string, empty if there is none.
func text(v any, path ...any) string {
	s, _ := at(v, path...).(string)
	return s
}

// number is at for a number, zero if there is none.
func number(v any, path ...any) int {
	n, _ := at(v, path...).(float64)
	return int(n)
}

func stranger(p *testenv.Process) caller { return caller{base: p.BaseURL} }

func signInAdmin(t *testing.T, p *testenv.Process) caller {
	t.Helper()
	return signIn(t, p, adminName, adminPassword)
}

func signIn(t *testing.T, p *testenv.Process, login, password string) caller {
	t.Helper()
	data := stranger(p).do(t, `mutation($l: String!, $p: String!) { signIn(input: {login: $l, password: $p}) { session { accessToken } userErrors { code } } }`,
		map[string]any{"l": login, "p": password})
	token := text(data, "signIn", "session", "accessToken")
	if token == "" {
		t.Fatalf("signing %s in gave %v", login, data)
	}
	return caller{p.BaseURL, token}
}

func signUp(t *testing.T, p *testenv.Process, name string) caller {
	t.Helper()
	data := stranger(p).do(t, `mutation($n: String!) { signUp(input: {username: $n, password: "a password of mine"}) { session { accessToken } userErrors { code message } } }`,
		map[string]any{"n": name})
	token := text(data, "signUp", "session", "accessToken")
	if token == "" {
		t.Fatalf("signing %s up gave %v", name, data)
	}
	return caller{p.BaseURL, token}
}

// createProduct adds a product and returns its id.
func createProduct(t *testing.T, c caller, sku string, stock int) string {
	t.Helper()
	data := c.do(t, `mutation($sku: String!, $stock: Int!) {
		createProduct(input: {sku: $sku, name: $sku, price: {amount: "12.50", currency: "EUR"}, stock: $stock}) { product { id } userErrors { code } }
	}`, map[string]any{"sku": sku, "stock": stock})
	id := text(data, "createProduct", "product", "id")
	if id == "" {
		t.Fatalf("createProduct %s gave %v", sku, data)
	}
	return id
}

const placeOrder = `mutation($items: [OrderItemInput!]!, $key: String) {
	placeOrder(input: {items: $items, idempotencyKey: $key}) { order { id number } userErrors { code path } }
}`

func line(sku string, quantity int) map[string]any {
	return map[string]any{"sku": sku, "quantity": quantity}
}

// eventually polls until the condition holds, for what is promised within a
// second; it fails the test after far longer.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	within(t, 15*time.Second, what, holds)
}

// within is eventually for what may take longer.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain until %s", what)
		}
		pause(ctx, 50*time.Millisecond)
	}
}
