package graph_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// legalDocument writes a random document, nearly always a legal one, with its variables: odd
// values, nulls, defaults and directives wherever the schema takes them.
type legalDocument struct {
	schema    *ast.Schema
	rnd       *rand.Rand
	ids       []string
	skus      []string
	variables map[string]any
	declared  []string
}

func pick[T any](d *legalDocument, values ...T) T { return values[d.rnd.IntN(len(values))] }

func (d *legalDocument) oneIn(n int) bool { return d.rnd.IntN(n) == 0 }

// value returns a value of the type, as JSON has it; name is that of its argument or field.
func (d *legalDocument) value(name string, t *ast.Type, depth int) any {
	if !t.NonNull && d.oneIn(6) {
		return nil
	}
	if t.Elem != nil {
		all := make([]any, d.rnd.IntN(3))
		for i := range all {
			all[i] = d.value(name, t.Elem, depth)
		}
		return all
	}
	def := d.schema.Types[t.NamedType]
	switch def.Kind {
	case ast.Enum:
		return enumValue(def.EnumValues[d.rnd.IntN(len(def.EnumValues))].Name)
	case ast.InputObject:
		object := map[string]any{}
		for _, f := range def.Fields {
			if f.Type.NonNull && f.DefaultValue == nil || depth < 3 && d.oneIn(3) {
				object[f.Name] = d.value(f.Name, f.Type, depth+1)
			}
		}
		return object
	default:
		return d.scalar(name, t.NamedType)
	}
}

// enumValue is a value of an enum, which a document writes without quotes.
type enumValue string

func (d *legalDocument) scalar(name, typ string) any {
	switch name {
	case "sku", "skus":
		return pick(d, d.skus...)
	case "quantity":
		return 1
	case "after", "before":
		return pick(d, "0a1b2c3d4e5f.1", "x", "", page.Cursor{Order: string(order.ByPlacedDesc), Key: "2026-03-01T00:00:00Z", ID: "x"}.String())
	}
	switch typ {
	case "Int", "Long":
		return pick(d, 0, 1, 2, 5, 100, -1, 2147483647, -2147483648)
	case "ID":
		if d.oneIn(8) {
			return pick[any](d, json.Number("123456789012345678901234567890"), 7, "", "x")
		}
		return pick(d, d.ids...)
	case "Float":
		return pick[any](d, 1, 1.5, json.Number("123456789012345678901"))
	case "Boolean":
		return d.oneIn(2)
	case "DateTime":
		return pick(d, "2026-03-01T00:00:00Z", "2026-03-01t00:00:60z", "9999-12-31T23:59:59+00:00", "no time")
	case "Decimal":
		return pick(d, "1.00", "0", "-1", "99999999999999999999", "1.999")
	case "CurrencyCode":
		return pick(d, "EUR", "USD", "XXX")
	case "Duration":
		return pick(d, "5s", "0s", "1ns", "9999h")
	case "Cursor":
		return pick(d, "0a1b2c3d4e5f.1", "x")
	case "StringMap":
		return map[string]any{"a": pick(d, "", "b")}
	case "JSON":
		return pick[any](d, 1, "x", []any{1, nil}, map[string]any{"a": 1.5})
	default:
		return pick(d, "", "x", "a b", "é\u0301", "\u202Ex", "😀", strings.Repeat("&", 300), "query { __typename }")
	}
}

// use writes a value into the document, as a literal or through a variable, which may be
// nullable with a default, null or left out.
func (d *legalDocument) use(t *ast.Type, v any) string {
	if !d.oneIn(4) {
		return d.literal(t, v)
	}
	name, of := fmt.Sprintf("v%d", len(d.declared)), *t
	def := ""
	if d.oneIn(2) {
		of.NonNull = false
		def = " = " + d.literal(t, v)
	}
	d.declared = append(d.declared, "$"+name+": "+of.String()+def)
	switch {
	case def != "" && d.oneIn(3): // left out
	case d.oneIn(4):
		d.variables[name] = nil
	default:
		d.variables[name] = plain(v)
	}
	return "$" + name
}

// plain returns a value as a request has it.
func plain(v any) any {
	switch v := v.(type) {
	case enumValue:
		return string(v)
	case int:
		return json.Number(fmt.Sprint(v))
	case float64:
		return json.Number(fmt.Sprint(v))
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = plain(v[i])
		}
		return all
	case map[string]any:
		object := map[string]any{}
		for name := range v {
			object[name] = plain(v[name])
		}
		return object
	}
	return v
}

func (d *legalDocument) literal(t *ast.Type, v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case enumValue:
		return string(v)
	case []any:
		var all []string
		for _, item := range v {
			elem := t
			if t.Elem != nil {
				elem = t.Elem
			}
			all = append(all, d.literal(elem, item))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case map[string]any:
		var all []string
		def := d.schema.Types[t.Name()]
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if f := def.Fields.ForName(name); f != nil && def.Kind == ast.InputObject {
				all = append(all, name+": "+d.use(f.Type, v[name]))
			} else {
				all = append(all, name+": "+d.literal(t, v[name]))
			}
		}
		return "{" + strings.Join(all, ", ") + "}"
	}
	text, _ := json.Marshal(v) // a string, a number or a boolean
	return string(text)
}

func (d *legalDocument) field(f *ast.FieldDefinition, levels int) string {
	var given []string
	for _, a := range f.Arguments {
		if a.Type.NonNull && a.DefaultValue == nil || d.oneIn(3) {
			given = append(given, a.Name+": "+d.use(a.Type, d.value(a.Name, a.Type, 0)))
		}
	}
	text := f.Name
	if len(given) > 0 {
		text += "(" + strings.Join(given, ", ") + ")"
	}
	if d.oneIn(6) {
		boolean := ast.NonNullNamedType("Boolean", nil)
		text += fmt.Sprintf(" @%s(if: %s)", pick(d, "include", "skip"), d.use(boolean, d.oneIn(2)))
	}
	if def := d.schema.Types[f.Type.Name()]; def.IsCompositeType() {
		text += " { " + d.selection(def, levels-1) + " }"
	}
	return text
}

func (d *legalDocument) selection(def *ast.Definition, levels int) string {
	all := []string{"__typename"}
	if def.IsAbstractType() {
		for _, possible := range d.schema.GetPossibleTypes(def) {
			all = append(all, "... on "+possible.Name+" { "+d.selection(possible, levels)+" }")
		}
		return strings.Join(all, " ")
	}
	for _, f := range def.Fields {
		leaf := !d.schema.Types[f.Type.Name()].IsCompositeType()
		if !strings.HasPrefix(f.Name, "__") && d.oneIn(2) && (leaf || levels > 0) {
			all = append(all, fmt.Sprintf("%s_%s: %s", strings.ToLower(def.Name), f.Name, d.field(f, levels)))
		}
	}
	return strings.Join(all, " ")
}

// mutation returns a document of one to three mutations.
func (d *legalDocument) mutation() string {
	var fields []string
	for i := range 1 + d.rnd.IntN(3) {
		f := d.schema.Mutation.Fields[d.rnd.IntN(len(d.schema.Mutation.Fields))]
		fields = append(fields, fmt.Sprintf("m%d: %s", i, d.field(f, 3)))
	}
	text := " { " + strings.Join(fields, " ") + " }"
	if len(d.declared) > 0 {
		text = "(" + strings.Join(d.declared, ", ") + ")" + text
	}
	return "mutation" + text
}

// FuzzMutations runs legal documents of mutations: none may end with INTERNAL, and none may have
// an effect without an answer that says so.
func FuzzMutations(f *testing.F) {
	s := newServer(f, testenv.SQLite(f))
	s.fill(f, demo.Size{Users: 5, Orders: 5, Lines: 2})
	var ids, skus []string
	for _, list := range []string{"users", "products", "orders"} {
		for _, n := range s.ask(f, staff, `{ list: `+list+`(first: 5) { nodes { id } } }`, nil)["list"].(map[string]any)["nodes"].([]any) {
			ids = append(ids, n.(map[string]any)["id"].(string))
		}
	}
	for _, n := range s.ask(f, staff, `{ products(first: 5) { nodes { sku } } }`, nil)["products"].(map[string]any)["nodes"].([]any) {
		skus = append(skus, n.(map[string]any)["sku"].(string))
	}
	schema := s.exec.Schema()
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		d := &legalDocument{schema: schema, rnd: rand.New(rand.NewPCG(seed, 1)), ids: ids, skus: skus, variables: map[string]any{}}
		query := d.mutation()
		op, refusal := s.exec.Prepare(t.Context(), executor.Request{Query: query, Variables: d.variables})
		if refusal != nil {
			checkErrors(t, refusal.Errors[0].Extensions["code"], query, d.variables, refusal.Errors[0].Err)
			return
		}
		before := s.countEvents(t)
		resp, err := s.exec.Run(auth.With(t.Context(), staff), op)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.Errors {
			checkErrors(t, e.Extensions["code"], query, d.variables, e.Err)
			if code, _ := e.Extensions["code"].(string); len(e.Path) > 1 && slices.Contains(callersMistakes, code) {
				t.Errorf("%s\n%v\nran, and then has an error in its payload: %s", query, d.variables, e)
			}
		}
		var data map[string]json.RawMessage
		if err := json.Unmarshal(resp.Data, &data); err != nil {
			t.Fatalf("%s\n%v\ngave %s", query, d.variables, resp.Data)
		}
		answered := 0
		for _, payload := range data {
			if string(payload) != "null" {
				answered++
			}
		}
		if changed := s.countEvents(t) - before; changed > 0 && answered == 0 {
			t.Errorf("%s\n%v\nchanged %d objects and answered %s, %v", query, d.variables, changed, resp.Data, resp.Errors)
		}
	})
}

// callersMistakes are codes of mistakes in a document or its variables: they must be found before anything runs, since
// the client would not learn what was done.
var callersMistakes = []string{string(fault.BadInput), string(fault.PageSizeInvalid), string(fault.CursorInvalid)}

func checkErrors(t *testing.T, code any, query string, variables map[string]any, cause error) {
	t.Helper()
	if code == string(fault.Internal) {
		t.Errorf("%s\n%v\nended with INTERNAL: %v", query, variables, cause)
	}
}

// countEvents returns how many events the log has.
func (s *server) countEvents(t testing.TB) int {
	t.Helper()
	n, _ := s.ask(t, staff, `{ events(first: 0) { totalCount } }`, nil)["events"].(map[string]any)["totalCount"].(float64)
	return int(n)
}
