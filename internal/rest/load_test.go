package rest_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/rest"
)

// newExecutor runs the real schema without anything behind it: enough to prepare.
func newExecutor(t testing.TB) *executor.Executor {
	t.Helper()
	x, err := executor.New(graph.NewSchema(&graph.Resolver{}), executor.Config{Scalars: graph.Scalars()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// load loads the operations of the binary and one of an operator, if it has text.
func load(t testing.TB, own string) (*rest.Shim, error) {
	t.Helper()
	cfg := rest.Config{Reserved: httpd.Reserved()}
	if own != "" {
		cfg.Folder = t.TempDir()
		if err := os.WriteFile(filepath.Join(cfg.Folder, "own.graphql"), []byte(own), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return rest.New(newExecutor(t), cfg, slog.New(slog.DiscardHandler))
}

func TestNew_loads_every_operation(t *testing.T) {
	t.Parallel()
	s, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("operations/*.graphql")
	if err != nil {
		t.Fatal(err)
	}
	documented := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), "# ") {
			documented++
		}
	}
	if documented != len(files) || len(s.Patterns()) < 20 {
		t.Errorf("%d of %d operations are documented, and there are %d patterns", documented, len(files), len(s.Patterns()))
	}
}

func TestNew_names_file_and_line_of_a_mistake(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"no GraphQL", "# A.\nquery A {", "own.graphql:2: Expected Name"},
		{"no operation", "fragment A on User { id }", "own.graphql:1: a file holds operations, each with a name"},
		{"two operations on a line", "query A { viewer { user { id } } } query B { viewer { user { id } } }", "own.graphql:1: a file holds operations"},
		{"a mistake in the second operation", "query A @rest(method: \"GET\", path: \"/a\") { viewer { user { id } } }\n# B.\nquery B { viewer { usr { id } } }", "own.graphql:3: Cannot query field \"usr\""},
		{"an operation without a name among others", "query A @rest(method: \"GET\", path: \"/a\") { viewer { user { id } } }\n{ viewer { user { id } } }", "own.graphql:2: a file holds operations"},
		{"an unknown field", "query A @rest(method: \"GET\", path: \"/a\") {\n  viewer {\n    usr { id } } }", "own.graphql:3: Cannot query field \"usr\""},
		{"an unknown argument of the directive", "query A @rest(methd: GET, path: \"/a\") { viewer { user { id } } }", "own.graphql:1: Unknown argument \"methd\""},
		{"an unknown method", "query A @rest(method: \"FETCH\", path: \"/a\") { viewer { user { id } } }", "own.graphql:1: the method is one of GET, POST, PUT, PATCH, DELETE, and not \"FETCH\""},
		{"an unknown code", "query A @rest(method: \"GET\", path: \"/a\", statuses: [{code: NO, status: 404}]) { viewer { user { id } } }", "own.graphql:1: Value \"NO\""},
		{"a variable of the wrong type", "query A($a: Int) @rest(method: \"GET\", path: \"/a\") { user(id: $a) { id } }", "own.graphql:1: Variable \"$a\" of type \"Int\""},
		{"neither directive", "query A { viewer { user { id } } }", "own.graphql:1: an operation has either"},
		{"a path that ends with a slash", "query A @rest(method: \"GET\", path: \"/a/\") { viewer { user { id } } }", "own.graphql:1: the path begins"},
		{"a status that is none", "query A @rest(method: \"GET\", path: \"/a\", status: 99) { viewer { user { id } } }", "own.graphql:1: 99 is no status"},
		{"a placeholder that nothing takes", "query A @rest(method: \"GET\", path: \"/a/{b}\") { viewer { user { id } } }", "own.graphql:1: nothing takes {b}"},
		{"a placeholder that is not there", "query A(\n$b: ID! @from(path: \"b\")) @rest(method: \"GET\", path: \"/a\") { user(id: $b) { id } }", "own.graphql:2: the path has no {b}"},
		{"a body where none can be", "query A($b: ID! @from(body: \"b\")) @rest(method: \"GET\", path: \"/a\") { user(id: $b) { id } }", "own.graphql:1: GET has no body"},
		{"a look-up that is not there", "query A($b: ID! @from(query: \"b\", legacy: \"X\")) @rest(method: \"GET\", path: \"/a\") { user(id: $b) { id } }", "own.graphql:1: there is no lookup \"X\""},
		{"a way that is not selected", "query A @rest(method: \"GET\", path: \"/a\", unwrap: \"viewer.user.name\") { viewer { user { id } } }", "own.graphql:1: the operation does not select \"name\""},
		{"a mutation by GET", "mutation A @rest(method: \"GET\", path: \"/a\") { signOut(input: {}) { session { id } } }", "own.graphql:1: GET must change nothing"},
		{"two root fields", "query A @rest(method: \"GET\", path: \"/a\") { viewer { user { id } } eventCursor }", "own.graphql:1: the operation of a route has one root field"},
		{"a route that there is", "query A($id: ID!) @rest(method: \"GET\", path: \"/users/{id}\") { user(id: $id) { id } }", "own.graphql:1: operations/get_user.graphql serves GET /users/{id}, too"},
		{"a path of the server", "query A @rest(method: \"GET\", path: \"/graphql\") { viewer { user { id } } }", "own.graphql:1: the path /graphql conflicts with others"},
		{"a document beyond the limits", "query A @rest(method: \"GET\", path: \"/a\") { viewer { user { id } } " + strings.Repeat("x", 70_000) + " }", "has more than 65536 bytes"},
		{"no field that makes absent", "query A @rest(method: \"GET\", path: \"/a\", unwrap: \"viewer\", absent: {field: \"x\", value: \"y\"}) { viewer { user { id } } }", "own.graphql:1: \"x\" of absent"},
	}
	for _, tt := range tests {
		_, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestNew_lets_operators_replace_an_operation_by_its_name(t *testing.T) {
	t.Parallel()
	_, err := load(t, "query GetUser($id: ID!) @rest(method: \"GET\", path: \"/users/{id}\") { user(id: $id) { id name } }")
	if err != nil {
		t.Errorf("New = %v, want an operator's operation to take the place of ours", err)
	}
}

func TestNew_takes_several_operations_from_a_file(t *testing.T) {
	t.Parallel()
	s, err := load(t, "# A.\nquery A @rest(method: \"GET\", path: \"/a\") { viewer { user { ...F } } }\nfragment F on User { id }\n\n# B.\n#\n# More.\nquery B @rest(method: \"GET\", path: \"/b\") { viewer { user { id } } }\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range []string{"/a", "/b"} {
		if !slices.Contains(s.Patterns(), route) {
			t.Errorf("%s is not among the routes %q", route, s.Patterns())
		}
	}
}

func TestNew_names_a_folder_that_is_not_there(t *testing.T) {
	t.Parallel()
	_, err := rest.New(newExecutor(t), rest.Config{Folder: "/nowhere/at/all"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "open /nowhere/at/all: no such file") {
		t.Errorf("New = %v, want the folder and the cause", err)
	}
}
