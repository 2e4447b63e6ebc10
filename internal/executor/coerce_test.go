package executor_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

func TestPrepare_coerces_variables(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, typ, value string
		want             string // what the resolver gets, as JSON; "" if refused
	}{
		{"text is a String", "String", `"a"`, `"a"`},
		{"a number is no String", "String", `5`, ""},
		{"true is no String", "String", `true`, ""},
		{"text with a null character is refused", "String", `"a\u0000"`, ""},
		{"null may be left out", "String", `null`, `null`},
		{"null is no String!", "String!", `null`, ""},
		{"an Int", "Int", `5`, `5`},
		{"text is no Int", "Int", `"5"`, ""},
		{"a fraction is no Int", "Int", `5.5`, ""},
		{"33 bits are no Int", "Int", `2147483648`, ""},
		{"a billion is an Int", "Int", `1000000000`, `1000000000`},
		{"a Float", "Float", `5.5`, `5.5`},
		{"a whole number is a Float", "Float", `5`, `5`},
		{"a number beyond all is no Float", "Float", `1e999`, ""},
		{"a Boolean", "Boolean", `true`, `true`},
		{"1 is no Boolean", "Boolean", `1`, ""},
		{"text is an ID", "ID", `"a"`, `"a"`},
		{"a whole number is an ID", "ID", `12345678901234567`, `"12345678901234567"`},
		{"a fraction is no ID", "ID", `1.5`, ""},
		{"an enum's value", "Color", `"RED"`, `"RED"`},
		{"an enum's value in other letters", "Color", `"red"`, ""},
		{"a number is no enum's value", "Color", `0`, ""},
		{"a list", "[Int!]", `[1,2]`, `[1,2]`},
		{"one item is a list of one", "[Int!]", `1`, `[1]`},
		{"null in a list of non-null", "[Int!]", `[null]`, ""},
		{"an object", "Filter", `{"name":"a","ids":[1],"not":{"age":2}}`, `{"ids":["1"],"name":"a","not":{"age":2}}`},
		{"an object with an unknown field", "Filter", `{"nam":"a"}`, ""},
		{"an object whose required field has a default", "Filter", `{}`, `{}`},
		{"an object with null for a required field", "Filter", `{"limit":null}`, ""},
		{"a list is no object", "Filter", `[]`, ""},
		{"an object of exactly one field", "Pick", `{"id":1}`, `{"id":"1"}`},
		{"two fields where one must be", "Pick", `{"id":1,"name":"a"}`, ""},
		{"null where one field must be", "Pick", `{"id":null}`, ""},
		{"no field where one must be", "Pick", `{}`, ""},
		{"any JSON", "JSON", `{"a":[1,{"b":null}]}`, `{"a":[1,{"b":null}]}`},
		{"a null character deep in any JSON", "JSON", `{"a":[{"b":"\u0000"}]}`, ""},
		{"a null character in a name of any JSON", "JSON", `{"\u0000":1}`, ""},
		{"any JSON nested too deeply", "JSON", strings.Repeat("[", 60) + strings.Repeat("]", 60), ""},
		{"an object nested too deeply", "Filter", strings.Repeat(`{"not":`, 60) + "{}" + strings.Repeat("}", 60), ""},
	}
	argument := map[string]string{"String": "text", "Int": "number", "Float": "ratio", "Boolean": "flag", "ID": "id", "Color": "color", "[Int!]": "list", "Filter": "filter", "Pick": "pick", "JSON": "any"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			query := "query($v:" + tt.typ + "){echo(" + argument[strings.TrimSuffix(tt.typ, "!")] + ":$v)}"
			got, refusal := echoed(t, executor.Request{Query: query, Variables: decode(t, `{"v":`+tt.value+`}`)})
			if tt.want != "" {
				if diff := cmp.Diff(tt.want, got); refusal != nil || diff != "" {
					t.Errorf("the resolver got (-want +got): %s, refusal %+v", diff, refusal)
				}
				return
			}
			if outcome(refusal) != string(fault.BadInput) || refusal.Stage != executor.StageCoerce {
				t.Fatalf("Prepare = %s (%+v), want %s", outcome(refusal), refusal, fault.BadInput)
			}
			message := refusal.Errors[0].Message
			if !strings.HasPrefix(message, `Variable "$v`) || strings.Contains(message, "map[") || strings.Contains(message, "json.") {
				t.Errorf("message = %q, want one that names the variable and no Go type", message)
			}
		})
	}
}

func TestPrepare_applies_defaults_of_variables(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, query, want string }{
		{"a default stands in for a value not given", `query($v:Int=7){echo(number:$v)}`, `7`},
		{"a required variable with a default may be left out", `query($v:Int!=7){echo(number:$v)}`, `7`},
		{"a variable not given is an argument not given", `query($v:Int){echo(number:$v)}`, `null`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, refusal := echoed(t, executor.Request{Query: tt.query})
			if refusal != nil || got != tt.want {
				t.Errorf("the resolver got %s (%+v), want %s", got, refusal, tt.want)
			}
		})
	}
	_, refusal := newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{Query: "query($input:Int!){echo(number:$input)}"})
	if want := `Variable "$input" is required.`; refusal == nil || refusal.Errors[0].Message != want {
		t.Errorf("Prepare = %+v, want %q", refusal, want)
	}
	_, refusal = newExecutor(t, executor.Config{}).Prepare(t.Context(), executor.Request{
		Query: "query($input:Filter){echo(filter:$input)}", Variables: decode(t, `{"input":{"not":{"age":"x"}}}`),
	})
	if diff := cmp.Diff([]string{"input", "not", "age"}, refusal.Errors[0].Extensions["path"]); diff != "" {
		t.Errorf("path of the error (-want +got): %s", diff)
	}
}

// echoed runs the request and returns the one argument that the field echo got.
func echoed(t *testing.T, req executor.Request) (string, *executor.Refusal) {
	t.Helper()
	var got any
	x := executorOver(t, echoSchema(func(args map[string]any) {
		for _, v := range args {
			got = v
		}
	}), executor.Config{})
	op, refusal := x.Prepare(t.Context(), req)
	if refusal != nil {
		return "", refusal
	}
	if resp := mustRun(t.Context(), t, x, op); len(resp.Errors) > 0 {
		t.Fatalf("Run = %v", resp.Errors)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), nil
}
