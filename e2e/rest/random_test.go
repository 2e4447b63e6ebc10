package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// tooLarge is more than the server takes of a body.
const tooLarge = 1 << 20

// perSeed is how many requests a seed stands for.
const perSeed = 50

// randomTime is how long random requests are sent: 20 s in CI.
func randomTime() time.Duration {
	switch {
	case testenv.Soak():
		return 10 * time.Minute
	case os.Getenv("CI") == "true":
		return 20 * time.Second
	}
	return 3 * time.Second
}

// TestREST_keeps_its_document_under_random_requests sends what the OpenAPI document
// allows, and much that it does not, to every operation: nothing may be a fault of
// the server, every error must be a problem document, and every answer must be one
// that the document describes. A seed that fails is named; add it to the file.
func TestREST_keeps_its_document_under_random_requests(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short run")
	}
	f := newFuzzer(t)
	end := time.Now().Add(randomTime())
	for _, seed := range keptSeeds(t) {
		f.play(t, seed)
	}
	for !t.Failed() && time.Now().Before(end) {
		f.play(t, rand.Uint64())
	}
	t.Logf("%d requests to %d operations; statuses: %v", f.sent, len(f.operations), f.statuses)
	var missed []string // by chance one or the other; recorded calls answer each of them well
	for _, op := range f.operations {
		if f.succeeded[op.name] == 0 {
			missed = append(missed, op.name)
		}
	}
	if f.sent > 3000 && len(missed) > len(f.operations)/4 {
		t.Errorf("%q were never answered well in %d requests: the test does not reach them", missed, f.sent)
	}
}

func keptSeeds(t *testing.T) (seeds []uint64) {
	t.Helper()
	text, err := os.ReadFile("testdata/rest/seeds")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			seed, err := strconv.ParseUint(line, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			seeds = append(seeds, seed)
		}
	}
	return seeds
}

// described is an operation of the document.
type described struct {
	name       string // method and path
	method     string
	path       string
	parameters []map[string]any
	body       map[string]any             // its schema, nil if there is none
	answers    map[int]*jsonschema.Schema // by status; nil for one without a body
}

// fuzzer sends requests made of the document.
type fuzzer struct {
	root       harness.Caller
	document   map[string]any
	operations []described
	problem    *jsonschema.Schema
	seen       map[string][]string // ids that answers showed, by the path of the list
	sent       int
	statuses   map[int]int
	succeeded  map[string]int
}

func newFuzzer(t *testing.T) *fuzzer {
	t.Helper()
	database := harness.Databases["SQLite"](t)
	harness.RunCommand(t, database, "migrate")
	harness.RunCommand(t, database, "seed", "--users", "20", "--orders", "60", "--lines", "2") // orders in all states
	p := harness.StartServer(t, database)
	harness.SignUp(t, p, "guest") // so that a random sign-in can succeed
	f := &fuzzer{root: harness.SignInAdmin(t, p), statuses: map[int]int{}, seen: map[string][]string{}, succeeded: map[string]int{}}
	text := f.root.MustREST(t, http.StatusOK, "GET /openapi.json", "").Body
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	f.document = document.(map[string]any)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("http://api/openapi.json", document); err != nil {
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
	f.problem = compile("components", "schemas", "Problem")
	paths := f.document["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		for method, op := range paths[path].(map[string]any) {
			f.operations = append(f.operations, f.read(path, method, op.(map[string]any), compile))
		}
	}
	slices.SortFunc(f.operations, func(a, b described) int { return strings.Compare(a.name, b.name) })
	return f
}

// read reads an operation of the document.
func (f *fuzzer) read(path, method string, op map[string]any, compile func(...string) *jsonschema.Schema) described {
	d := described{name: strings.ToUpper(method) + " " + path, method: strings.ToUpper(method), path: path, answers: map[int]*jsonschema.Schema{}}
	for _, p := range list(op["parameters"]) {
		d.parameters = append(d.parameters, p.(map[string]any))
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

// play sends the requests that a seed stands for.
func (f *fuzzer) play(t *testing.T, seed uint64) {
	t.Helper()
	g := &generator{rand.New(rand.NewPCG(seed, 0)), f}
	for i := range perSeed {
		op := f.operations[g.IntN(len(f.operations))]
		req := g.request(t, op)
		sent := fmt.Sprintf("%s %s %v %s", req.method, req.target, req.header, req.body)
		if err := f.check(op, req); err != nil {
			t.Errorf("seed %d, request %d: %s\n%v", seed, i, sent, err)
		}
	}
}

// check sends a request and returns what is wrong with the answer.
func (f *fuzzer) check(op described, req randomRequest) error {
	r, err := http.NewRequest(req.method, f.root.BaseURL+req.target, strings.NewReader(req.body))
	if err != nil {
		return nil // no request that HTTP can carry
	}
	r.Header = req.header
	resp, err := harness.HTTPClient.Do(r)
	switch {
	case err != nil && len(req.body) > tooLarge:
		return nil // the server has hung up on it
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	f.sent++
	f.statuses[resp.StatusCode]++
	schema, known := op.answers[resp.StatusCode]
	switch {
	case resp.StatusCode >= http.StatusInternalServerError:
		return fmt.Errorf("a fault of the server: %d %s", resp.StatusCode, text)
	case !known:
		return fmt.Errorf("the document does not know the status %d: %s", resp.StatusCode, text)
	case resp.StatusCode >= http.StatusBadRequest:
		return f.checkProblem(resp, text)
	case len(text) == 0:
		f.succeeded[op.name]++
		return nil
	case schema == nil:
		return fmt.Errorf("the document has no body for %d: %s", resp.StatusCode, text)
	}
	f.succeeded[op.name]++
	return f.checkAnswer(op, schema, text)
}

func (f *fuzzer) checkProblem(resp *http.Response, text []byte) error {
	if got := resp.Header.Get("Content-Type"); got != problem.MediaType {
		return fmt.Errorf("an error as %s: %s", got, text)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("an error that is no JSON: %w: %s", err, text)
	}
	if err := f.problem.Validate(v); err != nil {
		return fmt.Errorf("an error that is no problem document: %w: %s", err, text)
	}
	if status, _ := harness.At(v, "status").(json.Number); status.String() != strconv.Itoa(resp.StatusCode) {
		return fmt.Errorf("a problem of %d says: %s", resp.StatusCode, text)
	}
	return nil
}

func (f *fuzzer) checkAnswer(op described, schema *jsonschema.Schema, body []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("an answer that is no JSON: %w: %s", err, body)
	}
	if err := schema.Validate(v); err != nil {
		return fmt.Errorf("an answer that the document does not describe: %w: %s", err, body)
	}
	if token := harness.Text(v, "refresh_token"); token != "" {
		f.seen["refresh_token"] = []string{token}
	}
	if lease := harness.Text(v, "lease"); lease != "" {
		f.seen["lease"] = append(f.seen["lease"], lease)
	}
	kind := kindOf(op.path)
	for _, shown := range append(list(v), v) {
		if id := harness.At(shown, "id"); id != nil {
			f.seen[kind] = append(f.seen[kind], fmt.Sprint(id))
		}
	}
	f.seen[kind] = f.seen[kind][max(0, len(f.seen[kind])-40):]
	return nil
}

// kindOf is what the ids of a path are of.
func kindOf(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) > 3 && parts[3] == "instances" {
		return parts[3]
	}
	return parts[1]
}

// randomRequest is a request as it is sent.
type randomRequest struct {
	method, target, body string
	header               http.Header
}

// generator makes requests of a seed.
type generator struct {
	*rand.Rand
	f *fuzzer
}

// sometimes is true once in n times.
func (g *generator) sometimes(n int) bool { return g.IntN(n) == 0 }

func oneOf[T any](g *generator, values ...T) T { return values[g.IntN(len(values))] }

func (g *generator) request(t *testing.T, op described) randomRequest {
	t.Helper()
	req := randomRequest{method: op.method, target: op.path, header: http.Header{}}
	query := url.Values{}
	for _, p := range op.parameters {
		name, schema := p["name"].(string), p["schema"].(map[string]any)
		switch p["in"] {
		case "path":
			req.target = strings.ReplaceAll(req.target, "{"+name+"}", url.PathEscape(g.id(kindOf(before(op.path, name)))))
		case "query":
			if g.sometimes(3) {
				query.Add(name, g.text(name, schema))
			}
		case "header":
			if g.sometimes(4) {
				req.header.Set(name, g.headerValue(name))
			}
		}
	}
	if len(query) > 0 {
		req.target += "?" + query.Encode()
	}
	if g.sometimes(50) {
		req.target += oneOf(g, "?%zz", "?a;b", "/")
	}
	g.addHeaders(&req)
	if op.body != nil {
		req.body = g.body(t, op)
	}
	return req
}

// before is a path up to a placeholder.
func before(path, name string) string {
	head, _, _ := strings.Cut(path, "{"+name+"}")
	return head
}

// id is one that there is, mostly.
func (g *generator) id(kind string) string {
	if known := g.f.seen[kind]; len(known) > 0 && !g.sometimes(6) {
		return known[g.IntN(len(known))]
	}
	return oneOf(g, "5", "0", "-1", "usr_01j9zq4m8ye7v9k2t3w5x6y7z8", "ord_01j9zq4m8ye7v9k2t3w5x6y7z8", "ä", "a b", "%", "'; --", "\x01", "\xff", strings.Repeat("x", 300))
}

func (g *generator) headerValue(name string) string {
	switch name {
	case "If-Match":
		return oneOf(g, `"1"`, "1", `"2-abc"`, "*", `W/"1-x"`, "nonsense", `"a"`, `"1", "2"`, "99999999999999999999")
	case "Prefer":
		return oneOf(g, "return=minimal", "return=representation", "wait=10")
	case "Idempotency-Key":
		return oneOf(g, strconv.Itoa(g.IntN(1000)), strings.Repeat("k", 201), "ä")
	}
	return oneOf(g, "*", `"0-abc"`, "nonsense")
}

func (g *generator) addHeaders(req *randomRequest) {
	switch g.IntN(12) {
	case 0: // an anonymous caller
	case 1:
		req.header.Set("Authorization", oneOf(g, "Bearer nonsense", "Bearer", "Basic eDp5", ""))
	default:
		req.header.Set("Authorization", "Bearer "+g.f.root.Token)
	}
	if g.sometimes(6) {
		req.header.Set("Accept", oneOf(g, "*/*", "application/json", "text/html", "application/json;q=0", "nonsense", "application/*;q=0.1", ""))
	}
	if g.sometimes(6) {
		req.header.Set("Content-Type", oneOf(g, "application/json", "application/merge-patch+json", "text/plain", "application/json; charset=latin1", "", ";"))
	}
}

// text is a value of a schema as a query has it.
func (g *generator) text(name string, schema map[string]any) string {
	v := g.value(name, schema, 0)
	if items, ok := v.([]any); ok {
		var texts []string
		for _, item := range items {
			texts = append(texts, fmt.Sprint(item))
		}
		return strings.Join(texts, ",")
	}
	return fmt.Sprint(v)
}

func (g *generator) body(t *testing.T, op described) string {
	t.Helper()
	if g.sometimes(15) {
		return oneOf(g, "", " ", "{", "[]", "null", `"text"`, `{"a":1,"a":2}`, "\xff", `{"a":`+strings.Repeat("[", 200), strings.Repeat("a", 2*tooLarge))
	}
	text, err := json.Marshal(g.value("", op.body, 0))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// value is one that fits the schema, mostly.
func (g *generator) value(name string, schema map[string]any, depth int) any {
	if g.sometimes(25) || depth > 5 {
		return g.junk()
	}
	if ref, ok := schema["$ref"].(string); ok {
		return g.value(name, harness.At(g.f.document, "components", "schemas", strings.TrimPrefix(ref, "#/components/schemas/")).(map[string]any), depth+1)
	}
	if choices := list(schema["anyOf"]); len(choices) > 0 && schema["type"] == nil {
		return g.value(name, oneOf(g, choices...).(map[string]any), depth+1)
	}
	if values := list(schema["enum"]); len(values) > 0 {
		return oneOf(g, values...)
	}
	kind := schema["type"]
	if kinds := list(kind); len(kinds) > 0 {
		kind = oneOf(g, kinds...)
	}
	switch kind {
	case "object":
		return g.object(schema, depth)
	case "array":
		items := []any{}
		for range g.IntN(3) + 1 {
			items = append(items, g.value(name, schema["items"].(map[string]any), depth+1))
		}
		return items
	case "integer":
		return oneOf(g, 1, 2, 5, 0, g.IntN(100), g.IntN(1_000_000))
	case "boolean":
		return g.sometimes(2)
	case "null":
		return nil
	}
	return g.word(name, schema)
}

func (g *generator) object(schema map[string]any, depth int) any {
	out := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	required := list(schema["required"])
	for _, choice := range list(schema["anyOf"]) {
		required = append(required, list(harness.At(choice, "required"))[0])
		break // one of the names will do
	}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if p := properties[name].(map[string]any); slices.Contains(required, any(name)) && !g.sometimes(30) || g.sometimes(4) {
			out[name] = g.value(name, p, depth+1)
		}
	}
	if g.sometimes(30) {
		out[oneOf(g, "surprise", "", "a/b~c", "__proto__", strings.Repeat("n", 500))] = g.junk()
	}
	return out
}

// word is text that makes sense under the name, mostly.
func (g *generator) word(name string, schema map[string]any) any {
	switch n := strconv.Itoa(g.IntN(50)); name {
	case "username", "name":
		if examples := list(schema["examples"]); len(examples) > 0 {
			return oneOf(g, examples...) // of a service, whose names are few
		}
		return oneOf(g, "user "+n, "user "+n, harness.AdminName)
	case "login":
		return oneOf(g, "guest", "guest", "user "+n, harness.AdminName)
	case "email":
		return "user" + n + "@example.com"
	case "password":
		return oneOf(g, "a password of mine", "short")
	case "sku":
		return "SKU-" + strconv.Itoa(g.IntN(8))
	case "amount":
		return oneOf(g, "12.50", "0", "1", "1.005", "-1", "1e3")
	case "currency":
		return oneOf(g, "EUR", "EUR", "JPY", "XXX")
	case "refresh_token":
		if known := g.f.seen[name]; len(known) > 0 {
			return known[0]
		}
	case "user_id":
		return g.id("users")
	case "url":
		return "http://10.0.0.7:8080"
	case "ttl":
		return "30s"
	case "lease":
		if known := g.f.seen[name]; len(known) > 0 {
			g.f.seen[name] = known[1:]
			return known[0]
		}
	}
	if examples := list(schema["examples"]); len(examples) > 0 && !g.sometimes(4) {
		return oneOf(g, examples...)
	}
	return g.junk()
}

// junk fits nothing in particular.
func (g *generator) junk() any {
	return oneOf[any](g, nil, true, "", "text", "a\x00b", "\u202e", strings.Repeat("ä", 3000), -1, 1.5, 1e300, json.Number("123456789012345678901234567890"),
		[]any{}, []any{nil, 1}, map[string]any{}, map[string]any{"a": []any{map[string]any{}}})
}
