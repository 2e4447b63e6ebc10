package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The places of a request that values come from.
const (
	inPath   = "path"
	inHeader = "header"
	inQuery  = "query"
	inBody   = "body"
)

// bound is a request bound to the variables of an operation.
type bound struct {
	rt        *route
	schema    *ast.Schema
	variables map[string]any
	origin    map[string]place // of each variable
	matched   bool             // the request said If-Match
	problems  []problem.Violation
}

// place is where a value came from, or would have.
type place struct{ in, name string }

// maxProblems bounds the problems that one answer lists.
const maxProblems = 50

func (b *bound) wrong(at problem.Violation) {
	if len(b.problems) < maxProblems {
		b.problems = append(b.problems, at)
	}
}

// bind reads the request's values. Whether they fit their types, the executor
// says; what it cannot see is a problem here.
func (s *Shim) bind(r *http.Request, rt *route) (*bound, error) {
	b := &bound{rt: rt, schema: s.exec.Schema(), variables: make(map[string]any, len(rt.params)), origin: make(map[string]place, len(rt.params))}
	query, err := parameters(r.URL)
	if err != nil {
		return nil, err
	}
	body, err := rt.body(r)
	if err != nil {
		return nil, err
	}
	for _, p := range rt.params {
		if err := b.take(r, p, query, body); err != nil {
			return nil, err
		}
	}
	b.refuseUnknown(r, body)
	return b, s.lookUp(r.Context(), b)
}

// parameters returns those of the query. One that is empty counts as not given:
// old clients send cursor= for the first page.
func parameters(u *url.URL) (url.Values, error) {
	if u.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Invalid, fault.BadRequest, "The query string is malformed.")
	}
	for name, all := range values {
		if values[name] = slices.DeleteFunc(all, func(v string) bool { return v == "" }); len(values[name]) == 0 {
			delete(values, name)
		}
	}
	return values, nil
}

// body reads the properties of the body, nil if the route has none.
func (rt *route) body(r *http.Request) (map[string]any, error) {
	if !rt.hasBody() {
		return nil, nil
	}
	text, err := io.ReadAll(r.Body) // bounded by who mounts us
	if err != nil {
		return nil, fault.New(fault.Invalid, fault.BadRequest, "The request body could not be read to its end.")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return map[string]any{}, nil
	}
	if err := rt.checkContentType(r); err != nil {
		return nil, err
	}
	v, err := jsoncodec.Decode(text)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, unprocessable([]problem.Violation{{Code: fault.BadInput, Detail: "The body must be a JSON object.", In: inBody}})
	}
	return object, nil
}

// take binds one variable to the first place that has a value for it.
func (b *bound) take(r *http.Request, p *param, query url.Values, body map[string]any) error {
	switch {
	case p.from.Path != "":
		b.set(p, place{inPath, p.from.Path}, p.typed(r.PathValue(p.from.Path)))
		return nil
	case p.isVersion():
		return b.takeVersion(r, p)
	case p.from.Header != "" && r.Header.Get(p.from.Header) != "":
		b.set(p, place{inHeader, p.from.Header}, p.typed(r.Header.Get(p.from.Header)))
		return nil
	}
	for _, name := range p.from.Query {
		if values := query[name]; len(values) > 0 && b.first(p, inQuery, name) {
			b.set(p, place{inQuery, name}, b.fromQuery(p, name, values))
		}
	}
	for _, name := range p.from.Body {
		if v, ok := body[name]; ok && b.first(p, inBody, name) {
			b.set(p, place{inBody, name}, p.fromBody(b.schema, v))
		}
	}
	if _, found := b.origin[p.Variable]; !found {
		b.origin[p.Variable] = p.home()
	}
	return nil
}

// home is where the value of a variable would be, first of all.
func (p *param) home() place {
	switch {
	case len(p.from.Body) > 0:
		return place{inBody, p.from.Body[0]}
	case len(p.from.Query) > 0:
		return place{inQuery, p.from.Query[0]}
	}
	return place{inHeader, p.from.Header}
}

func (b *bound) set(p *param, from place, v any) {
	b.variables[p.Variable], b.origin[p.Variable] = v, from
}

// first reports whether a value is the first under the names of a variable, and
// notes a problem if it is not.
func (b *bound) first(p *param, in, name string) bool {
	other, twice := b.origin[p.Variable]
	if twice {
		b.wrong(problem.Violation{Code: fault.BadInput, Detail: name + " says the same as " + other.name + "; give one of them.", In: in, Pointer: pointer(name)})
	}
	return !twice
}

// fromQuery returns the value of a parameter: of a list all that are given, also
// with commas between them.
func (b *bound) fromQuery(p *param, name string, values []string) any {
	if p.Type.Elem == nil {
		if len(values) > 1 {
			b.wrong(problem.Violation{Code: fault.BadInput, Detail: name + " must be given once.", In: inQuery, Pointer: pointer(name)})
		}
		return p.typed(values[0])
	}
	items := []any{}
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			items = append(items, typed(p.Type.Elem, item))
		}
	}
	return items
}

func (p *param) typed(text string) any { return typed(p.Type, text) }

// typed returns text as JSON would have it for the type, as far as it can be.
func typed(t *ast.Type, text string) any {
	switch t.NamedType {
	case "Int", "Long", "Float":
		if isNumber(text) {
			return json.Number(text)
		}
	case "Boolean":
		if text == "true" || text == "false" {
			return text == "true"
		}
	}
	return text
}

func isNumber(text string) bool {
	return text != "" && !strings.ContainsAny(text, " \t\r\n") && json.Valid([]byte(text)) && strings.IndexByte("-0123456789", text[0]) >= 0
}

// fromBody returns a property as the variable takes it.
func (p *param) fromBody(schema *ast.Schema, v any) any {
	if n, ok := v.(json.Number); ok && p.from.Text && isWhole(string(n)) {
		return string(n)
	}
	return camel(schema, p.Type, v)
}

func isWhole(n string) bool {
	return !strings.ContainsAny(n, ".eE-") && (n == "0" || n[0] != '0')
}

// camel returns a value of the body with the names that the schema has.
func camel(schema *ast.Schema, t *ast.Type, v any) any {
	switch v := v.(type) {
	case []any:
		if t.Elem == nil {
			return v
		}
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = camel(schema, t.Elem, item)
		}
		return items
	case map[string]any:
		def := schema.Types[t.Name()]
		if def.Kind != ast.InputObject {
			return v
		}
		object := make(map[string]any, len(v))
		for name, item := range v {
			if f := fieldNamed(def, name); f != nil {
				object[f.Name] = camel(schema, f.Type, item)
			} else {
				object[name] = item
			}
		}
		return object
	}
	return v
}

// fieldNamed returns the field that the old world spells so.
func fieldNamed(def *ast.Definition, name string) *ast.FieldDefinition {
	i := slices.IndexFunc(def.Fields, func(f *ast.FieldDefinition) bool { return snake(f.Name) == name })
	if i < 0 {
		return nil
	}
	return def.Fields[i]
}

// refuseUnknown notes properties that the route does not know: a change that is
// not made must not look as if it were. What the path says may be said again.
func (b *bound) refuseUnknown(r *http.Request, body map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(body)) {
		known := slices.ContainsFunc(b.rt.params, func(p *param) bool { return slices.Contains(p.from.Body, name) })
		if !known && r.PathValue(name) != "" {
			known = jsonText(body[name]) == r.PathValue(name)
		}
		if !known {
			b.wrong(problem.Violation{Code: fault.BadInput, Detail: cut(name) + " is not a property that may be given here.", In: inBody, Pointer: pointer(cut(name))})
		}
	}
}

func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return string(v)
	}
	return ""
}

// cut shortens what a client named.
func cut(name string) string {
	if len(name) > maxName {
		return strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

const maxName = 100

// lookUp replaces ids of the system before by those of now.
func (s *Shim) lookUp(ctx context.Context, b *bound) error {
	for _, p := range b.rt.params {
		if p.legacy == nil {
			continue
		}
		text := jsonText(b.variables[p.Variable])
		if _, ours := uid.KindOf(text); ours || text == "" {
			continue
		}
		id, err := s.find(ctx, p.legacy, text)
		if err != nil {
			return err
		}
		b.variables[p.Variable] = id
	}
	return nil
}

// called says how messages call the value at a path of the variables.
func (b *bound) called(path []string) string {
	at := b.placeOf(path)
	return strings.ReplaceAll(strings.TrimPrefix(at.Pointer, "/"), "/", ".")
}

// placeOf returns where the value at a path of the variables stands in the request.
func (b *bound) placeOf(path []string) problem.Violation {
	from := b.origin[path[0]]
	at := problem.Violation{In: from.in, Pointer: pointer(from.name)}
	if p := b.rt.param(path[0]); p != nil {
		at.Pointer += below(b.schema, p.Type, path[1:])
	}
	return at
}

func (rt *route) param(variable string) *param {
	for _, p := range rt.params {
		if p.Variable == variable {
			return p
		}
	}
	return nil
}

// below writes the rest of a path as a JSON pointer, with the names of the old world.
func below(schema *ast.Schema, t *ast.Type, path []string) string {
	var out strings.Builder
	for _, part := range path {
		def := schema.Types[t.Name()]
		if _, err := strconv.Atoi(part); err == nil && t.Elem != nil {
			t = t.Elem
		} else if f := def.Fields.ForName(part); f != nil && def.Kind == ast.InputObject {
			part, t = snake(part), f.Type
		}
		out.WriteString(pointer(part))
	}
	return out.String()
}

var escapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is a JSON pointer (RFC 6901) to a member.
func pointer(name string) string { return "/" + escapes.Replace(name) }
