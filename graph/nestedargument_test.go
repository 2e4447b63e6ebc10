package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// badValues are values that their type cannot be read from, or no list has, as literals of a document.
func badValues(name string, t *ast.Type, schema *ast.Schema) (all []string) {
	def := schema.Types[t.Name()]
	switch {
	case def.Kind == ast.InputObject:
		for _, f := range def.Fields {
			for _, v := range badValues(f.Name, f.Type, schema) {
				all = append(all, "{"+f.Name+": "+v+"}")
			}
		}
		return append(all, `"x"`)
	case def.Kind == ast.Enum:
		return []string{"NONE_SUCH", `"PAID"`}
	case name == "first" || name == "last":
		return []string{"-1", "101", "2147483648", "1.5"}
	case name == "after" || name == "before":
		return []string{`"x"`, `"0"`, `""`, "7"}
	}
	return map[string][]string{"DateTime": {`"no time"`, "1"}, "Decimal": {`"x"`}, "Int": {`"x"`, "2147483648"}, "Boolean": {`"x"`}, "String": {"1"}, "ID": {"true"}, "CurrencyCode": {`"x"`},
		"Duration": {`"x"`}, "Cursor": {`"!"`}, "StringMap": {`{a: 1}`}, "Long": {`"x"`}}[t.Name()]
}

// nestedArgument is an argument of a field in a mutation's payload: around has a %s for the field.
type nestedArgument struct {
	name, field, around string
	typ                 *ast.Type
}

// nestedArguments returns each argument that the payload of a mutation leads to, once.
func nestedArguments(schema *ast.Schema, def *ast.Definition, around string, depth int, seen map[string]bool) (found []nestedArgument) {
	for _, f := range def.Fields {
		below := schema.Types[f.Type.Name()]
		if strings.HasPrefix(f.Name, "__") || !below.IsCompositeType() {
			continue
		}
		for _, a := range f.Arguments {
			if key := def.Name + "." + f.Name + "." + a.Name; !seen[key] {
				seen[key] = true
				found = append(found, nestedArgument{name: a.Name, field: f.Name, around: around, typ: a.Type})
			}
		}
		for _, object := range schema.GetPossibleTypes(below) {
			if depth > 0 {
				found = append(found, nestedArguments(schema, object, fmt.Sprintf(around, f.Name+" { ... on "+object.Name+" { %s } }"), depth-1, seen)...)
			}
		}
	}
	return found
}

// TestMutation_with_a_mistake_in_its_payload_does_nothing gives every argument that the payload of a mutation leads
// to a value that is wrong, as a literal, a variable and a default. Each must be refused before the mutation has run.
func TestMutation_with_a_mistake_in_its_payload_does_nothing(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		schema := s.exec.Schema()
		mutations := map[string]string{
			"createUser":      `createUser(input: {username: "user %d"}) { %s userErrors { code } }`,
			"registerService": `registerService(input: {name: "service-%d"}) { %s userErrors { code } }`,
		}
		n, seen := 0, map[string]bool{}
		for name, call := range mutations {
			payload := schema.Types[schema.Mutation.Fields.ForName(name).Type.Name()]
			for _, at := range nestedArguments(schema, payload, "%s", 6, seen) {
				for _, bad := range badValues(at.name, at.typ, schema) {
					for _, document := range []string{
						"mutation { " + call + " }",
						"mutation($v: " + at.typ.String() + " = " + bad + ") { " + call + " }",
						"fragment F on " + payload.Name + " { %[2]s } mutation { " + strings.Replace(call, "%s", "... F", 1) + " }",
					} {
						value := bad
						if strings.Contains(document, "$v") {
							value = "$v"
						}
						selection := fmt.Sprintf(at.around, at.field+"("+at.name+": "+value+") { __typename }")
						n++
						s.checkNothingRan(t, strings.NewReplacer("%d", fmt.Sprint(n), "%s", selection, "%[2]s", selection).Replace(document))
					}
				}
			}
		}
		if len(seen) < 15 {
			t.Errorf("the sweep found %d arguments", len(seen))
		}
		resp := s.ask(t, staff, `mutation { createUser(input: {username: "fine"}) { user { id orders(first: 100, orderBy: TOTAL_ASC) { nodes { id } } skipped: orders(first: 101) @skip(if: true) { nodes { id } } } userErrors { code } } }`, nil)
		if fmt.Sprint(resp["createUser"].(map[string]any)["user"]) == "<nil>" {
			t.Errorf("a mutation without mistakes gives %v", resp)
		}
	})
}

// checkNothingRan runs a document that must be refused without an effect.
func (s *server) checkNothingRan(t *testing.T, document string) {
	t.Helper()
	op, refusal := s.exec.Prepare(t.Context(), executor.Request{Query: document})
	if refusal != nil {
		if refusal.Stage == executor.StageParse {
			t.Errorf("%s\ndoes not parse: %v", document, refusal.Errors)
		}
		return
	}
	before := s.countEvents(t)
	resp, err := s.exec.Run(auth.With(t.Context(), staff), op)
	if err != nil {
		t.Fatal(err)
	}
	if changed := s.countEvents(t) - before; changed > 0 {
		t.Errorf("%s\nchanged %d objects and answered %s, %v", document, changed, resp.Data, resp.Errors)
	}
}
