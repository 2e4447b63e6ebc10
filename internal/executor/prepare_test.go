package executor_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// outcome is how Prepare ended, in one word and a stage.
func outcome(r *executor.Refusal) string {
	if r == nil {
		return "accepted"
	}
	return fmt.Sprint(r.Errors[0].Extensions["code"])
}

func TestPrepare_checks_documents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		query string
		code  fault.Code // empty if accepted
		stage executor.Stage
	}{
		{"a plain query is accepted", "{hello}", "", 0},
		{"an empty text is no request", " \n", fault.BadRequest, executor.StageRequest},
		{"only a comment is no operation", "# hello", fault.GraphQLParseFailed, executor.StageParse},
		{"only a fragment is no operation", "fragment F on Query{hello}", fault.GraphQLParseFailed, executor.StageParse},
		{"an open brace does not parse", "{", fault.GraphQLParseFailed, executor.StageParse},
		{"text that is not UTF-8 does not parse", "{hello}#\xff", fault.GraphQLParseFailed, executor.StageParse},
		{"a null character in a literal is refused", `{echo(text:"a\u0000b")}`, fault.BadInput, executor.StageLimit},
		{"half a surrogate pair in a literal is refused", `{echo(text:"a\ud83d")}`, fault.BadInput, executor.StageLimit},
		{"the other half is refused", `{hello echo(filter:{tags:[["\"\ude00"]]})}`, fault.BadInput, executor.StageLimit},
		{"a whole pair is accepted", `{echo(text:"\ud83d\ude00")}`, "", 0},
		{"an escaped backslash is no escape", `{echo(text:"\\ud83d")}`, "", 0},
		{"a block string has no such escapes", `{echo(text:"""\ud83d " \""" \ude00""")}`, "", 0},
		{"nor has a comment", "{hello} # \"\\ud83d\"", "", 0},
		{"a literal behind a comment with a quote is read", "{hello # \"\necho(text:\"\\ud83d\")}", fault.BadInput, executor.StageLimit},
		{"a string that does not end does not parse", "{echo(text:\"a", fault.GraphQLParseFailed, executor.StageParse},
		{"a block string that does not end does not parse", "{echo(text:\"\"\"a", fault.GraphQLParseFailed, executor.StageParse},
		{"a null character in the text does not parse", "{hello\x00}", fault.GraphQLParseFailed, executor.StageParse},
		{"a fragment with variables is refused", "{...F} fragment F($a:Int) on Query{hello}", fault.GraphQLParseFailed, executor.StageLimit},
		{"a name of 10,000 characters is refused", "{" + repeat(10_000, "a") + "}", fault.GraphQLParseFailed, executor.StageLimit},
		{"a number of 10,000 digits is refused", "{echo(number:1" + repeat(10_000, "0") + ")}", fault.GraphQLParseFailed, executor.StageLimit},

		{"a document of 300 kB is too large", "{hello}#" + repeat(300_000, "x"), fault.BodyTooLarge, executor.StageLimit},
		{"10,000 equal fields are too many", "{" + repeat(10_000, "hello ") + "}", fault.TooManyTokens, executor.StageLimit},
		{"20,000 unknown fields are too many", "{" + each(20_000, "f%d ") + "}", fault.TooManyTokens, executor.StageLimit},
		{"4,000 fields are too many", "{" + repeat(4_000, "hello ") + "}", fault.TooManyFields, executor.StageLimit},
		{"10,000 aliases are too many", "{" + each(10_000, "a%d:hello ") + "}", fault.TooManyTokens, executor.StageLimit},
		{"101 aliases are too many", "{thing{...on User{" + each(101, "a%d:id ") + "}}}", fault.TooManyAliases, executor.StageLimit},
		{"31 fields at the root are too many", "{" + repeat(31, "hello ") + "}", fault.TooManyRootFields, executor.StageLimit},
		{"31 fields at the root count through fragments", "{" + repeat(31, "...F ") + "} fragment F on Query{hello}", fault.TooManyRootFields, executor.StageLimit},
		{"201 directives are too many", "{hello " + repeat(201, "@skip(if:false) ") + "}", fault.TooManyDirectives, executor.StageLimit},
		{"201 fragments are too many", "{" + each(201, "...F%d ") + "}" + each(201, "fragment F%d on Query{hello} "), fault.TooManyFragments, executor.StageLimit},
		{"2,000 fragments in a ring are too many", "{...F0}" + chain(1_200, "...F%next", 1_200), fault.TooManyFragments, executor.StageLimit},
		{"21 fragments in each other are too deep", "{...F0}" + chain(21, "...F%next", -1), fault.FragmentsTooDeep, executor.StageLimit},
		{"29 fragments that double are too deep or too many", "{...F0}" + chain(28, "...F%next ...F%next", -1), fault.FragmentsTooDeep, executor.StageLimit},
		{"15 fragments that double select too many fields", "{user(id:1){...F0}}" + chainOn(15, "User", "...F%next ...F%next", -1), fault.TooManyFields, executor.StageLimit},
		{"51 operations are too many", each(51, "query Q%d{hello} "), fault.TooManyOperations, executor.StageLimit},
		{"21 levels are too deep", `{user(id:1)` + repeat(20, "{self") + "{id}" + repeat(20, "}") + "}", fault.TooDeep, executor.StageLimit},
		{"500 levels are too deep", `{user(id:1)` + repeat(500, "{self") + "{id}" + repeat(500, "}") + "}", fault.TooDeep, executor.StageLimit},
		{"5,000 levels do not parse", repeat(5_000, "{a"), fault.GraphQLParseFailed, executor.StageParse},
		{"13 levels of a value are too deep", "{echo(any:" + repeat(14, "[") + repeat(14, "]") + ")}", fault.TooDeep, executor.StageLimit},
		{"13 levels of a type are too deep", "query($v:" + repeat(13, "[") + "Int" + repeat(13, "]") + "){hello}", fault.TooDeep, executor.StageLimit},
		{"three lists of types in each other are too deep", "{__schema{types{fields{type{fields{type{fields{name}}}}}}}}", fault.TooDeep, executor.StageLimit},
		{"50 levels of connections are too deep", "{users{nodes" + repeat(49, "{friends{nodes") + "{id}" + repeat(49, "}}") + "}}", fault.TooDeep, executor.StageLimit},
		{"pages in pages are too complex", "{users(first:100){nodes{friends(first:100){nodes{friends(first:100){nodes{id}}}}}}}", fault.TooComplex, executor.StageLimit},
		{"pages in pages are too complex by default sizes", "{users{nodes{friends{nodes{friends{nodes{friends{nodes{id}}}}}}}}}", fault.TooComplex, executor.StageLimit},

		{"an unknown field is invalid", "{helo}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"an unknown fragment is invalid", "{...F}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a fragment in itself is invalid", "{...F} fragment F on Query{hello ...F}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"fragments in a circle are invalid", "{...F} fragment F on Query{hello ...G} fragment G on Query{...F}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"fragments in a circle that nothing uses are invalid", "{hello} fragment F on Query{...F}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a fragment that nothing uses is invalid", "{hello} fragment F on Query{hello}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a fragment used only by one that is not used is invalid", "{hello} fragment F on Query{...G} fragment G on Query{hello}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a fragment used through another is accepted", "{...F} fragment F on Query{...G} fragment G on Query{hello}", "", 0},
		{"two fragments of one name are invalid", "{...F} fragment F on Query{hello} fragment F on Query{hello}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"an unknown field in a fragment is invalid", "{...F} fragment F on Query{helo}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a number is no String", "{echo(text:5)}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"text is no Int", `{echo(number:"5")}`, fault.GraphQLValidationFailed, executor.StageValidate},
		{"an Int has 32 bits", "{echo(number:2147483648)}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"the largest Int is accepted", "{echo(number:2147483647)}", "", 0},
		{"a subscription with two fields is invalid", "subscription{ticks tocks}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a subscription with two fields in a fragment is invalid", "subscription{...F} fragment F on Subscription{ticks tocks}", fault.GraphQLValidationFailed, executor.StageValidate},
		{"a subscription of introspection is invalid", "subscription{__typename}", fault.GraphQLValidationFailed, executor.StageValidate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			op, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: tt.query})
			if tt.code == "" {
				if refusal != nil || op == nil {
					t.Fatalf("Prepare refused: %v", refusal.Errors)
				}
				return
			}
			if refusal == nil || outcome(refusal) != string(tt.code) || refusal.Stage != tt.stage {
				t.Fatalf("Prepare = %s (%+v), want %s at stage %d", outcome(refusal), refusal, tt.code, tt.stage)
			}
		})
	}
}

func TestPrepare_accepts_the_introspection_of_tools(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"introspection.graphql"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		op, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: string(text)})
		if refusal != nil {
			t.Fatalf("Prepare(%s) refused: %v", name, refusal.Errors)
		}
		if limit := 25_000; op.Cost() > limit {
			t.Errorf("cost of %s = %d, want at most %d, half of what is allowed", name, op.Cost(), limit)
		}
	}
}

func TestPrepare_checks_variables(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, query string
		ok          bool
	}{
		{"defined and used", "query($v:Int){echo(number:$v)}", true},
		{"used only in a fragment", "query($v:Int){...F} fragment F on Query{echo(number:$v)}", true},
		{"used in a fragment of a fragment", "query($v:Int){...F} fragment F on Query{...G} fragment G on Query{echo(number:$v)}", true},
		{"used in a directive", "query($v:Boolean!){hello @skip(if:$v)}", true},
		{"used in a list", "query($v:Int!){echo(list:[$v])}", true},
		{"used in an object", "query($v:String){echo(filter:{name:$v})}", true},
		{"undefined", "{echo(number:$v)}", false},
		{"undefined in one of two operations", "query A($v:Int){...F} query B{...F} fragment F on Query{echo(number:$v)}", false},
		{"undefined in an object of a custom scalar", "{echo(any:{a:$v})}", false},
		{"defined twice", "query($v:Int $v:Int){echo(number:$v)}", false},
		{"unused", "query($v:Int){hello}", false},
		{"of another type", "query($v:String){echo(number:$v)}", false},
		{"of another type in a fragment", "query($v:String){...F} fragment F on Query{echo(number:$v)}", false},
		{"of a type that is no input", "query($v:User){echo(any:$v)}", false},
		{"nullable where null is not allowed", "query($v:Int){echo(list:[$v])}", false},
		{"nullable with a default where null is not allowed", "query($v:Int=1){echo(list:[$v])}", true},
		{"nullable where the field has a default", "query($v:Int){echo(filter:{limit:$v})}", true},
		{"nullable in an object of exactly one field", "query($v:ID){echo(pick:{id:$v})}", false},
		{"non-null in an object of exactly one field", "query($v:ID!){echo(pick:{id:$v})}", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := ""
			if strings.Contains(tt.query, "query A") {
				name = "A"
			}
			_, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{
				Query: tt.query, OperationName: name, Variables: map[string]any{"v": nil},
			})
			if got := refusal == nil || refusal.Stage == executor.StageCoerce; got != tt.ok {
				t.Errorf("valid = %t, want %t (%+v)", got, tt.ok, refusal)
			}
		})
	}
}

func TestPrepare_refuses_null_where_none_may_be(t *testing.T) {
	t.Parallel()
	const given = `{"v":null}`
	tests := []struct {
		name, query, variables string
		want                   string // the message; empty if accepted
	}{
		{"in an argument of a directive", "query($v:Boolean=true){hello @include(if:$v)}", given, `the argument "if" of "@include", of type "Boolean!"`},
		{"in a directive of a fragment", "query($v:Boolean=true){...F} fragment F on Query{hello @skip(if:$v)}", given, `the argument "if" of "@skip", of type "Boolean!"`},
		{"in an argument", "query($v:ID=1){node(id:$v){id}}", given, `the argument "id" of "node", of type "ID!"`},
		{"in a list", "query($v:Int=1){echo(list:[$v])}", given, `an item of the argument "list" of "echo", of type "Int!"`},
		{"in a list of an object", "query($v:ID=1){echo(filter:{ids:[$v]})}", given, `an item of the field "ids" of "Filter", of type "ID!"`},
		{"in a field with a default of its own", "query($v:Int){echo(filter:{not:{limit:$v}})}", given, `the field "limit" of "Filter", of type "Int!"`},
		{"as the variable's default", "query($v:Int=null){echo(filter:{limit:$v})}", `{}`, `the field "limit" of "Filter", of type "Int!"`},
		{"in one of two places", "query($v:Int=1){echo(number:$v list:[$v])}", given, `an item of the argument "list" of "echo", of type "Int!"`},
		{"where null may be", "query($v:Int=1){echo(number:$v)}", given, ""},
		{"left out, with a default", "query($v:Boolean=true){hello @include(if:$v)}", `{}`, ""},
		{"left out, where the field has a default", "query($v:Int){echo(filter:{limit:$v})}", `{}`, ""},
		{"in another operation", "query A($v:Int=1){echo(number:$v)} query B($v:ID=1){node(id:$v){id}}", given, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := executor.Request{Query: tt.query, Variables: decode(t, tt.variables)}
			if strings.Contains(tt.query, "query A") {
				req.OperationName = "A"
			}
			_, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), req)
			if tt.want == "" {
				if refusal != nil {
					t.Errorf("Prepare refused: %v", refusal.Errors)
				}
				return
			}
			want := `Variable "$v" must not be null: it is used as ` + tt.want + "."
			if refusal == nil || refusal.Stage != executor.StageCoerce || len(refusal.Errors) != 1 || refusal.Errors[0].Message != want {
				t.Errorf("Prepare = %+v, want %q", refusal, want)
			}
		})
	}
}

func TestPrepare_refuses_numbers_that_execution_cannot_read(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, query, want string }{
		{"an ID may have any number of digits", "{echo(id:123456789012345678901234567890)}", `"123456789012345678901234567890"`},
		{"so may a whole Float", "{echo(ratio:123456789012345678901)}", `123456789012345680000`},
		{"so may the default of a variable", "query($v:ID=12345678901234567890){echo(id:$v)}", `"12345678901234567890"`},
		{"a Float has its range", "{echo(ratio:1e999)}", ""},
		{"so has a number in any JSON", "{echo(any:[{a:1e999}])}", ""},
		{"a whole number in any JSON has 64 bits", "{echo(any:{a:12345678901234567890})}", ""},
		{"so has the default of a variable", "query($v:JSON=[12345678901234567890]){echo(any:$v)}", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, refusal := echoed(t, executor.Request{Query: tt.query})
			switch {
			case tt.want == "" && (outcome(refusal) != string(fault.GraphQLValidationFailed) || refusal.Stage != executor.StageValidate):
				t.Errorf("Prepare = %s (%+v), want %s", outcome(refusal), refusal, fault.GraphQLValidationFailed)
			case tt.want != "" && (refusal != nil || got != tt.want):
				t.Errorf("the resolver got %s (%+v), want %s", got, refusal, tt.want)
			}
		})
	}
}

func TestPrepare_bounds_errors(t *testing.T) {
	t.Parallel()
	x := newExecutor(t, executor.Config{Limits: executor.Limits{Errors: 5}})
	long := repeat(190, "x")
	_, refusal := x.Prepare(t.Context(), executor.Request{Query: "{query{" + each(500, long+"%d ") + "}}"})
	if n := len(refusal.Errors); n != 6 {
		t.Fatalf("errors = %d, want 5 and the one that says there are more", n)
	}
	if code := refusal.Errors[5].Extensions["code"]; code != string(fault.TooManyErrors) {
		t.Errorf("code of the last = %v, want %s", code, fault.TooManyErrors)
	}
	for _, q := range []string{`{echo(number:"` + repeat(50_000, "ä") + `")}`, "{hello(" + repeat(190, "a") + ":1)}", repeat(50_000, "ä")} {
		_, refusal := x.Prepare(t.Context(), executor.Request{Query: q})
		for _, e := range refusal.Errors {
			if len(e.Message) > 400 || !utf8.ValidString(e.Message) {
				t.Errorf("message has %d bytes, want at most 400 of whole characters: %q", len(e.Message), e.Message)
			}
			if e.Extensions["code"] == nil {
				t.Errorf("error without a code: %v", e)
			}
		}
	}
}

func TestPrepare_obeys_its_switches(t *testing.T) {
	t.Parallel()
	closed := executor.Config{DisableIntrospection: true, DisableSuggestions: true}
	for _, q := range []string{"{__schema{types{name}}}", "{...F} fragment F on Query{__type(name:\"User\"){name}}"} {
		if _, refusal := newExecutor(t, closed).Prepare(t.Context(), executor.Request{Query: q}); outcome(refusal) != string(fault.IntrospectionDisabled) {
			t.Errorf("Prepare(%s) = %s, want %s", q, outcome(refusal), fault.IntrospectionDisabled)
		}
	}
	for _, q := range []string{"{helo}", "{hello(tex:1)}", "{echo(tex:1)}", "{...on Usr{id}}", "{echo(color:RAD)}", "{thing}"} {
		_, refusal := newExecutor(t, closed).Prepare(t.Context(), executor.Request{Query: q})
		if refusal == nil || strings.Contains(refusal.Errors[0].Message, "Did you mean") || strings.Contains(refusal.Errors[0].Message, "GREEN") {
			t.Errorf("Prepare(%s) = %+v, want a refusal without suggestions", q, refusal)
		}
	}
	_, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: "{helo}"})
	if refusal == nil || !strings.Contains(refusal.Errors[0].Message, "Did you mean \"hello\"") {
		t.Errorf("Prepare({helo}) = %+v, want a suggestion", refusal)
	}
	for _, r := range []executor.Request{
		{Query: "{echo(color:RAD)}"}, {Query: "query($c:Color){echo(color:$c)}", Variables: map[string]any{"c": "RAD"}},
	} {
		_, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), r)
		if refusal == nil || !strings.Contains(refusal.Errors[0].Message, "RED, GREEN") {
			t.Errorf("Prepare(%s) = %+v, want the values that the enum has", r.Query, refusal)
		}
		_, refusal = newExecutor(t, closed).Prepare(t.Context(), r)
		if refusal == nil || strings.Contains(refusal.Errors[0].Message, "GREEN") {
			t.Errorf("Prepare(%s) = %+v, want a refusal that does not tell the schema", r.Query, refusal)
		}
	}
}

func TestPrepare_selects_the_operation(t *testing.T) {
	t.Parallel()
	const two = "query A{hello} mutation B{a:touch b:touch}"
	tests := []struct{ name, query, operation, want string }{
		{"the only one needs no name", "{hello}", "", "query"},
		{"the only one may be named", "query A{hello}", "A", "query"},
		{"one of two by name", two, "B", "mutation"},
		{"two and no name", two, "", string(fault.OperationResolutionFailure)},
		{"a name that is not there", two, "C", string(fault.OperationResolutionFailure)},
		{"a name for an operation without one", "{hello}", "A", string(fault.OperationResolutionFailure)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			op, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: tt.query, OperationName: tt.operation})
			got := outcome(refusal)
			if refusal == nil {
				got = string(op.Kind())
			}
			if got != tt.want {
				t.Errorf("Prepare = %s, want %s", got, tt.want)
			}
			if got == "mutation" && op.RootFields() != 2 {
				t.Errorf("RootFields = %d, want 2", op.RootFields())
			}
		})
	}
}

func TestPrepare_computes_the_cost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, query, vars string
		want              int
	}{
		{"a field costs one", "{hello}", "{}", 1},
		{"a list's items cost as often as first says", "{user(id:1){orders(first:7){id total}}}", "{}", 2 + 7*2},
		{"first counts for the items inside a connection", "{users(first:7){nodes{id name} totalCount}}", "{}", 1 + 1 + 7*2 + 100},
		{"a count costs as many as a page of fields", "{a:users(first:0){totalCount} b:users(first:0){n:totalCount}}", "{}", 2 * (1 + 100)},
		{"last counts too", "{users(last:3){nodes{id}}}", "{}", 2 + 3},
		{"a page has 20 items without first or last", "{users{nodes{id}}}", "{}", 2 + 20},
		{"a null size says nothing", "query($n:Int){users(first:$n){nodes{id}}}", `{"n":null}`, 2 + 20},
		{"a variable's size counts", "query($n:Int){users(first:$n){nodes{id}}}", `{"n":5}`, 2 + 5},
		{"a variable's default counts", "query($n:Int=6){users(first:$n){nodes{id}}}", `{}`, 2 + 6},
		{"no page is longer than the longest", "{users(first:1000000000){nodes{id}}}", "{}", 2 + 100},
		{"a negative size costs nothing", "{users(first:-5){nodes{id}}}", "{}", 2},
		{"edges and their nodes cost as items", "{users(first:2){edges{cursor node{id}}}}", "{}", 2 + 2*3},
		{"pages multiply", "{users(first:10){nodes{friends(first:10){nodes{id}}}}}", "{}", 2 + 10*(2+10)},
		{"a fragment costs where it is spread", "{users(first:2){...F}} fragment F on UserConnection{nodes{id}}", "{}", 2 + 2},
		{"what is skipped costs nothing", "query($s:Boolean!){hello @skip(if:$s) ...@include(if:false){hello}}", `{"s":true}`, 0},
		{"introspection lists are short", "{__schema{types{name}}}", "{}", 2 + 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			op, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: tt.query, Variables: decode(t, tt.vars)})
			if refusal != nil {
				t.Fatalf("Prepare refused: %v", refusal.Errors)
			}
			if op.Cost() != tt.want {
				t.Errorf("Cost = %d, want %d", op.Cost(), tt.want)
			}
		})
	}
}

func decode(tb testing.TB, text string) map[string]any {
	tb.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		tb.Fatal(err)
	}
	return v
}

func TestNew_refuses_negative_limits(t *testing.T) {
	t.Parallel()
	if _, err := executor.New(nil, executor.Config{}, nil); err == nil {
		t.Error("New without a schema gave no error")
	}
}

func FuzzPrepare(f *testing.F) {
	for _, family := range families {
		f.Add(family(3), `{"v":1}`)
	}
	x := newExecutor(f, executor.Config{})
	f.Fuzz(func(t *testing.T, query, vars string) {
		var values map[string]any
		if json.Unmarshal([]byte(vars), &values) != nil {
			values = nil
		}
		op, refusal := x.Prepare(t.Context(), executor.Request{Query: query, Variables: values})
		if (op == nil) == (refusal == nil) {
			t.Fatalf("Prepare gave %v and %v, want one of them", op, refusal)
		}
		if refusal == nil {
			return
		}
		for _, e := range refusal.Errors {
			if e.Extensions["code"] == nil || !utf8.ValidString(e.Message) {
				t.Errorf("error without code or with broken text: %+v", e)
			}
		}
	})
}

func TestPrepare_counts_what_is_resolved_at_the_root(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]int{
		"mutation{touch}": 1, "mutation{touch touch}": 1, "mutation{a:touch touch}": 2, "mutation{__typename touch}": 1, "mutation{__typename}": 0,
		"mutation{...F ...F} fragment F on Mutation{touch}": 1, "mutation{a:touch @skip(if:true) b:touch}": 1, "mutation{...@include(if:false){touch}}": 0,
	} {
		op, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: query})
		if refusal != nil || op.RootFields() != want {
			t.Errorf("%s: RootFields = %v (%+v), want %d", query, op, refusal, want)
		}
	}
}

func TestPrepare_says_what_an_operation_costs(t *testing.T) {
	t.Parallel()
	x := newExecutor(t, executor.Config{Limits: executor.Limits{Complexity: 20}})
	_, refusal := x.Prepare(t.Context(), executor.Request{Query: "{users(first:10){nodes{id name}}}"})
	if refusal == nil || refusal.Errors[0].Extensions["maxCost"] != 20 {
		t.Fatalf("Prepare = %+v, want a refusal with the limit", refusal)
	}
	if cost, ok := refusal.Errors[0].Extensions["cost"].(int); !ok || cost <= 20 {
		t.Errorf("cost = %v, want a number above the limit", refusal.Errors[0].Extensions["cost"])
	}
	plain, _ := x.Prepare(t.Context(), executor.Request{Query: "{hello}"})
	typed, refusal := x.Prepare(t.Context(), executor.Request{Query: "{__typename hello t:__typename}"})
	if refusal != nil || typed.Cost() != plain.Cost() {
		t.Errorf("with __typename: %+v, want the cost without it", refusal)
	}
}

func TestPrepare_takes_a_single_item_for_a_list_unless_it_is_strict(t *testing.T) {
	t.Parallel()
	req := executor.Request{Query: "query($v:[Int!]=7 $f:Filter){echo(list:$v filter:$f)}", Variables: decode(t, `{"f":{"ids":"1"}}`)}
	x := newExecutor(t, executor.Config{})
	if _, refusal := x.Prepare(t.Context(), req); refusal != nil {
		t.Errorf("Prepare refused: %v", refusal.Errors)
	}
	req.StrictLists = true
	if _, refusal := x.Prepare(t.Context(), req); refusal == nil || len(refusal.Errors) != 1 || refusal.Errors[0].Message != `Variable "$f.ids" must be a list.` {
		t.Errorf("Prepare = %+v, want the list of the request refused, and the default taken", refusal)
	}
}
