package graph_test

import (
	"bytes"
	stdcmp "cmp"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
)

// constant matches a constant of a type of events or of a code.
var constant = regexp.MustCompile(`(?m)^(?:const)?\s+(\w+)\s+(?:fault\.Code|Code|event\.Type|Type)\s+= "([^"]+)"`)

var update = flag.Bool("update", false, "rewrite golden files")

// checkGolden compares a text with a golden file, which -update rewrites; changed says what a
// difference means.
func checkGolden(t *testing.T, file, got, changed string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s; if that is meant, run go test ./graph -update (-golden +got):\n%s", changed, diff)
	}
}

func TestContract_has_no_directive_that_does_nothing(t *testing.T) {
	t.Parallel()
	if d := graph.Definitions().Directives["defer"]; d != nil {
		t.Error("the schema has @defer, but an answer is one piece on every transport")
	}
}

// TestContract_is_the_golden_file shows every change of the contract in review.
func TestContract_is_the_golden_file(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	formatter.NewFormatter(&got, formatter.WithIndent("  ")).FormatSchema(sorted(contract(t)))
	checkGolden(t, "schema.graphql", got.String(), "the contract has changed")
}

func TestErrorCode_holds_exactly_the_codes_of_fault_and_their_sentences(t *testing.T) {
	t.Parallel()
	var inSchema, inGo [][2]string
	for _, v := range contract(t).Types["ErrorCode"].EnumValues {
		inSchema = append(inSchema, [2]string{v.Name, v.Description})
	}
	for _, m := range fault.Meanings() {
		inGo = append(inGo, [2]string{string(m.Code), m.Sentence})
	}
	slices.SortFunc(inSchema, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) }) // as Meanings
	if diff := cmp.Diff(inGo, inSchema); diff != "" {
		t.Errorf("ErrorCode differs from fault.Meanings (-Go +schema):\n%s", diff)
	}
}

func TestEventType_holds_exactly_the_types_of_events(t *testing.T) {
	t.Parallel()
	var inSchema, inGo []string
	for _, v := range contract(t).Types["EventType"].EnumValues {
		inSchema = append(inSchema, v.Name)
	}
	for _, typ := range event.Types() {
		inGo = append(inGo, strings.ToUpper(strings.ReplaceAll(string(typ), ".", "_")))
	}
	slices.Sort(inSchema)
	slices.Sort(inGo)
	if diff := cmp.Diff(inGo, inSchema); diff != "" {
		t.Errorf("EventType differs from event.Types (-Go +schema):\n%s", diff)
	}
}

func TestSecurityEventType_holds_exactly_the_types_of_security_events(t *testing.T) {
	t.Parallel()
	var inSchema, inGo []string
	for _, v := range contract(t).Types["SecurityEventType"].EnumValues {
		inSchema = append(inSchema, v.Name)
	}
	for _, typ := range security.EventTypes() {
		inGo = append(inGo, strings.ToUpper(strings.ReplaceAll(string(typ), ".", "_")))
	}
	if diff := cmp.Diff(inGo, inSchema); diff != "" {
		t.Errorf("SecurityEventType differs from security.EventTypes (-Go +schema):\n%s", diff)
	}
	var outcomes, made []string
	for _, v := range contract(t).Types["SignInOutcome"].EnumValues {
		outcomes = append(outcomes, v.Name)
	}
	for _, typ := range security.SignIns() {
		made = append(made, string(model.NewSignInAttempt(&security.Event{Type: typ}).Outcome))
	}
	slices.Sort(outcomes)
	slices.Sort(made)
	if diff := cmp.Diff(made, outcomes); diff != "" {
		t.Errorf("SignInOutcome differs from the outcomes of security.SignIns (-Go +schema):\n%s", diff)
	}
}

// TestConstants_are_all_declared reads the constants of types of events and of codes from the
// source, since Go cannot list them: each has a declaration, and is named after its value.
func TestConstants_are_all_declared(t *testing.T) {
	t.Parallel()
	var declared []string
	for _, m := range fault.Meanings() {
		declared = append(declared, string(m.Code))
	}
	declared = append(declared, texts(event.Types())...)
	files, err := filepath.Glob("../internal/*/*.go")
	nested, errNested := filepath.Glob("../internal/*/*/*.go")
	if err := errors.Join(err, errNested); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, nested...) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constant.FindAllStringSubmatch(string(src), -1) {
			found++
			name, value := m[1], m[2]
			if !slices.Contains(declared, value) {
				t.Errorf("%s has the constant %s, but no package declares %s", file, name, value)
			}
			if bare := strings.TrimPrefix(strings.TrimPrefix(name, "Code"), "Event"); bare != camelCase(value) {
				t.Errorf("%s names the constant of %s %s", file, value, name)
			}
		}
	}
	if found != len(declared) {
		t.Errorf("there are %d constants of %d declared types of events and codes", found, len(declared))
	}
}

// camelCase writes SKU_TAKEN as SKUTaken and order.placed as OrderPlaced.
func camelCase(value string) string {
	initialisms := map[string]string{"api": "API", "graphql": "GraphQL", "id": "ID", "sku": "SKU"}
	var name strings.Builder
	for word := range strings.FieldsFuncSeq(strings.ToLower(value), func(r rune) bool { return r == '_' || r == '.' }) {
		name.WriteString(stdcmp.Or(initialisms[word], strings.ToUpper(word[:1])+word[1:]))
	}
	return name.String()
}

func TestContract_describes_everything(t *testing.T) {
	t.Parallel()
	check := func(where, description string) {
		if strings.TrimSpace(description) == "" {
			t.Errorf("%s has no description", where)
		}
	}
	for name, def := range contract(t).Types {
		if def.BuiltIn || strings.HasPrefix(name, "__") {
			continue
		}
		check(name, def.Description)
		for _, f := range def.Fields {
			if strings.HasPrefix(f.Name, "__") {
				continue
			}
			check(name+"."+f.Name, f.Description)
			for _, a := range f.Arguments {
				check(name+"."+f.Name+"("+a.Name+")", a.Description)
			}
		}
		for _, v := range def.EnumValues {
			check(name+"."+v.Name, v.Description)
		}
	}
}

func TestMutations_take_one_input_and_return_a_payload_with_userErrors(t *testing.T) {
	t.Parallel()
	schema := contract(t)
	for _, f := range schema.Mutation.Fields {
		upper := strings.ToUpper(f.Name[:1]) + f.Name[1:]
		if len(f.Arguments) != 1 || f.Arguments[0].Name != "input" || f.Arguments[0].Type.String() != upper+"Input!" {
			t.Errorf("%s does not take exactly input: %sInput!", f.Name, upper)
		}
		payload := schema.Types[upper+"Payload"]
		if payload == nil || f.Type.String() != upper+"Payload" { // null if refused, so that the payloads of other mutations stay
			t.Errorf("%s does not return %sPayload", f.Name, upper)
			continue
		}
		if errs := payload.Fields.ForName("userErrors"); errs == nil || errs.Type.String() != "[UserError!]!" {
			t.Errorf("%sPayload has no userErrors: [UserError!]!", upper)
		}
	}
}

func contract(t *testing.T) *ast.Schema {
	t.Helper()
	files, err := filepath.Glob("schema/*.graphqls")
	if err != nil {
		t.Fatal(err)
	}
	var sources []*ast.Source
	for _, f := range append([]string{"../schema.graphqls"}, files...) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, &ast.Source{Name: f, Input: string(text)})
	}
	schema, err := gqlparser.LoadSchema(sources...)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// sorted puts the members of every type in the order of their names, so that
// moving a line in a schema file is no change of the contract.
func sorted(s *ast.Schema) *ast.Schema {
	for _, def := range s.Types {
		slices.SortFunc(def.Fields, func(a, b *ast.FieldDefinition) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(def.EnumValues, func(a, b *ast.EnumValueDefinition) int { return strings.Compare(a.Name, b.Name) })
	}
	return s
}

func texts[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}
