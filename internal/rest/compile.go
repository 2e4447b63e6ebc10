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

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// route is an operation that is served, ready to be called. It is read-only.
type route struct {
	*stored
	method  string
	path    string
	when    when
	success int
	query   string // the document as it is run: without directives, with what we need to know beside the answer
	params  []*param
	answer  answer
	shows   *route // GET of the same path, nil if there is none
	byCode  map[fault.Code]int
}

// answer says where the answer is in the data, and how it is shown.
type answer struct {
	way       []string // keys from the data to the answer
	page      bool     // it is the nodes of a connection
	versioned bool
	errors    bool // the root field has userErrors
	view      *view
	fields    []*ast.Field // on the way
	constants []byte       // as members of a JSON object, without braces
	absent    *fault.Error // if there is no answer
}

// param is a variable of an operation and where its value comes from.
type param struct {
	*ast.VariableDefinition
	from   fromDirective
	legacy *lookup // nil if values are not looked up
}

// lookup is an operation that finds an id.
type lookup struct {
	query    string
	variable string
	way      []string
}

// compileAll compiles what was parsed and prepares every document.
func compileAll(exec *executor.Executor, all []*stored) ([]*route, error) {
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
		if other := conflict(routes, rt); other != nil {
			errs = append(errs, st.mistake(st.op.Position, "%s serves %s %s, too", other.name, rt.method, rt.path))
			continue
		}
		routes = append(routes, rt)
	}
	return routes, errors.Join(errs...)
}

// conflict returns the route that serves the same requests, nil if none does.
func conflict(routes []*route, rt *route) *route {
	i := slices.IndexFunc(routes, func(o *route) bool {
		sameCaller := o.when == anybody || rt.when == anybody || o.when == rt.when
		sameMedia := (o.op.Operation == ast.Subscription) == (rt.op.Operation == ast.Subscription)
		return o.method == rt.method && shape(o.path) == shape(rt.path) && sameCaller && sameMedia
	})
	if i < 0 {
		return nil
	}
	return routes[i]
}

// shape is a path whose placeholders have no names.
func shape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = "{}"
		}
	}
	return strings.Join(parts, "/")
}

func (s *stored) compileLookup(exec *executor.Executor) (*lookup, error) {
	if len(s.op.VariableDefinitions) != 1 {
		return nil, s.mistake(s.op.Position, "a look-up has one variable")
	}
	way, _, err := s.follow(s.lookup.Unwrap)
	if err != nil {
		return nil, err
	}
	l := &lookup{query: s.document(), variable: s.op.VariableDefinitions[0].Variable, way: way}
	return l, s.check(exec, l.query)
}

func (s *stored) compileRoute(exec *executor.Executor, lookups map[string]*lookup) (*route, error) {
	d := s.rest
	rt := &route{stored: s, method: d.Method, path: d.Path, when: d.When, success: d.Status, byCode: map[fault.Code]int{}}
	for _, st := range d.Statuses {
		rt.byCode[st.Code] = st.Status
	}
	if err := errors.Join(s.checkDirective(), rt.bindParams(lookups), rt.compileAnswer()); err != nil {
		return nil, err
	}
	rt.query = s.document()
	return rt, s.check(exec, rt.query)
}

// methods are those of routes.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// checkDirective checks what the types of the directive leave open.
func (s *stored) checkDirective() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, s.mistake(s.op.Position, format, args...)) }
	if !strings.HasPrefix(s.rest.Path, "/") || strings.HasSuffix(s.rest.Path, "/") || strings.ContainsAny(s.rest.Path, "?# ") {
		wrong("the path begins with a slash, ends without one, and has neither query nor spaces: %q", s.rest.Path)
	}
	if !slices.Contains(methods, s.rest.Method) {
		wrong("the method is one of %s, and not %q", strings.Join(methods, ", "), s.rest.Method)
	}
	if s.rest.Status < 200 || s.rest.Status > 299 || s.rest.Status == http.StatusResetContent || s.rest.Status == http.StatusPartialContent {
		wrong("%d is no status of an answer that went well", s.rest.Status)
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

// bindParams decides where the value of each variable comes from.
func (rt *route) bindParams(lookups map[string]*lookup) error {
	var errs []error
	placeholders := placeholdersOf(rt.path)
	for _, v := range rt.op.VariableDefinitions {
		p := &param{VariableDefinition: v, from: rt.from[v.Variable]}
		p.byDefault(placeholders, rt.hasBody())
		if name := p.from.Legacy; name != "" {
			if p.legacy = lookups[name]; p.legacy == nil {
				errs = append(errs, rt.mistake(v.Position, "there is no look-up %q", name))
			}
		}
		if p.from.Path != "" && !slices.Contains(placeholders, p.from.Path) {
			errs = append(errs, rt.mistake(v.Position, "the path has no {%s}", p.from.Path))
		}
		if len(p.from.Body) > 0 && !rt.hasBody() {
			errs = append(errs, rt.mistake(v.Position, "%s has no body", rt.method))
		}
		placeholders = slices.DeleteFunc(placeholders, func(name string) bool { return name == p.from.Path })
		rt.params = append(rt.params, p)
	}
	if len(placeholders) > 0 {
		errs = append(errs, rt.mistake(rt.op.Position, "nothing takes {%s} of the path", placeholders[0]))
	}
	return errors.Join(errs...)
}

func (rt *route) hasBody() bool {
	return rt.method == http.MethodPost || rt.method == http.MethodPut || rt.method == http.MethodPatch
}

// byDefault fills in where a value comes from that says nothing of it.
func (p *param) byDefault(placeholders []string, body bool) {
	name := snake(p.Variable)
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

// ifMatch is the header that says which version a change is meant for.
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

// snake is a name of GraphQL as the old world spells it.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// compileAnswer finds the answer in the document, and adds to that what we need
// to know beside it.
func (rt *route) compileAnswer() error {
	root, ok := rt.op.SelectionSet[0].(*ast.Field)
	if !ok {
		return rt.mistake(rt.op.Position, "the root field must not be in a fragment")
	}
	way, fields, err := rt.follow(cmp.Or(rt.rest.Unwrap, root.Alias))
	if err != nil {
		return err
	}
	shown := fields[len(fields)-1]
	rt.answer = answer{way: way, fields: fields, absent: absent(rt.typeOf(shown)), constants: members(rt.rest.Constants)}
	if has(rt.typeOf(root), "userErrors") {
		rt.answer.errors = true
		prepend(root, errorsKey+`: userErrors { code message path }`)
	}
	if n := len(fields); n > 1 && has(rt.typeOf(fields[n-2]), "pageInfo") && shown.Name == "nodes" {
		rt.answer.page = true
		prepend(fields[n-2], pageKey+`: pageInfo { hasNextPage hasPreviousPage startCursor endCursor }`)
	}
	if rt.rest.IDs == legacyIDs {
		rt.rememberIDs(shown)
	}
	if a := rt.rest.Absent; a != nil {
		if !has(rt.typeOf(shown), a.Field) {
			return rt.mistake(rt.op.Position, "%q of absent is no field of what is shown", a.Field)
		}
		prepend(shown, absentKey+": "+a.Field)
	}
	if shown.Definition.Type.Elem == nil && has(rt.typeOf(shown), "version") && rt.op.Operation != ast.Subscription {
		rt.answer.versioned = true
		prepend(shown, versionKey+`: version`)
	}
	rt.answer.view = viewOf(shown.SelectionSet)
	return nil
}

// typeOf returns the type of a field, whose lists are those of its items.
func (s *stored) typeOf(f *ast.Field) *ast.Definition {
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

func has(def *ast.Definition, field string) bool {
	return def != nil && def.Fields.ForName(field) != nil
}

// hidden begins the names of what we ask for ourselves.
const hidden = "_"

// The names of what we ask for.
const (
	legacyKey  = hidden + "legacyId"
	absentKey  = hidden + "absent"
	versionKey = hidden + "version"
	pageKey    = hidden + "pageInfo"
	errorsKey  = hidden + "userErrors"
)

// follow returns the keys and the fields from the root to the end of a way such
// as createUser.user.
func (s *stored) follow(way string) (keys []string, fields []*ast.Field, err error) {
	set := s.op.SelectionSet
	for key := range strings.SplitSeq(way, ".") {
		i := slices.IndexFunc(set, func(sel ast.Selection) bool {
			f, ok := sel.(*ast.Field)
			return ok && f.Alias == key
		})
		if i < 0 {
			return nil, nil, s.mistake(s.op.Position, "the operation does not select %q of %q", key, way)
		}
		f := set[i].(*ast.Field)
		keys, fields, set = append(keys, key), append(fields, f), f.SelectionSet
	}
	return keys, fields, nil
}

// rememberIDs asks for the legacy id of every object whose id is shown.
func (s *stored) rememberIDs(f *ast.Field) {
	for _, sub := range fieldsOf(f.SelectionSet) {
		s.rememberIDs(sub)
	}
	shows := func(sub *ast.Field) bool { return sub.Alias == "id" && sub.Name == "id" }
	if def := s.typeOf(f); has(def, "legacyId") && slices.ContainsFunc(fieldsOf(f.SelectionSet), shows) {
		prepend(f, legacyKey+`: legacyId`)
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

// document writes the operation as the executor gets it.
func (s *stored) document() string {
	var b strings.Builder
	formatter.NewFormatter(&b, formatter.WithCompacted()).FormatQueryDocument(s.doc)
	return b.String()
}

// check prepares the document, which holds it against the limits, too.
func (s *stored) check(exec *executor.Executor, query string) error {
	refusal := exec.Check(query)
	if refusal == nil {
		return nil
	}
	var errs []error
	for _, e := range refusal.Errors {
		errs = append(errs, s.mistake(s.op.Position, "%s", e.Message))
	}
	return errors.Join(errs...)
}

// absent is the error that there is no answer: USER_NOT_FOUND for a User.
func absent(def *ast.Definition) *fault.Error {
	if def != nil {
		code := fault.Code(strings.ToUpper(snake(def.Name)) + "_NOT_FOUND")
		if slices.Contains(fault.Codes(), code) {
			return fault.New(fault.NotFound, code, "There is no such %s.", strings.ReplaceAll(snake(def.Name), "_", " "))
		}
	}
	return fault.New(fault.NotFound, fault.PathNotFound, "There is nothing at this path.")
}

// members writes constants as members of a JSON object.
func members(all []constant) []byte {
	var out []byte
	for i, c := range all {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, "%s:%s", quote(c.Name), quote(c.Value))
	}
	return out
}
