package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// inputPosition is a position of the schema that takes no null, with a document that uses the
// nullable variable $v there.
type inputPosition struct{ name, query string }

// positions collects the positions of a schema, each once.
type positions struct {
	schema *ast.Schema
	found  []inputPosition
	seen   map[string]bool
}

// literal returns a value of the type, as a document holds it.
func (p *positions) literal(t *ast.Type) string {
	if t.Elem != nil {
		return "[" + p.literal(t.Elem) + "]"
	}
	def := p.schema.Types[t.NamedType]
	switch def.Kind {
	case ast.Enum:
		return def.EnumValues[0].Name
	case ast.InputObject:
		return "{" + strings.Join(p.requiredFields(def, ""), " ") + "}"
	default:
	}
	switch t.NamedType {
	case "Int", "Long", "Float":
		return "1"
	case "Boolean":
		return "true"
	case "DateTime":
		return `"2026-01-01T00:00:00Z"`
	case "Decimal":
		return `"1.00"`
	case "CurrencyCode":
		return `"EUR"`
	case "Duration":
		return `"1s"`
	case "Cursor":
		return `"0a1b2c3d4e5f.1"`
	case "StringMap":
		return `{}`
	default:
		return `"x"`
	}
}

// requiredFields returns the fields that an object of the type must have, but the one named.
func (p *positions) requiredFields(def *ast.Definition, but string) (all []string) {
	for _, f := range def.Fields {
		if f.Type.NonNull && f.DefaultValue == nil && f.Name != but {
			all = append(all, f.Name+":"+p.literal(f.Type))
		}
	}
	return all
}

// visitInput collects the positions at and below a value of the type; wrap makes the document
// around the value, and the variable's definition.
func (p *positions) visitInput(name string, t *ast.Type, wrap func(value, definition string) string) {
	if t.NonNull {
		nullable := *t
		nullable.NonNull = false
		p.found = append(p.found, inputPosition{name, wrap("$v", "$v:"+nullable.String()+"="+p.literal(&nullable))})
	}
	if t.Elem != nil {
		p.visitInput(name+"[]", t.Elem, func(value, definition string) string { return wrap("["+value+"]", definition) })
		return
	}
	def := p.schema.Types[t.NamedType]
	if def.Kind != ast.InputObject || p.seen[def.Name] {
		return
	}
	p.seen[def.Name] = true
	for _, f := range def.Fields {
		p.visitInput(def.Name+"."+f.Name, f.Type, func(value, definition string) string {
			return wrap("{"+strings.Join(append(p.requiredFields(def, f.Name), f.Name+":"+value), " ")+"}", definition)
		})
	}
}

// visitFields collects the positions of the arguments of all fields of a type and below it.
// around makes a document of a selection on the type, and the variable's definition.
func (p *positions) visitFields(def *ast.Definition, around func(selection, definition string) string) {
	if p.seen[def.Name] {
		return
	}
	p.seen[def.Name] = true
	for _, f := range def.Fields {
		if strings.HasPrefix(f.Name, "__") {
			continue
		}
		below, selection := p.schema.Types[f.Type.Name()], ""
		if below.IsCompositeType() {
			selection = "{__typename}"
		}
		args := func(but string) (all []string) {
			for _, a := range f.Arguments {
				if a.Type.NonNull && a.DefaultValue == nil && a.Name != but {
					all = append(all, a.Name+":"+p.literal(a.Type))
				}
			}
			return all
		}
		for _, a := range f.Arguments {
			p.visitInput(def.Name+"."+f.Name+"("+a.Name+")", a.Type, func(value, definition string) string {
				return around(f.Name+"("+strings.Join(append(args(a.Name), a.Name+":"+value), " ")+")"+selection, definition)
			})
		}
		field := f.Name
		if required := args(""); len(required) > 0 {
			field += "(" + strings.Join(required, " ") + ")"
		}
		for _, object := range p.schema.GetPossibleTypes(below) {
			p.visitFields(object, func(selection, definition string) string {
				return around(field+"{...on "+object.Name+"{"+selection+"}}", definition)
			})
		}
	}
}

// TestNull_is_refused_wherever_none_may_be uses a nullable variable with a default at every
// position of the schema that takes no null. The variable's null must be refused before anything
// runs, its default accepted.
func TestNull_is_refused_wherever_none_may_be(t *testing.T) {
	t.Parallel()
	schema := graph.NewSchema(&graph.Resolver{}).Schema()
	prep, err := executor.NewPreparer(schema, executor.Config{Scalars: graph.Scalars(), Limits: executor.Limits{Depth: 100}})
	if err != nil {
		t.Fatal(err)
	}
	p := &positions{schema: schema, seen: map[string]bool{}}
	for kind, root := range map[string]*ast.Definition{"query": schema.Query, "mutation": schema.Mutation, "subscription": schema.Subscription} {
		p.visitFields(root, func(selection, definition string) string {
			return fmt.Sprintf("%s(%s){%s}", kind, definition, selection)
		})
	}
	for _, directive := range []string{"include", "skip"} {
		p.found = append(p.found, inputPosition{"@" + directive + "(if)", "query($v:Boolean=true){eventCursor @" + directive + "(if:$v)}"})
	}
	if len(p.found) < 80 {
		t.Errorf("the sweep found %d positions, want 80 or more", len(p.found))
	}
	for _, at := range p.found {
		if _, refusal := prep.Prepare(t.Context(), executor.Request{Query: at.query}); refusal != nil {
			t.Errorf("%s: %s\nis refused without a value: %v", at.name, at.query, refusal.Errors)
		}
		_, refusal := prep.Prepare(t.Context(), executor.Request{Query: at.query, Variables: map[string]any{"v": nil}})
		if refusal == nil || refusal.Stage != executor.StageCoerce || len(refusal.Errors) != 1 {
			t.Errorf("%s: %s\nwith null = %+v, want one error of the variable", at.name, at.query, refusal)
			continue
		}
		if e := refusal.Errors[0]; e.Extensions["code"] != string(fault.BadInput) || !strings.HasPrefix(e.Message, `Variable "$v" must not be null: it is used as `) {
			t.Errorf("%s: %s\nwith null = %v, want BAD_INPUT that names the variable and its position", at.name, at.query, e)
		}
	}
}
