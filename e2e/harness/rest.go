package harness

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// RESTAnswer is what a route answered.
type RESTAnswer struct {
	Status int
	Header http.Header
	Body   []byte
}

// JSON returns the body decoded.
func (a *RESTAnswer) JSON(t testing.TB) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(a.Body, &v); err != nil {
		t.Fatalf("the answer is no JSON: %v: %s", err, a.Body)
	}
	return v
}

// REST calls a route: line is method and path, header pairs of names and values.
func (c Caller) REST(ctx context.Context, line, body string, header ...string) (*RESTAnswer, error) {
	method, path, _ := strings.Cut(line, " ")
	req, err := c.newRequest(ctx, method, path, strings.NewReader(body), header...)
	if err != nil {
		return nil, err
	}
	resp, err := HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return &RESTAnswer{resp.StatusCode, resp.Header, text}, err
}

// MustREST is rest for calls that must be answered with the status.
func (c Caller) MustREST(t testing.TB, status int, line, body string, header ...string) *RESTAnswer {
	t.Helper()
	a, err := c.REST(t.Context(), line, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != status {
		t.Fatalf("%s %s = %d %s, want %d", line, body, a.Status, a.Body, status)
	}
	return a
}
