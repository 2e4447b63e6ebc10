package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/problem"
)

// described is an operation of the OpenAPI document.
type described struct {
	name       string // method and path
	method     string
	path       string
	parameters []map[string]any
	body       map[string]any             // its schema, nil if there is none
	answers    map[int]*jsonschema.Schema // by status; nil for one without a body
	keyed      bool                       // it takes an idempotency key
	readable   bool                       // the path can be read
}

// document is the OpenAPI document of a server.
type document struct {
	all        map[string]any
	operations []described
	problem    *jsonschema.Schema
}

// readDocument reads the document that the server makes.
func readDocument(t testing.TB, caller harness.Caller) *document {
	t.Helper()
	text := caller.MustREST(t, http.StatusOK, "GET /openapi.json", "").Body
	decoded, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("http://api/openapi.json", decoded); err != nil {
		t.Fatal(err)
	}
	compile := func(parts ...string) *jsonschema.Schema {
		pointer := "http://api/openapi.json#"
		for _, part := range parts {
			pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
		}
		s, err := c.Compile(pointer)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	d := &document{all: decoded.(map[string]any), problem: compile("components", "schemas", "Problem")}
	paths := d.all["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		methods := paths[path].(map[string]any)
		for method, op := range methods {
			read := readOperation(path, method, op.(map[string]any), compile)
			read.readable = methods["get"] != nil
			d.operations = append(d.operations, read)
		}
	}
	slices.SortFunc(d.operations, func(a, b described) int { return strings.Compare(a.name, b.name) })
	return d
}

func readOperation(path, method string, op map[string]any, compile func(...string) *jsonschema.Schema) described {
	d := described{name: strings.ToUpper(method) + " " + path, method: strings.ToUpper(method), path: path, answers: map[int]*jsonschema.Schema{}}
	for _, p := range list(op["parameters"]) {
		d.parameters = append(d.parameters, p.(map[string]any))
		d.keyed = d.keyed || harness.Text(p, "name") == "Idempotency-Key"
	}
	if schema, ok := harness.At(op, "requestBody", "content", "application/json", "schema").(map[string]any); ok {
		d.body = schema
	}
	for status, answer := range op["responses"].(map[string]any) {
		code, _ := strconv.Atoi(status)
		d.answers[code] = nil
		if harness.At(answer, "content", "application/json") != nil {
			d.answers[code] = compile("paths", path, method, "responses", status, "content", "application/json", "schema")
		}
	}
	return d
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// methods returns those that the document has for the path.
func (d *document) methods(path string) (all []string) {
	for method := range d.all["paths"].(map[string]any)[path].(map[string]any) {
		all = append(all, strings.ToUpper(method))
	}
	return all
}

// check returns what of an answer is not as the document says.
func (d *document) check(op described, a *harness.RESTAnswer) error {
	schema, known := op.answers[a.Status]
	switch {
	case a.Status >= http.StatusInternalServerError && a.Status != http.StatusServiceUnavailable:
		return fmt.Errorf("a fault of the server: %d %s", a.Status, a.Body)
	case !known:
		return fmt.Errorf("the document does not know the status %d: %s", a.Status, a.Body)
	case a.Status >= http.StatusBadRequest:
		return d.checkProblem(a)
	case len(a.Body) == 0:
		return nil
	case schema == nil:
		return fmt.Errorf("the document has no body for %d: %s", a.Status, a.Body)
	case a.Header.Get("Content-Type") != "application/json":
		return fmt.Errorf("an answer as %s: %s", a.Header.Get("Content-Type"), a.Body)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.Body))
	if err != nil {
		return fmt.Errorf("an answer that is no JSON: %w: %s", err, a.Body)
	}
	if err := schema.Validate(v); err != nil {
		return fmt.Errorf("an answer that the document does not describe: %w: %s", err, a.Body)
	}
	return nil
}

func (d *document) checkProblem(a *harness.RESTAnswer) error {
	if got := a.Header.Get("Content-Type"); got != problem.MediaType {
		return fmt.Errorf("an error as %s: %s", got, a.Body)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.Body))
	if err != nil {
		return fmt.Errorf("an error that is no JSON: %w: %s", err, a.Body)
	}
	if err := d.problem.Validate(v); err != nil {
		return fmt.Errorf("an error that is no problem document: %w: %s", err, a.Body)
	}
	if status, _ := harness.At(v, "status").(json.Number); status.String() != strconv.Itoa(a.Status) {
		return fmt.Errorf("a problem of %d says: %s", a.Status, a.Body)
	}
	return nil
}
