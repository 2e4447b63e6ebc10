package executor_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
)

func TestPrepare_checks_that_fields_merge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, query string
		ok          bool
	}{
		{"equal fields", "{hello hello}", true},
		{"equal fields with equal aliases", "{a:hello a:hello}", true},
		{"different fields under one alias", "{a:hello a:echo}", false},
		{"an alias that is another field's name", "{echo:hello echo}", false},
		{"equal arguments in another order", "{echo(text:\"a\" number:1) echo(number:1 text:\"a\")}", true},
		{"equal objects in another order", "{echo(filter:{name:\"a\" age:1}) echo(filter:{age:1 name:\"a\"})}", true},
		{"lists in another order", "{echo(list:[1,2]) echo(list:[2,1])}", false},
		{"differing arguments", "{echo(number:1) echo(number:2)}", false},
		{"an argument that is missing once", "{echo(number:1) echo}", false},
		{"equal variables", "query($v:Int){echo(number:$v) echo(number:$v)}", true},
		{"differing variables", "query($v:Int $w:Int){echo(number:$v) echo(number:$w)}", false},
		{"differing fields below equal ones", `{user(id:1){a:id} user(id:1){a:name}}`, false},
		{"differing fields deep below equal ones", `{user(id:1){self{self{a:id}}} user(id:1){self{self{a:name}}}}`, false},
		{"differing fields of types that exclude each other", "{thing{... on User{a:name} ... on Order{a:self{id}}}}", false},
		{"other fields of one type under types that exclude each other", "{thing{... on User{a:name} ... on Order{a:name}}}", true},
		{"other names of one shape under types that exclude each other", "{thing{... on User{a:id} ... on Order{a:id}}}", true},
		{"other nullability under types that exclude each other", "{thing{... on User{a:id} ... on Order{a:name}}}", false},
		{"other scalars under types that exclude each other", "{thing{... on User{a:age} ... on Order{a:total}}}", false},
		{"differing arguments under types that exclude each other", "{thing{... on User{a:friends(first:1){totalCount}} ... on Order{a:user{id}}}}", true},
		{"other shapes below types that exclude each other", "{thing{... on User{a:self{b:id}} ... on Order{a:self{b:name}}}}", false},
		{"other fields below types that exclude each other", "{thing{... on User{a:self{...on User{b:age}}} ... on Order{a:self{...on User{b:age}}}}}", true},
		{"an interface's field with one of its object's", `{node(id:1){a:id ... on User{a:id}}}`, true},
		{"an interface's field with another of its object's", `{node(id:1){a:name ... on User{a:age}}}`, false},
		{"an interface's field with another of the same shape", `{node(id:1){a:self{id} ... on User{a:self{id} } ... on Order{a:user{id}}}}`, false},
		{"a list and one item", "{thing{... on User{a:orders{id}} ... on Order{a:user{id}}}}", false},
		{"a conflict through a fragment", "{a:hello ...F} fragment F on Query{a:echo}", false},
		{"a conflict between two fragments", "{...F ...G} fragment F on Query{a:hello} fragment G on Query{a:echo}", false},
		{"a conflict inside a fragment", "{...F} fragment F on Query{a:hello a:echo}", false},
		{"a conflict between a fragment's children", "{user(id:1){...F} ...G} fragment F on User{self{a:id}} fragment G on Query{user(id:1){self{a:name}}}", false},
		{"one fragment at two places", "{a:user(id:1){...F} b:user(id:2){...F}} fragment F on User{id name}", true},
		{"the type's name twice", "{__typename __typename}", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: tt.query})
			if got := refusal == nil || refusal.Stage == executor.StageCoerce; got != tt.ok {
				t.Errorf("valid = %t, want %t (%+v)", got, tt.ok, refusal)
			}
			if theirs := libraryAccepts(t, tt.query); theirs != tt.ok {
				t.Errorf("the library says valid = %t, want %t", theirs, tt.ok)
			}
		})
	}
}

// libraryAccepts says what the library's own rules say of the document.
func libraryAccepts(tb testing.TB, query string) bool {
	tb.Helper()
	doc, err := parser.ParseQuery(&ast.Source{Input: query})
	if err != nil {
		tb.Fatal(err)
	}
	return len(validator.ValidateWithRules(executortest.New(nil, nil, nil).Schema(), doc, rules.NewDefaultRules())) == 0
}

// TestPrepare_agrees_with_the_library validates random documents by our
// rules and by the library's own, which are slow but follow the reference.
func TestPrepare_agrees_with_the_library(t *testing.T) {
	t.Parallel()
	documents := 6_000
	if testing.Short() {
		documents = 1_000
	}
	x := newExecutor(t, executor.Config{Limits: executor.Limits{Complexity: many, RootFields: many, ExpandedFields: many}})
	accepted := 0
	for seed := range documents {
		query := newWriter(uint64(seed)).document()
		_, refusal := x.Prepare(t.Context(), executor.Request{Query: query, OperationName: "A"})
		ours := refusal == nil || refusal.Stage == executor.StageCoerce || refusal.Stage == executor.StageSelect
		if refusal != nil && refusal.Stage == executor.StageLimit {
			continue
		}
		if ours {
			accepted++
		}
		if theirs := libraryAccepts(t, query); ours != theirs {
			t.Fatalf("seed %d: valid = %t, the library says %t: %s\n%+v", seed, ours, theirs, query, refusal)
		}
	}
	if accepted < documents/10 || accepted > documents*9/10 {
		t.Errorf("%d of %d documents are valid, want a mix", accepted, documents)
	}
}

const many = 1 << 30

// writer writes small random documents of which many are valid. It picks names
// from so few that fields often meet.
type writer struct {
	rand      *rand.Rand
	schema    *ast.Schema
	fragments []string // type of each
	out       strings.Builder
	variables bool
}

func newWriter(seed uint64) *writer {
	return &writer{rand: rand.New(rand.NewPCG(seed, 1)), schema: executortest.New(nil, nil, nil).Schema()}
}

func (w *writer) document() string {
	for range w.rand.IntN(4) * w.rand.IntN(2) {
		w.fragments = append(w.fragments, pick(w, "Query", "Query", "User", "Node", "Order", "Thing"))
	}
	w.variables = w.rand.IntN(6) == 0
	w.out.WriteString("query A")
	if w.variables {
		fmt.Fprintf(&w.out, "($v:%s)", pick(w, "Int", "Int!", "Int=1", "String"))
	}
	w.set("Query", 0, len(w.fragments))
	if w.rand.IntN(8) == 0 {
		w.out.WriteString(" query B")
		w.set("Query", 2, len(w.fragments))
	}
	for i, on := range w.fragments {
		fmt.Fprintf(&w.out, " fragment F%d on %s", i, on)
		w.set(on, 1, i+w.rand.IntN(20)/19) // hardly ever itself
	}
	return w.out.String()
}

func pick[T any](w *writer, from ...T) T { return from[w.rand.IntN(len(from))] }

// set writes a selection on the type that spreads fragments below a number.
func (w *writer) set(on string, depth, spreadable int) {
	w.out.WriteString("{")
	def := w.schema.Types[on]
	for range 1 + w.rand.IntN(3) {
		switch n := w.rand.IntN(10); {
		case n < 3 && spreadable > 0:
			fmt.Fprintf(&w.out, "...F%d ", w.rand.IntN(spreadable))
		case n < 5 && depth < 4 && on != "Query":
			inner := pick(w, "User", "Order", "Node")
			w.out.WriteString("...on " + inner)
			w.set(inner, depth+1, spreadable)
		default:
			w.field(def, depth, spreadable)
		}
	}
	w.out.WriteString("}")
}

func (w *writer) field(def *ast.Definition, depth, spreadable int) {
	var fields ast.FieldList
	for _, f := range def.Fields {
		leaf := w.schema.Types[f.Type.Name()].IsLeafType()
		if !strings.HasPrefix(f.Name, "__") && (leaf || depth < 4) {
			fields = append(fields, f)
		}
	}
	if len(fields) == 0 {
		w.out.WriteString("__typename ")
		return
	}
	f := fields[w.rand.IntN(len(fields))]
	w.out.WriteString(pick(w, "", "", "", "a:", "b:") + f.Name)
	w.arguments(f)
	if w.rand.IntN(90) == 0 {
		w.out.WriteString("X")
	}
	if t := w.schema.Types[f.Type.Name()]; !t.IsLeafType() {
		w.set(t.Name, depth+1, spreadable)
	}
	w.out.WriteString(" ")
}

func (w *writer) arguments(f *ast.FieldDefinition) {
	switch {
	case f.Arguments.ForName("id") != nil && f.Name != "echo":
		fmt.Fprintf(&w.out, "(id:%d)", w.rand.IntN(80)/79)
	case f.Arguments.ForName("number") != nil && w.rand.IntN(2) == 0:
		fmt.Fprintf(&w.out, "(%s)", pick(w, "number:1", "number:1", "list:[1]", "text:\"a\" number:1", w.number(), "number:1", "filter:{name:\"a\",ids:[1]}", "pick:{id:1}"))
	case f.Arguments.ForName("first") != nil && w.rand.IntN(3) == 0:
		fmt.Fprintf(&w.out, "(first:%s)", strings.TrimPrefix(w.number(), "number:"))
	}
}

func (w *writer) number() string {
	if w.variables || w.rand.IntN(80) == 0 {
		return "number:$v"
	}
	return "number:2"
}
