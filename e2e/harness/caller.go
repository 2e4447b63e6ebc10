package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// Caller sends requests to a node; Token is empty for an anonymous caller.
type Caller struct {
	BaseURL string
	Token   string
}

// Answer is a GraphQL response, and how HTTP carried it.
type Answer struct {
	Status     int
	Header     http.Header    `json:"-"`
	Data       map[string]any `json:"data"`
	Extensions map[string]any `json:"extensions"`
	Errors     []struct {
		Message    string         `json:"message"`
		Extensions map[string]any `json:"extensions"`
	} `json:"errors"`
}

// HTTPClient sends the requests of all callers.
var HTTPClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 128}}

// newRequest returns a request of the caller with its credential; header is pairs of names
// and values.
func (c Caller) newRequest(ctx context.Context, method, path string, body io.Reader, header ...string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.BaseURL+path, body)
	if err != nil {
		return nil, err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req, nil
}

// Send posts an operation. An error means that no answer came.
func (c Caller) Send(ctx context.Context, query string, vars map[string]any, header ...string) (*Answer, error) {
	body, err := json.Marshal(map[string]any{"query": query, "variables": vars})
	if err != nil {
		return nil, err
	}
	header = append([]string{"Content-Type", "application/json", "Accept", "application/graphql-response+json"}, header...)
	req, err := c.newRequest(ctx, http.MethodPost, "/graphql", bytes.NewReader(body), header...)
	if err != nil {
		return nil, err
	}
	resp, err := HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &Answer{Status: resp.StatusCode, Header: resp.Header}
	if err := json.Unmarshal(text, a); err != nil {
		return nil, fmt.Errorf("status %d: %w: %s", resp.StatusCode, err, text)
	}
	return a, nil
}

// Do sends an operation that must be answered without errors.
func (c Caller) Do(t testing.TB, query string, vars map[string]any) map[string]any {
	t.Helper()
	a, err := c.Send(t.Context(), query, vars)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != http.StatusOK || len(a.Errors) > 0 {
		t.Fatalf("%s\ngave status %d and errors %+v", query, a.Status, a.Errors)
	}
	return a.Data
}

// At walks into decoded JSON by keys and indexes.
func At(v any, path ...any) any {
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

// Text is at for a string, empty if there is none.
func Text(v any, path ...any) string {
	s, _ := At(v, path...).(string)
	return s
}

// Number is at for a number, zero if there is none.
func Number(v any, path ...any) int {
	n, _ := At(v, path...).(float64)
	return int(n)
}

// Anonymous returns a caller without a credential.
func Anonymous(p *testenv.Process) Caller { return Caller{BaseURL: p.BaseURL} }

// SignInAdmin signs the ADMIN of the server in.
func SignInAdmin(t testing.TB, p *testenv.Process) Caller {
	t.Helper()
	return SignIn(t, p, AdminName, AdminPassword)
}

// SignIn signs a user in.
func SignIn(t testing.TB, p *testenv.Process, login, password string) Caller {
	t.Helper()
	data := Anonymous(p).Do(t, `mutation($l: String!, $p: String!) { signIn(input: {login: $l, password: $p}) { session { accessToken } userErrors { code } } }`,
		map[string]any{"l": login, "p": password})
	token := Text(data, "signIn", "session", "accessToken")
	if token == "" {
		t.Fatalf("signing %s in gave %v", login, data)
	}
	return Caller{BaseURL: p.BaseURL, Token: token}
}

// SignUp creates a customer and returns it signed in.
func SignUp(t testing.TB, p *testenv.Process, name string) Caller {
	t.Helper()
	data := Anonymous(p).Do(t, `mutation($n: String!) { signUp(input: {username: $n, password: "a password of mine"}) { session { accessToken } userErrors { code message } } }`,
		map[string]any{"n": name})
	token := Text(data, "signUp", "session", "accessToken")
	if token == "" {
		t.Fatalf("signing %s up gave %v", name, data)
	}
	return Caller{BaseURL: p.BaseURL, Token: token}
}
