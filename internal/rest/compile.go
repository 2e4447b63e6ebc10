package rest

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// route is a compiled operation, ready to serve requests. It is read-only.
type route struct {
	*storedOperation
	method   string
	path     string
	when     callerKind
	success  int
	query    string // the document as executed: without directives, with the hidden fields that rest adds
	params   []*param
	answer   resultShape
	reads    *route // GET of the same path, nil if there is none
	replaces *route // PUT of the same path, nil if there is none

	parameters []string // of the query, that an operation of the same path and method reads
	skips      *param   // whose value may be given as a number of objects or of a page, nil if there is none
	byCode     map[fault.Code]int

	// scopes are those that an API key needs to get the answer of a mutation.
	scopes []auth.Scope
}

// resultShape says where the result is in the data, and how it is rendered.
type resultShape struct {
	path      []string // keys from the data to the result
	page      bool     // the result is the nodes of a connection
	counted   bool     // of which the total is shown
	versioned bool
	errors    bool // the root field has userErrors
	view      *view
	fields    []*ast.Field // on the path
	constants []byte       // as members of a JSON object, without braces
	absent    *fault.Error // error if there is no result
}

// param is a variable of an operation and where its value comes from.
type param struct {
	*ast.VariableDefinition
	from   fromDirective
	legacy *lookup  // nil if values are not looked up
	orders []string // by which a client sorts, nil if the variable is no order
}

// lookup is an operation that finds an id.
type lookup struct {
	query    string
	variable string
	path     []string
}

// compileAll compiles what was parsed and prepares every document.
func compileAll(exec *executor.Executor, all []*storedOperation) ([]*route, error) {
	lookups := map[string]*lookup{}
	var errs []error
	for _, st := range all {
		if st.lookup != nil {
			l, err := st.compileLookup(exec)
			errs = append(errs, err)
			lookups[st.op.Name] = l
		}
	}
	var routes []*route
	for _, st := range all {
		if st.rest == nil {
			continue
		}
		rt, err := st.compileRoute(exec, lookups)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if other := conflictingRoute(routes, rt); other != nil {
			errs = append(errs, st.errorAt(st.op.Position, "%s serves %s %s, too", other.name, rt.method, rt.path))
			continue
		}
		routes = append(routes, rt)
	}
	return routes, errors.Join(errs...)
}

// conflictingRoute returns the route that serves the same requests, nil if none does.
func conflictingRoute(routes []*route, rt *route) *route {
	i := slices.IndexFunc(routes, func(o *route) bool {
		sameCaller := o.when == anyCaller || rt.when == anyCaller || o.when == rt.when
		sameMedia := (o.op.Operation == ast.Subscription) == (rt.op.Operation == ast.Subscription)
		return o.method == rt.method && pathPattern(o.path) == pathPattern(rt.path) && sameCaller && sameMedia
	})
	if i < 0 {
		return nil
	}
	return routes[i]
}

// pathPattern is a path whose placeholders have no names.
func pathPattern(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = "{}"
		}
	}
	return strings.Join(parts, "/")
}

func (s *storedOperation) compileLookup(exec *executor.Executor) (*lookup, error) {
	if len(s.op.VariableDefinitions) != 1 {
		return nil, s.errorAt(s.op.Position, "a lookup has one variable")
	}
	path, _, err := s.selectionPath(s.lookup.Unwrap)
	if err != nil {
		return nil, err
	}
	l := &lookup{query: s.printDocument(), variable: s.op.VariableDefinitions[0].Variable, path: path}
	return l, s.checkDocument(exec, l.query)
}

func (s *storedOperation) compileRoute(exec *executor.Executor, lookups map[string]*lookup) (*route, error) {
	d := s.rest
	rt := &route{storedOperation: s, method: d.Method, path: d.Path, when: d.When, success: d.Status, byCode: map[fault.Code]int{}}
	for _, st := range d.Statuses {
		rt.byCode[st.Code] = st.Status
	}
	if err := errors.Join(s.checkDirective(), rt.bindParams(lookups), rt.compileResult()); err != nil {
		return nil, err
	}
	if s.op.Operation == ast.Mutation {
		rt.scopes = executor.ReadScopes(s.op.SelectionSet)
	}
	rt.query = s.printDocument()
	return rt, s.checkDocument(exec, rt.query)
}

// methods are those of routes.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// checkDirective checks what the types of the directive leave open.
func (s *storedOperation) checkDirective() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, s.errorAt(s.op.Position, format, args...)) }
	if !strings.HasPrefix(s.rest.Path, "/") || strings.HasSuffix(s.rest.Path, "/") || strings.ContainsAny(s.rest.Path, "?# ") {
		wrong("the path begins with a slash, ends without one, and has neither query nor spaces: %q", s.rest.Path)
	}
	if !slices.Contains(methods, s.rest.Method) {
		wrong("the method is one of %s, and not %q", strings.Join(methods, ", "), s.rest.Method)
	}
	if s.rest.Status < 200 || s.rest.Status > 299 || s.rest.Status == http.StatusResetContent || s.rest.Status == http.StatusPartialContent {
		wrong("%d is no status of a success", s.rest.Status)
	}
	for _, st := range s.rest.Statuses {
		if st.Status < 400 || st.Status > 599 || http.StatusText(st.Status) == "" {
			wrong("%d is no status of an error", st.Status)
		}
	}
	reads := s.op.Operation != ast.Mutation
	if s.rest.Method == http.MethodGet && !reads {
		wrong("GET must change nothing, so it cannot serve a mutation")
	}
	if s.op.Operation == ast.Subscription && s.rest.Method != http.MethodGet {
		wrong("a subscription is served by GET")
	}
	if len(s.op.SelectionSet) != 1 {
		wrong("the operation of a route has one root field")
	}
	return errors.Join(errs...)
}

// bindParams determines the sources of each variable.
func (rt *route) bindParams(lookups map[string]*lookup) error {
	var errs []error
	placeholders := placeholdersOf(rt.path)
	for _, v := range rt.op.VariableDefinitions {
		p := &param{VariableDefinition: v, from: rt.from[v.Variable]}
		p.setDefaultSource(placeholders, rt.hasBody())
		if name := p.from.Legacy; name != "" {
			if p.legacy = lookups[name]; p.legacy == nil {
				errs = append(errs, rt.errorAt(v.Position, "there is no lookup %q", name))
			}
		}
		p.orders = orderNames(v.Definition)
		if p.from.Offset != "" || p.from.Page != "" {
			rt.skips = p
		}
		if p.from.Path != "" && !slices.Contains(placeholders, p.from.Path) {
			errs = append(errs, rt.errorAt(v.Position, "the path has no {%s}", p.from.Path))
		}
		if len(p.from.Body) > 0 && !rt.hasBody() {
			errs = append(errs, rt.errorAt(v.Position, "%s has no body", rt.method))
		}
		placeholders = slices.DeleteFunc(placeholders, func(name string) bool { return name == p.from.Path })
		rt.params = append(rt.params, p)
	}
	if len(placeholders) > 0 {
		errs = append(errs, rt.errorAt(rt.op.Position, "nothing takes {%s} of the path", placeholders[0]))
	}
	return errors.Join(errs...)
}

func (rt *route) hasBody() bool {
	return rt.method == http.MethodPost || rt.method == http.MethodPut || rt.method == http.MethodPatch
}

// setDefaultSource sets the source of a variable without @from.
func (p *param) setDefaultSource(placeholders []string, body bool) {
	name := snakeCase(p.Variable)
	switch {
	case p.from.Path != "" || p.from.Header != "" || len(p.from.Query) > 0 || len(p.from.Body) > 0:
	case slices.Contains(placeholders, name):
		p.from.Path = name
	case body:
		p.from.Body = []string{name}
	default:
		p.from.Query = []string{name}
	}
}

// ifMatch is the header with the version that a change expects.
const ifMatch = "If-Match"

func (p *param) isVersion() bool { return strings.EqualFold(p.from.Header, ifMatch) }

func placeholdersOf(path string) []string {
	var names []string
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

// snakeCase converts a name of GraphQL to that of the legacy REST routes.
func snakeCase(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// compileResult finds the result in the document, and adds the hidden fields: version,
// page info, user errors and legacy ids.
func (rt *route) compileResult() error {
	root, ok := rt.op.SelectionSet[0].(*ast.Field)
	if !ok {
		return rt.errorAt(rt.op.Position, "the root field must not be in a fragment")
	}
	path, fields, err := rt.selectionPath(cmp.Or(rt.rest.Unwrap, root.Alias))
	if err != nil {
		return err
	}
	shown := fields[len(fields)-1]
	rt.answer = resultShape{path: path, fields: fields, absent: notFoundError(rt.typeOf(shown)), constants: jsonMembers(rt.rest.Constants)}
	if hasField(rt.typeOf(root), "userErrors") {
		rt.answer.errors = true
		prependField(root, errorsKey+`: userErrors { code message path }`)
	}
	if n := len(fields); n > 1 && hasField(rt.typeOf(fields[n-2]), "pageInfo") && shown.Name == "nodes" {
		rt.answer.page = true
		if rt.answer.counted = isCounted(fields[n-2]); rt.answer.counted {
			prependField(fields[n-2], totalKey+": totalCount")
		}
		prependField(fields[n-2], pageKey+`: pageInfo { hasNextPage hasPreviousPage startCursor endCursor }`)
	}
	if rt.rest.IDs == legacyIDs {
		rt.selectLegacyIDs(shown)
	}
	if a := rt.rest.Absent; a != nil {
		if !hasField(rt.typeOf(shown), a.Field) {
			return rt.errorAt(rt.op.Position, "%q of absent is no field of the result", a.Field)
		}
		prependField(shown, absentKey+": "+a.Field)
	}
	if shown.Definition.Type.Elem == nil && hasField(rt.typeOf(shown), "version") && rt.op.Operation != ast.Subscription {
		rt.answer.versioned = true
		prependField(shown, versionKey+`: version`)
	}
	rt.answer.view = viewOf(shown.SelectionSet)
	return rt.checkSkips()
}

// typeOf returns the type of a field, whose lists are those of its items.
func (s *storedOperation) typeOf(f *ast.Field) *ast.Definition {
	if len(f.SelectionSet) == 0 {
		return nil
	}
	return typeOf(f.SelectionSet)
}

// typeOf returns the type that a selection is made on.
func typeOf(set ast.SelectionSet) *ast.Definition {
	switch sel := set[0].(type) {
	case *ast.Field:
		return sel.ObjectDefinition
	case *ast.InlineFragment:
		return sel.ObjectDefinition
	case *ast.FragmentSpread:
		return sel.ObjectDefinition
	}
	return nil
}

func hasField(def *ast.Definition, field string) bool {
	return def != nil && def.Fields.ForName(field) != nil
}

// hiddenPrefix begins the names of fields that rest adds and does not show.
const hiddenPrefix = "_"

// The names of the hidden fields.
const (
	legacyKey  = hiddenPrefix + "legacyId"
	absentKey  = hiddenPrefix + "absent"
	versionKey = hiddenPrefix + "version"
	pageKey    = hiddenPrefix + "pageInfo"
	totalKey   = hiddenPrefix + "totalCount"
	errorsKey  = hiddenPrefix + "userErrors"
)

// selectionPath returns the keys and the fields from the root to the end of a path such
// as createUser.user.
func (s *storedOperation) selectionPath(path string) (keys []string, fields []*ast.Field, err error) {
	set := s.op.SelectionSet
	for key := range strings.SplitSeq(path, ".") {
		i := slices.IndexFunc(set, func(sel ast.Selection) bool {
			f, ok := sel.(*ast.Field)
			return ok && f.Alias == key
		})
		if i < 0 {
			return nil, nil, s.errorAt(s.op.Position, "the operation does not select %q of %q", key, path)
		}
		f := set[i].(*ast.Field)
		keys, fields, set = append(keys, key), append(fields, f), f.SelectionSet
	}
	return keys, fields, nil
}

// selectLegacyIDs selects the legacy id of every object whose id is shown.
func (s *storedOperation) selectLegacyIDs(f *ast.Field) {
	for _, sub := range fieldsOf(f.SelectionSet) {
		s.selectLegacyIDs(sub)
	}
	shows := func(sub *ast.Field) bool { return sub.Alias == "id" && sub.Name == "id" }
	if def := s.typeOf(f); hasField(def, "legacyId") && slices.ContainsFunc(fieldsOf(f.SelectionSet), shows) {
		prependField(f, legacyKey+`: legacyId`)
	}
}

// fieldsOf returns the fields of a selection, those of its fragments too.
func fieldsOf(set ast.SelectionSet) []*ast.Field {
	var fields []*ast.Field
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			fields = append(fields, sel)
		case *ast.InlineFragment:
			fields = append(fields, fieldsOf(sel.SelectionSet)...)
		case *ast.FragmentSpread:
			fields = append(fields, fieldsOf(sel.Definition.SelectionSet)...)
		}
	}
	return fields
}

// printDocument prints the operation for the executor.
func (s *storedOperation) printDocument() string {
	var b strings.Builder
	formatter.NewFormatter(&b, formatter.WithCompacted()).FormatQueryDocument(s.doc)
	return b.String()
}

// checkDocument prepares the document, which checks it against the limits, too.
func (s *storedOperation) checkDocument(exec *executor.Executor, query string) error {
	refusal := exec.CheckDocument(query)
	if refusal == nil {
		return nil
	}
	var errs []error
	for _, e := range refusal.Errors {
		errs = append(errs, s.errorAt(s.op.Position, "%s", e.Message))
	}
	return errors.Join(errs...)
}

// notFoundError is the error for a missing result: USER_NOT_FOUND for a User.
func notFoundError(def *ast.Definition) *fault.Error {
	if def != nil {
		code := fault.Code(strings.ToUpper(snakeCase(def.Name)) + "_NOT_FOUND")
		if code.Known() {
			return fault.New(code, "There is no such %s.", strings.ReplaceAll(snakeCase(def.Name), "_", " "))
		}
	}
	return fault.New(fault.NotFound, "There is nothing at this path.")
}

// jsonMembers writes constants as members of a JSON object.
func jsonMembers(all []constant) []byte {
	var out []byte
	for i, c := range all {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, "%s:%s", quoteJSON(c.Name), quoteJSON(c.Value))
	}
	return out
}
