package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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
	"github.com/backplane-dev/backplane/internal/validate"
)

// The parts of a request that values come from, as in OpenAPI.
const (
	inPath   = "path"
	inHeader = "header"
	inQuery  = "query"
	inBody   = "body"
)

// boundRequest is a request bound to the variables of an operation.
type boundRequest struct {
	rt        *route
	schema    *ast.Schema
	variables map[string]any
	origin    map[string]valueSource // of each variable
	condition *validate.Condition    // what the request says of the version, besides one that is a variable; nil for nothing
	matched   bool                   // the request has If-Match or If-None-Match
	exact     bool                   // If-Match names one version, which is a variable
	walk      *walk                  // set if the client counts objects or pages of a list
	problems  []problem.Violation
	unknown   map[string]any // properties of the body that no variable takes
}

// valueSource is the part of the request, and the name there, that a value came from or
// would come from.
type valueSource struct{ in, name string }

// maxProblems bounds the problems that one response lists.
const maxProblems = 50

func (b *boundRequest) addViolation(at problem.Violation) {
	if len(b.problems) < maxProblems {
		b.problems = append(b.problems, at)
	}
}

// bindRequest binds the request's values to the operation's variables. The executor
// checks their types; mistakes that it cannot see are added to the problems here.
func (s *Shim) bindRequest(r *http.Request, rt *route) (*boundRequest, error) {
	b := &boundRequest{rt: rt, schema: s.exec.Schema(), variables: make(map[string]any, len(rt.params)), origin: make(map[string]valueSource, len(rt.params))}
	query, err := queryParameters(r.URL)
	if err != nil {
		return nil, err
	}
	body, err := rt.readBody(b.schema, r)
	if err != nil {
		return nil, err
	}
	for _, p := range rt.params {
		if err := b.bindParam(r, p, query, body); err != nil {
			return nil, err
		}
	}
	b.setPageSize(s.cfg.PageSize)
	b.bindWalk(query)
	s.checkParameters(r.Context(), b, query)
	b.findUnknownProperties(r, body)
	return b, s.replaceLegacyIDs(r.Context(), b)
}

// queryParameters returns those of the query.
func queryParameters(u *url.URL) (url.Values, error) {
	if u.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fault.New(fault.BadRequest, "The query string is malformed.")
	}
	return values, nil
}

// positions are the variables that say which page is read. An empty parameter of theirs counts
// as not given, since legacy REST clients send cursor= for the first page. Any other empty
// parameter is a mistake: as a filter it must not show everything.
var positions = []string{"first", "after", "last", "before"}

// queryValues returns the values of a parameter of the query.
func (b *boundRequest) queryValues(p *param, name string, query url.Values) []string {
	values := query[name]
	if !slices.Contains(values, "") {
		return values
	}
	if !slices.Contains(positions, p.Variable) {
		b.addParameterViolationf(name, "%s must not be empty; leave it out.", name)
	}
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
}

// cacheBusters are parameters that legacy REST clients add so that no cache answers them.
var cacheBusters = []string{"_", "nocache"}

// checkParameters adds a problem for each parameter of the query that no operation of
// the path reads: a filter that is not applied must not look as if it were. If the operator
// wants them passed over, it reports them instead.
func (s *Shim) checkParameters(ctx context.Context, b *boundRequest, query url.Values) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(b.rt.parameters, name) || slices.Contains(cacheBusters, name) {
			continue
		}
		if short := truncateName(name); s.cfg.IgnoreUnknown {
			s.reportIgnored(ctx, b.rt, short)
		} else {
			b.addParameterViolationf(short, "%s is not a parameter that may be given here.", short)
		}
	}
}

// addParameterViolationf adds a problem with a parameter of the query.
func (b *boundRequest) addParameterViolationf(name, format string, args ...any) {
	b.addViolation(problem.Violation{Code: fault.BadInput, Detail: fmt.Sprintf(format, args...), In: inQuery, Pointer: jsonPointer(name)})
}

// readBody reads the properties of the body, nil if the route has none.
func (rt *route) readBody(schema *ast.Schema, r *http.Request) (map[string]any, error) {
	if !rt.hasBody() {
		return nil, nil
	}
	text, err := io.ReadAll(r.Body) // bounded by the server
	if err != nil {
		return nil, fault.New(fault.BadRequest, "The request body could not be read to its end.")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return map[string]any{}, nil
	}
	media, err := rt.mediaTypeOf(r)
	if err != nil {
		return nil, err
	}
	if media == mediaForm {
		return rt.parseForm(schema, text)
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

// bindParam binds one variable to the first source that has a value for it.
func (b *boundRequest) bindParam(r *http.Request, p *param, query url.Values, body map[string]any) error {
	switch {
	case p.from.Path != "":
		b.setVariable(p, valueSource{inPath, p.from.Path}, p.parseText(r.PathValue(p.from.Path)))
		return nil
	case p.isVersion():
		return b.bindIfMatch(r, p)
	case p.from.Header != "" && r.Header.Get(p.from.Header) != "":
		b.setVariable(p, valueSource{inHeader, p.from.Header}, p.parseText(r.Header.Get(p.from.Header)))
		return nil
	}
	for _, name := range p.from.Query {
		if values := b.queryValues(p, name, query); len(values) > 0 && b.isFirstSource(p, inQuery, name) {
			b.setVariable(p, valueSource{inQuery, name}, b.valueFromQuery(p, name, values))
		}
	}
	for _, name := range p.from.Body {
		if v, ok := body[name]; ok && b.isFirstSource(p, inBody, name) {
			b.setVariable(p, valueSource{inBody, name}, p.valueFromBody(b.schema, v))
		}
	}
	if _, found := b.origin[p.Variable]; !found {
		b.origin[p.Variable] = p.defaultSource()
	}
	return nil
}

// defaultSource is the first source of a variable, for errors about a missing value.
func (p *param) defaultSource() valueSource {
	switch {
	case len(p.from.Body) > 0:
		return valueSource{inBody, p.from.Body[0]}
	case len(p.from.Query) > 0:
		return valueSource{inQuery, p.from.Query[0]}
	}
	return valueSource{inHeader, p.from.Header}
}

func (b *boundRequest) setVariable(p *param, from valueSource, v any) {
	b.variables[p.Variable], b.origin[p.Variable] = v, from
}

// isFirstSource reports whether no other name gave the variable a value, and adds a
// problem if one did.
func (b *boundRequest) isFirstSource(p *param, in, name string) bool {
	other, twice := b.origin[p.Variable]
	if twice {
		b.addViolation(problem.Violation{Code: fault.BadInput, Detail: name + " says the same as " + other.name + "; give one of them.", In: in, Pointer: jsonPointer(name)})
	}
	return !twice
}

// valueFromQuery returns the value of a parameter; for a list all its values, repeated or
// separated by commas.
func (b *boundRequest) valueFromQuery(p *param, name string, values []string) any {
	if p.Type.Elem == nil {
		if len(values) > 1 {
			b.addParameterViolationf(name, "%s must be given once.", name)
		}
		if p.orders != nil {
			return b.parseOrder(p, name, values[0])
		}
		return p.parseText(values[0])
	}
	items := []any{}
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			items = append(items, parseTyped(p.Type.Elem, item))
		}
	}
	return items
}

func (p *param) parseText(text string) any { return parseTyped(p.Type, text) }

// parseTyped returns text as JSON would have it for the type, as far as it can be.
func parseTyped(t *ast.Type, text string) any {
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

// valueFromBody returns a property as the variable expects it.
func (p *param) valueFromBody(schema *ast.Schema, v any) any {
	if n, ok := v.(json.Number); ok && p.from.Text {
		if text := jsonText(n); isWhole(text) {
			return text
		}
	}
	return toSchemaNames(schema, p.Type, v)
}

// isWhole reports whether a number, as jsonText writes it, may be an id: it has any number of
// digits, and no sign.
func isWhole(n string) bool {
	return !strings.ContainsAny(n, ".eE-") && (n == "0" || n[0] != '0')
}

// toSchemaNames returns a value of the body with the names of the schema: camel case.
func toSchemaNames(schema *ast.Schema, t *ast.Type, v any) any {
	switch v := v.(type) {
	case []any:
		if t.Elem == nil {
			return v
		}
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = toSchemaNames(schema, t.Elem, item)
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
				object[f.Name] = toSchemaNames(schema, f.Type, item)
			} else {
				object[name] = item
			}
		}
		return object
	}
	return v
}

// fieldNamed returns the field whose name is the given one in snake case.
func fieldNamed(def *ast.Definition, name string) *ast.FieldDefinition {
	i := slices.IndexFunc(def.Fields, func(f *ast.FieldDefinition) bool { return snakeCase(f.Name) == name })
	if i < 0 {
		return nil
	}
	return def.Fields[i]
}

// findUnknownProperties keeps the properties that the route does not know. Values of the path
// may be repeated.
func (b *boundRequest) findUnknownProperties(r *http.Request, body map[string]any) {
	for name, v := range body {
		known := slices.ContainsFunc(b.rt.params, func(p *param) bool { return slices.Contains(p.from.Body, name) })
		if !known && (r.PathValue(name) == "" || jsonText(v) != r.PathValue(name)) {
			if b.unknown == nil {
				b.unknown = map[string]any{}
			}
			b.unknown[name] = v
		}
	}
}

// refuseUnknownProperties adds a problem for each property that the route does not know, but those that
// equal what GET shows: a client may send back what it was given, and a change that is not made must
// not look as if it were. Shown is null if there is no GET.
func (b *boundRequest) refuseUnknownProperties(shown map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(b.unknown)) {
		short, reason := truncateName(name), " is not a property that may be given here."
		if current, ok := shown[name]; ok {
			if equalJSON(current, b.unknown[name]) {
				continue
			}
			reason = " can only be read here, and is not what it is sent as."
		}
		b.addViolation(problem.Violation{Code: fault.BadInput, Detail: short + reason, In: inBody, Pointer: jsonPointer(short)})
	}
	b.unknown = nil
}

// equalJSON reports whether two decoded values of JSON are equal; numbers are by their value.
func equalJSON(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		n, ok := b.(json.Number)
		return ok && jsonText(a) == jsonText(n)
	case []any:
		list, ok := b.([]any)
		return ok && slices.EqualFunc(a, list, equalJSON)
	case map[string]any:
		object, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, object, equalJSON)
	}
	return a == b
}

// jsonText returns the text of a string or of a number, a whole one without fraction and
// exponent: 5.0 is 5. Other values have none.
func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		if n, ok := validate.WholeNumber(string(v)); ok {
			return strconv.FormatInt(n, 10)
		}
		return string(v)
	}
	return ""
}

// truncateName bounds a name that a client sent.
func truncateName(name string) string {
	if len(name) > maxName {
		return strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

const maxName = 100

// replaceLegacyIDs replaces legacy ids by ids of this system.
func (s *Shim) replaceLegacyIDs(ctx context.Context, b *boundRequest) error {
	for _, p := range b.rt.params {
		if p.legacy == nil {
			continue
		}
		text := jsonText(b.variables[p.Variable])
		if _, ours := uid.KindOf(text); ours || text == "" {
			continue
		}
		id, err := s.findByLegacyID(ctx, p.legacy, text)
		if err != nil {
			return err
		}
		b.variables[p.Variable] = id
	}
	return nil
}

// describePath returns the name, in the request, of the value at a path of the variables.
func (b *boundRequest) describePath(path []string) string {
	at := b.violationAt(path)
	return strings.ReplaceAll(strings.TrimPrefix(at.Pointer, "/"), "/", ".")
}

// violationAt returns the position in the request of the value at a path of the variables.
func (b *boundRequest) violationAt(path []string) problem.Violation {
	from := b.origin[path[0]]
	at := problem.Violation{In: from.in, Pointer: jsonPointer(from.name)}
	if p := b.rt.paramOf(path[0]); p != nil {
		at.Pointer += pointerBelow(b.schema, p.Type, path[1:])
	}
	return at
}

func (rt *route) paramOf(variable string) *param {
	for _, p := range rt.params {
		if p.Variable == variable {
			return p
		}
	}
	return nil
}

// pointerBelow writes the rest of a path as a JSON pointer, with names in snake case.
func pointerBelow(schema *ast.Schema, t *ast.Type, path []string) string {
	var out strings.Builder
	for _, part := range path {
		def := schema.Types[t.Name()]
		if _, err := strconv.Atoi(part); err == nil && t.Elem != nil {
			t = t.Elem
		} else if f := def.Fields.ForName(part); f != nil && def.Kind == ast.InputObject {
			part, t = snakeCase(part), f.Type
		}
		out.WriteString(jsonPointer(part))
	}
	return out.String()
}

var escapes = strings.NewReplacer("~", "~0", "/", "~1")

// jsonPointer is a JSON pointer (RFC 6901) to a member.
func jsonPointer(name string) string { return "/" + escapes.Replace(name) }
