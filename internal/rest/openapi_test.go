package rest_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/rest"
)

var update = flag.Bool("update", false, "rewrite golden files")

// page returns what is at a path of those that describe the routes.
func page(s *rest.Shim, path string, header ...string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	for _, p := range s.Pages() {
		mux.HandleFunc(p, s.ServePage)
	}
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// TestOpenAPI_is_the_golden_file shows every change of the document in review. The
// conformance tests hold the same file against public linters.
func TestOpenAPI_is_the_golden_file(t *testing.T) {
	t.Parallel()
	s, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	got := page(s, "/openapi.json").Body.Bytes()
	const golden = "testdata/openapi.golden.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the document has changed; if that is meant, run go test ./internal/rest -update (-golden +got):\n%s", diff)
	}
}

// TestOpenAPI_describes_error_codes_for_REST holds that no text names a field or an argument of GraphQL.
func TestOpenAPI_describes_error_codes_for_REST(t *testing.T) {
	t.Parallel()
	s, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Components struct {
			Schemas map[string]struct{ Description string }
		}
	}
	if err := json.Unmarshal(page(s, "/openapi.json").Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	text := d.Components.Schemas["ErrorCode"].Description
	ofGraphQL := regexp.MustCompile("first|extensions|[a-z][A-Z]")
	names := regexp.MustCompile("`[^`]*`").FindAllString(text, -1)
	for _, name := range names {
		if ofGraphQL.MatchString(name) {
			t.Errorf("a text of error codes speaks of %s", name)
		}
	}
	if !slices.Contains(names, "`limit`") {
		t.Errorf("the texts of error codes do not speak of `limit`: %q", names)
	}
}

func TestServePage_serves_the_documentation_without_the_internet(t *testing.T) {
	t.Parallel()
	s, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	w := page(s, "/docs")
	if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Content-Security-Policy"), "script-src 'self'") {
		t.Errorf("GET /docs = %d under %q", w.Code, w.Header().Get("Content-Security-Policy"))
	}
	if strings.Contains(w.Body.String(), "://") {
		t.Errorf("GET /docs loads something from elsewhere: %s", w.Body)
	}
	references := regexp.MustCompile(`(?:src|href)="([^":]+)"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(references) < 4 {
		t.Errorf("GET /docs loads %v, want a style, two scripts and the document", references)
	}
	for _, found := range references {
		name := found[1]
		if strings.HasPrefix(name, "/") {
			t.Errorf("GET /docs loads %s, which a prefix of a proxy breaks", name)
		}
		if a := page(s, "/"+name, "Accept-Encoding", "gzip"); a.Code != http.StatusOK || a.Body.Len() == 0 {
			t.Errorf("GET /%s = %d with %d bytes", name, a.Code, a.Body.Len())
		}
	}
	if w := page(s, "/docs/"); w.Code != http.StatusPermanentRedirect || w.Header().Get("Location") != "../docs" {
		t.Errorf("GET /docs/ = %d to %q, want a redirect to ../docs", w.Code, w.Header().Get("Location"))
	}
	tag := page(s, "/openapi.json").Header().Get("ETag")
	if w := page(s, "/openapi.json", "If-None-Match", tag); w.Code != http.StatusNotModified {
		t.Errorf("GET /openapi.json with its tag = %d, want %d", w.Code, http.StatusNotModified)
	}
	if w := page(s, "/docs/nothing.js"); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), `"NOT_FOUND"`) {
		t.Errorf("GET /docs/nothing.js = %d %s, want a problem", w.Code, w.Body)
	}
}
