package rest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// tooLarge is more than the server takes of a body.
const tooLarge = 1 << 20

// request is a random request.
type request struct {
	method       string
	target, body string // as they are sent
	plainTarget  string // the same in plain forms
	plainBody    string
	header       http.Header
	hasBody      bool
	value        any       // of the body, if it is a value
	fair         bool      // it has a media type and accepts one that must be taken
	repeat       bool      // another call had its idempotency key
	misdirected  bool      // the path does not have the method
	condition    condition // of what is stored
}

func (r *request) String() string {
	h := r.header.Clone()
	if len(h.Get("Authorization")) > 100 {
		h.Set("Authorization", "of the ADMIN")
	}
	return fmt.Sprintf("%s %s %v %.2000s", r.method, r.target, h, r.body)
}

// isOdd reports whether the request has another form than the plain one.
func (r *request) isOdd() bool { return r.target != r.plainTarget || r.body != r.plainBody }

// plain returns the request in its plain form.
func (r *request) plain() *request {
	p := *r
	p.target, p.body = r.plainTarget, r.plainBody
	return &p
}

// generator makes the requests of a seed.
type generator struct {
	*rand.Rand
	f *fuzzer
}

// sometimes is true once in n times.
func (g *generator) sometimes(n int) bool { return g.IntN(n) == 0 }

func oneOf[T any](g *generator, values ...T) T { return values[g.IntN(len(values))] }

func (g *generator) request(t *testing.T, op described) *request {
	t.Helper()
	req := &request{method: op.method, target: op.path, plainTarget: op.path, header: http.Header{}}
	query := url.Values{}
	for _, p := range op.parameters {
		name, schema := p["name"].(string), p["schema"].(map[string]any)
		switch p["in"] {
		case "path":
			id := g.id(kindOf(before(op.path, name)))
			req.plainTarget = strings.ReplaceAll(req.plainTarget, "{"+name+"}", url.PathEscape(id))
			req.target = strings.ReplaceAll(req.target, "{"+name+"}", g.oddEscape(id, false))
		case "query":
			if g.sometimes(3) {
				query.Add(name, g.text(name, schema))
			}
		}
	}
	if g.sometimes(2) {
		req.target = req.plainTarget
	}
	if len(query) > 0 {
		req.target, req.plainTarget = req.target+"?"+g.oddQuery(query), req.plainTarget+"?"+query.Encode()
	}
	if end := oneOf(g, "?%zz", "?a;b", "/"); len(query) == 0 && g.sometimes(50) {
		req.target, req.plainTarget = req.target+end, req.plainTarget+end
	}
	if op.body != nil {
		g.addBody(t, req, op)
	}
	g.addHeaders(req)
	if op.method != http.MethodGet {
		g.addConditions(req, g.f.tagOf(t, op, req))
	} else if g.sometimes(4) {
		req.header.Set("If-None-Match", oneOf(g, `*`, `"0-abc"`, "nonsense", `W/"1"`, `"a", "b"`))
	}
	if g.sometimes(40) {
		g.misdirect(req, op)
	}
	return req
}

// misdirect gives a request a method that its path does not have.
func (g *generator) misdirect(req *request, op described) {
	method := oneOf(g, "PUT", "PATCH", "DELETE", "POST", "PROPFIND", "get")
	if !slices.Contains(g.f.document.methods(op.path), method) {
		req.method, req.misdirected = method, true
	}
}

// before is a path up to a placeholder.
func before(path, name string) string {
	head, _, _ := strings.Cut(path, "{"+name+"}")
	return head
}

// kindOf is what the ids of a path are of.
func kindOf(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) > 3 && parts[3] == "instances" {
		return parts[3]
	}
	return parts[1]
}

// id is one that there is, mostly.
func (g *generator) id(kind string) string {
	if known := g.f.seen[kind]; len(known) > 0 && !g.sometimes(10) {
		return known[g.IntN(len(known))]
	}
	return oneOf(g, "5", "0", "-1", "5.0", "usr_01j9zq4m8ye7v9k2t3w5x6y7z8", "ord_01j9zq4m8ye7v9k2t3w5x6y7z8", "ä", "a b", "a/b", "%", "'; --", "\x01", "\xff", strings.Repeat("x", 300))
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

// addBody adds a body, mostly one that fits its schema, in a plain or in an odd form.
func (g *generator) addBody(t *testing.T, req *request, op described) {
	t.Helper()
	req.hasBody = true
	if g.sometimes(25) {
		req.body = oneOf(g, "", " ", "{", "[]", "null", `"text"`, `{"a":1,"a":2}`, `{"id":1,"\u0069d":1}`, "\xff", `{"a":`+strings.Repeat("[", 200), `{"a":`+strings.Repeat("[", 90)+strings.Repeat("]", 90)+"}",
			strings.Repeat("a", 2*tooLarge), `{"name":"\ud83d"}`, "\uFEFF", "{}\uFEFF", "{} {}", "{\"by\":1,}", "{\"by\":+1}", "{\"by\":01}", "{\"by\":NaN}")
		req.plainBody = req.body
		return
	}
	req.value = g.value("", op.body, 0)
	text, err := json.Marshal(req.value)
	if err != nil {
		t.Fatal(err)
	}
	req.body, req.plainBody = string(text), string(text)
	if g.sometimes(2) {
		req.body = g.oddJSON(req.value)
	}
}

// value is one that fits the schema, mostly.
func (g *generator) value(name string, schema map[string]any, depth int) any {
	if g.sometimes(50) || depth > 5 {
		return g.junk()
	}
	if ref, ok := schema["$ref"].(string); ok {
		return g.value(name, harness.At(g.f.document.all, "components", "schemas", strings.TrimPrefix(ref, "#/components/schemas/")).(map[string]any), depth+1)
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
		if p := properties[name].(map[string]any); slices.Contains(required, any(name)) && !g.sometimes(50) || g.sometimes(7) {
			out[name] = g.value(name, p, depth+1)
		}
	}
	if g.sometimes(60) {
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
		return oneOf(g, "user "+n, "user "+n, "user "+strconv.Itoa(g.IntN(1_000_000)), "user "+strconv.Itoa(g.IntN(1_000_000)), harness.AdminName)
	case "login":
		return oneOf(g, "guest", "guest", "user "+n, harness.AdminName)
	case "email":
		return "user" + n + "@example.com"
	case "password":
		return oneOf(g, "a password of mine", "short")
	case "sku":
		if known := g.f.seen[name]; len(known) > 0 && g.sometimes(2) {
			return known[g.IntN(len(known))]
		}
		return "SKU-" + strconv.Itoa(g.IntN(1000))
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
		return "10m" // nothing that a lease that ends changes may look like an effect
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
	return oneOf[any](g, nil, true, "", "text", "a\x00b", "\u202e", "e\u0301", "\U0001F600", strings.Repeat("ä", 3000), -1, 1.5, 1e300, json.Number("123456789012345678901234567890"), 2147483648, 9007199254740993,
		[]any{}, []any{nil, 1}, map[string]any{}, map[string]any{"a": []any{map[string]any{}}})
}
