package rest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/page"
)

// openAPISpec builds an OpenAPI 3.1 document from the operations and the schema, so that it
// matches the server.
type openAPISpec struct {
	*schemaWriter
	paths    map[string]any
	pageSize int // of lists, if the client does not say it
}

// object is a JSON object of the document.
type object = map[string]any

// openAPIDocument returns the OpenAPI document of the routes.
func (s *Shim) openAPIDocument() map[string]any {
	d := &openAPISpec{schemaWriter: newSchemaWriter(s.exec.Schema()), paths: object{}, pageSize: s.cfg.PageSize}
	d.nameSchemas(s.routes)
	tags := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(s.paths)) {
		res := s.paths[path]
		if path != res.path {
			continue // with a slash at its end
		}
		item := object{}
		for _, method := range slices.Sorted(maps.Keys(res.methods)) {
			item[strings.ToLower(method)] = d.describeEndpoint(res.methods[method])
		}
		d.paths[path] = item
		tags[tagOf(path)] = true
	}
	var tagList []any
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		tagList = append(tagList, object{"name": name, "description": "The routes below /" + name + "."})
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Backplane REST", "version": cmp.Or(s.cfg.Version, "unknown"),
			"description": "The legacy REST routes. Each is a stored GraphQL operation and obeys the rules of GraphQL.",
			"contact":     object{"name": "The operators of this server"},
			"license":     object{"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		"servers": []any{object{"url": ".", "description": "This server."}},
		"tags":    tagList,
		"paths":   d.paths,
		"components": object{
			"schemas":         d.schemas,
			"responses":       responseComponents(),
			"headers":         headerComponents(),
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer", "description": "An access token or an API key."}},
		},
	}
	pruneComponents(doc)
	return doc
}

// nameSchemas gives the plain names of types to the schemas of the simplest results: the type Order is what the simplest route that shows an order
// has, and not the part of it that the route of another type shows.
func (d *openAPISpec) nameSchemas(routes []*route) {
	simplest := slices.DeleteFunc(slices.Clone(routes), func(rt *route) bool { return rt.op.Operation != ast.Query })
	slices.SortStableFunc(simplest, func(a, b *route) int { return len(a.query) - len(b.query) })
	of := map[string]*route{} // the simplest route, by the type of its result
	for _, rt := range simplest {
		if name := rt.typeOf(rt.result()).Name; of[name] == nil {
			of[name] = rt
		}
	}
	named := map[*route]bool{}
	var name func(rt *route)
	name = func(rt *route) {
		if rt == nil || named[rt] {
			return
		}
		named[rt] = true
		for t := range nestedTypes(rt, rt.result()) {
			name(of[t])
		}
		d.outputSchema(rt, rt.result())
	}
	for _, rt := range simplest {
		name(rt)
	}
}

// result returns the field whose value the route shows.
func (rt *route) result() *ast.Field { return rt.answer.fields[len(rt.answer.fields)-1] }

// nestedTypes returns the names of the types of the objects within a field, in their order.
func nestedTypes(rt *route, f *ast.Field) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, sub := range fieldsOf(f.SelectionSet) {
			if len(sub.SelectionSet) == 0 {
				continue
			}
			if !yield(rt.typeOf(sub).Name) {
				return
			}
			for t := range nestedTypes(rt, sub) {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// pruneComponents removes components without a reference.
func pruneComponents(doc object) {
	for again := true; again; {
		again = false
		text, err := json.Marshal(doc)
		if err != nil {
			return // newDocPages reports it
		}
		for kind, all := range doc["components"].(object) {
			for name := range all.(object) {
				if kind != "securitySchemes" && !strings.Contains(string(text), `"#/components/`+kind+"/"+name+`"`) {
					delete(all.(object), name)
					again = true
				}
			}
		}
	}
}

func tagOf(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// describeEndpoint describes an endpoint, all its operations together.
func (d *openAPISpec) describeEndpoint(e *endpoint) object {
	var texts, summaries []string
	parameters, content := []any{}, object{}
	var bodies []any
	seen := map[string]bool{}
	var security []any
	for _, rt := range e.routes {
		summary, more := rt.documentation()
		summaries = append(summaries, strings.TrimSuffix(summary, "."))
		texts = append(texts, rt.inWordsOfREST(strings.TrimSpace(summary+"\n\n"+more)))
		if text := rt.describeScopes(); text != "" {
			texts = append(texts, text)
		}
		for _, p := range d.describeParameters(rt) {
			if key := p["in"].(string) + " " + p["name"].(string); !seen[key] {
				seen[key] = true
				parameters = append(parameters, p)
			}
		}
		if rt.hasBody() {
			bodies = append(bodies, d.describeBody(rt))
		}
		d.addContent(content, rt)
		security = append(security, securityOf(rt.when)...)
	}
	for _, rt := range e.routes {
		texts = append(texts, "In GraphQL:\n\n```graphql\n"+strings.TrimSpace(rt.query)+"\n```")
	}
	first := e.routes[0]
	op := object{
		"x-graphql-operation": e.operations(),
		"operationId":         operationID(first.op.Name), "tags": []any{tagOf(first.path)},
		"summary": strings.Join(summaries, "; "), "description": strings.Join(texts, "\n\n"),
		"responses": d.describeResponses(e, content), "security": slices.CompactFunc(security, sameSecurity),
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if len(bodies) > 0 {
		op["requestBody"] = requestBody(first, bodies)
	}
	if e.headers.Get("Deprecation") != "" {
		op["deprecated"] = true
	}
	return op
}

func operationID(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// describeScopes says which scopes the answer of a mutation takes, empty if it takes none.
func (rt *route) describeScopes() string {
	if len(rt.scopes) == 0 || rt.when == anonymous {
		return ""
	}
	names := make([]string, len(rt.scopes))
	for i, s := range rt.scopes {
		names[i] = "`" + string(s) + "`"
	}
	return "An API key needs the scope " + strings.Join(names, " and ") + " for the answer; without, the call is refused before it changes anything."
}

// securityOf says which credentials an operation takes.
func securityOf(w callerKind) []any {
	none, bearer := object{}, object{"bearer": []any{}}
	switch w {
	case signedIn:
		return []any{bearer}
	case anonymous:
		return []any{none}
	case anyCaller:
	}
	return []any{none, bearer}
}

func sameSecurity(a, b any) bool { return len(a.(object)) == len(b.(object)) }

// describeParameters describes what an operation takes from path, query and headers.
func (d *openAPISpec) describeParameters(rt *route) []object {
	var all []object
	add := func(in, name string, required bool, schema object, about string) {
		schema = textSchema(schema)
		o := object{"in": in, "name": name, "description": rt.inWordsOfREST(about), "schema": schema}
		if required { // the page would send the example of an optional one
			o["required"], o["example"] = true, exampleOf(schema, d.schemas)
		}
		all = append(all, o)
	}
	for _, p := range rt.params {
		about := rt.paramDescription(p)
		switch {
		case p.from.Path != "":
			add(inPath, p.from.Path, true, d.inputSchema(p), about)
		case p.isVersion():
			add(inHeader, ifMatch, p.Type.NonNull, object{"type": "string", "examples": []any{`"17"`}},
				"Changes only what is at the version of this ETag; the version alone will do, and * for any.")
		case p.from.Header != "":
			add(inHeader, p.from.Header, false, d.inputSchema(p), about)
		}
		d.describeQuery(rt, p, about, add)
	}
	if rt.op.Operation == ast.Mutation && rt.when != anonymous {
		if rt.takesIdempotencyKey(d.schema) {
			add(inHeader, "Idempotency-Key", false, object{"type": "string", "minLength": 1, "maxLength": 200, "examples": []any{"order-4711"}},
				"Idempotency key: a repeated call with it has no further effect, for 24 hours.")
		}
		add(inHeader, "Prefer", false, object{"type": "string", "examples": []any{"return=minimal"}}, "return=minimal asks for no body.")
	}
	if rt.op.Operation == ast.Mutation && rt.method != http.MethodPost && rt.reads != nil {
		add(inHeader, ifNoneMatch, false, object{"type": "string", "examples": []any{"*"}}, "Changes nothing, with 412, if the object is at the version of this ETag or, with *, if there is one.")
	}
	if rt.op.Operation == ast.Query {
		add(inHeader, ifNoneMatch, false, object{"type": "string", "examples": []any{`"17-3vO1nS2h0pVwT9aK"`}}, "The ETag of the response that the client has.")
	}
	return all
}

// takesIdempotencyKey reports whether the mutation claims the idempotency key of the request, as those do
// whose input may have one.
func (rt *route) takesIdempotencyKey(schema *ast.Schema) bool {
	input := rt.answer.fields[0].Definition.Arguments.ForName("input")
	return input != nil && schema.Types[input.Type.Name()].Fields.ForName("idempotencyKey") != nil
}

// describeQuery adds the parameters of the query that a variable takes. The page sends defaults of the schema, so those that
// do not fit others, as limit with last, are in words.
func (d *openAPISpec) describeQuery(rt *route, p *param, about string, add func(in, name string, required bool, schema object, about string)) {
	schema := d.inputSchema(p)
	if p.orders != nil {
		schema, about = p.orderSchema(), about+" "+p.describeOrders()
	} else if p == rt.listParam("first") {
		about = strings.Replace(about, fmt.Sprintf(" %d if neither ", page.DefaultSize), fmt.Sprintf(" %d if neither ", d.pageSize), 1)
	}
	schema = withBounds(schema, about)
	for i, name := range p.from.Query {
		if i > 0 {
			about = "The same as `" + p.from.Query[0] + "`."
		}
		add(inQuery, name, p.Type.NonNull && p.DefaultValue == nil && len(p.from.Query) == 1, maps.Clone(schema), about)
	}
	for _, n := range describeSkips(p) {
		add(inQuery, n.name, false, withBounds(object{"type": "integer"}, n.about), n.about)
	}
}

// textSchema is the schema of a value in a path, a query or a header: one type, as all of them are
// text there and none can be null. Forms such as that of the page know no unions of types.
func textSchema(schema object) object {
	out := maps.Clone(schema)
	if types, ok := schema["type"].([]any); ok {
		kinds := slices.DeleteFunc(slices.Clone(types), func(kind any) bool { return kind == "null" })
		if out["type"] = kinds[0]; len(kinds) > 1 {
			out["type"], out["examples"] = "string", []any{"5"}
		}
	}
	if values, ok := schema["enum"].([]any); ok {
		out["enum"] = slices.DeleteFunc(slices.Clone(values), func(v any) bool { return v == nil })
	}
	if either, ok := schema["anyOf"].([]any); ok && len(either) == 2 && reflect.DeepEqual(either[1], object{"type": "null"}) {
		delete(out, "anyOf")
		maps.Copy(out, either[0].(object))
	}
	if items, ok := schema["items"].(object); ok {
		out["items"] = textSchema(items)
	}
	if v, given := schema["default"]; given && v == nil {
		delete(out, "default")
	}
	return out
}

// inWordsOfREST gives the arguments that a text names the names that they have in the route.
func (rt *route) inWordsOfREST(text string) string {
	for _, p := range rt.params {
		for _, names := range [][]string{p.from.Query, p.from.Body} {
			if len(names) > 0 && names[0] != p.Variable {
				text = strings.ReplaceAll(text, "`"+p.Variable+"`", "`"+names[0]+"`")
			}
		}
	}
	return text
}

func requestBody(rt *route, bodies []any) object {
	schema := bodies[0].(object)
	if len(bodies) > 1 {
		schema = object{"anyOf": bodies}
	}
	media := object{"schema": schema, "example": exampleOf(bodies[0].(object), nil)}
	content := object{mediaJSON: media, mediaForm: object{"schema": object{"$ref": "#/components/schemas/Form"}}}
	if rt.method == http.MethodPatch {
		content[mediaMergePatch] = media
	}
	required := false
	for _, b := range bodies {
		o := b.(object)
		required = required || o["required"] != nil || o["anyOf"] != nil
	}
	return object{"description": "The values of the operation.", "required": required, "content": content}
}

// describeBody describes the properties of an operation's request body.
func (d *openAPISpec) describeBody(rt *route) object {
	properties, required := object{}, []any{}
	var either []any
	for _, p := range rt.params {
		d.addProperties(properties, rt, p)
		if len(p.from.Body) == 0 || !p.Type.NonNull || p.DefaultValue != nil {
			continue
		}
		if len(p.from.Body) == 1 {
			required = append(required, p.from.Body[0])
			continue
		}
		for _, name := range p.from.Body {
			either = append(either, object{"required": []any{name}})
		}
	}
	for _, name := range placeholdersOf(rt.path) {
		if properties[name] == nil {
			properties[name] = object{"type": []any{"string", "integer"}, "description": "May repeat the value in the path."}
		}
	}
	schema := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	if len(either) > 0 {
		schema["anyOf"] = either
	}
	schema["examples"] = []any{d.exampleBody(rt)}
	return schema
}

// addProperties adds the properties of a variable, under all their names.
func (d *openAPISpec) addProperties(properties object, rt *route, p *param) {
	for i, name := range p.from.Body {
		schema := maps.Clone(d.inputSchema(p))
		if rt.method == http.MethodPatch {
			schema = d.partialSchema(p, schema)
		}
		about := rt.paramDescription(p)
		if i > 0 {
			about = "The same as " + p.from.Body[0] + "."
		}
		properties[name] = withDescription(withBounds(schema, about), about)
	}
}

// exampleBody has every required property once, under its first name, or all if none is required:
// the page sends the example as it is, and optional values seldom fit each other.
func (d *openAPISpec) exampleBody(rt *route) object {
	out := object{}
	isRequired := func(p *param) bool { return len(p.from.Body) > 0 && p.Type.NonNull && p.DefaultValue == nil }
	some := slices.ContainsFunc(rt.params, isRequired)
	for _, p := range rt.params {
		if len(p.from.Body) > 0 && (!some || isRequired(p)) {
			out[p.from.Body[0]] = exampleNamed(p.from.Body[0], d.inputSchema(p), d.schemas)
		}
	}
	if tagOf(rt.path) == "services" && out["name"] != nil {
		out["name"] = "till" // other objects have names of several words
	}
	return out
}

// addContent adds the content of an operation's response, by media type.
func (d *openAPISpec) addContent(content object, rt *route) {
	shown := rt.result()
	if rt.op.Operation == ast.Subscription {
		content[mediaEvents] = object{"schema": object{"type": "string",
			"description": "Events, each with its cursor as id and, as data, what the list shows of one; an event named problem holds a problem document."}}
		return
	}
	if rt.success == http.StatusNoContent {
		return
	}
	schema := d.outputSchema(rt, shown)
	media := object{"schema": schema, "example": exampleOf(schema, d.schemas)}
	if old, ok := content[mediaJSON].(object); ok && !reflect.DeepEqual(old, media) {
		old["schema"] = object{"anyOf": []any{old["schema"], schema}}
		return
	}
	content[mediaJSON] = media
}

func (d *openAPISpec) describeResponses(e *endpoint, content object) object {
	out := object{}
	first := e.routes[0]
	success := object{"description": http.StatusText(first.success) + "."}
	if first.success != http.StatusNoContent {
		success["content"] = content
		success["headers"] = successHeaders(first)
	}
	out[strconv.Itoa(first.success)] = success
	for _, status := range statusesOf(e) {
		out[strconv.Itoa(status)] = object{"$ref": "#/components/responses/" + responseName(status)}
	}
	return out
}

func successHeaders(rt *route) object {
	all := object{}
	if rt.op.Operation == ast.Query || rt.answer.versioned {
		all["ETag"] = object{"$ref": "#/components/headers/ETag"}
	}
	if rt.answer.counted {
		all[totalHeader] = object{"$ref": "#/components/headers/" + totalHeader}
	}
	all["Link"] = object{"$ref": "#/components/headers/Link"}
	if rt.success == http.StatusCreated {
		all["Location"] = object{"$ref": "#/components/headers/Location"}
	}
	return all
}

// statusesOf lists the statuses other than success that an endpoint can respond with.
func statusesOf(e *endpoint) []int {
	all := []int{400, 401, 403, 406, 422, 429, 431, 500, 503, 504}
	for _, rt := range e.routes {
		all = append(all, rt.possibleStatuses()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// possibleStatuses are the statuses that depend on the operation and its parameters.
func (rt *route) possibleStatuses() []int {
	all := slices.Collect(maps.Values(rt.byCode))
	if strings.Contains(rt.path, "{") {
		all = append(all, http.StatusNotFound)
	}
	if rt.hasBody() {
		all = append(all, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	switch {
	case rt.op.Operation == ast.Query:
		all = append(all, http.StatusNotModified)
	case rt.op.Operation == ast.Mutation && rt.success == http.StatusOK:
		all = append(all, http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusNoContent)
	case rt.op.Operation == ast.Mutation:
		all = append(all, http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed)
	}
	for _, p := range rt.params {
		if p.isVersion() && p.Type.NonNull {
			all = append(all, http.StatusPreconditionRequired)
		}
	}
	return all
}

func responseName(status int) string { return strings.ReplaceAll(http.StatusText(status), " ", "") }

// responseComponents describes the responses that all endpoints share.
func responseComponents() object {
	about := map[int]string{
		204: "Done; the client asked for no body.",
		304: "The client has the response already.",
		400: "The request is malformed.",
		401: "A credential is missing or not good.",
		403: "The caller may not do this.",
		404: "There is no such object, or it is hidden from the caller.",
		406: "The client accepts none of the media types of this path.",
		408: "The body did not arrive in time.",
		409: "The state of the object does not allow this.",
		412: "A condition of the request, If-Match or If-None-Match, does not hold.",
		413: "The body is too large.",
		415: "The body is neither JSON nor a form.",
		422: "Values are wrong; errors lists them all.",
		428: "If-Match is needed.",
		429: "Too many requests.",
		431: "The headers, the path among them, are too large.",
		500: "Something went wrong on the server.",
		503: "A dependency of the server is down, or the server is busy.",
		504: "It took too long.",
	}
	out := object{}
	for status, text := range about {
		resp := object{"description": text}
		if status >= http.StatusBadRequest {
			resp["content"] = object{"application/problem+json": object{
				"schema":  object{"$ref": "#/components/schemas/Problem"},
				"example": object{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": text, "code": "BAD_REQUEST", "error": "Bad request"},
			}}
		}
		if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
			resp["headers"] = object{"Retry-After": object{"$ref": "#/components/headers/Retry-After"}}
		}
		out[responseName(status)] = resp
	}
	return out
}

func headerComponents() object {
	header := func(about, example string) object {
		return object{"description": about, "schema": object{"type": "string"}, "example": example}
	}
	return object{
		"ETag":      header("The version of what is shown, 0 of a list, and a digest of the response.", `"17-3vO1nS2h0pVwT9aK"`),
		"Link":      header("The GraphQL that takes the place of the route, and of a list the next, previous, first and last page, where there are several (RFC 8288).", `</users?cursor=WyJ4Il0>; rel="next"`),
		totalHeader: header("How many objects all pages hold; `>10000` if there are more.", "42"),
		"Location":  header("Where the new object is.", "/users/5"),
		"Retry-After": object{"description": "After how many seconds to try again.", "schema": object{"type": "integer"},
			"example": 1},
	}
}
