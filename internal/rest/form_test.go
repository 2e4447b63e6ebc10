package rest

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// formRoute is a route whose body has one property of each kind.
func formRoute(t testing.TB) (*route, *ast.Schema) {
	t.Helper()
	schema, err := gqlparser.LoadSchema(&ast.Source{Input: `
		input Item { sku: String! quantity: Int! madeOf: [String!] }
		input Money { amount: String! currency: String! }
		scalar StringMap
		type Query { f(name: String, count: Int, ok: Boolean, tags: [String!], sizes: [Int!], price: Money, items: [Item!], metadata: StringMap): Int }`})
	if err != nil {
		t.Fatal(err)
	}
	rt := &route{}
	for _, arg := range schema.Query.Fields.ForName("f").Arguments {
		rt.params = append(rt.params, &param{VariableDefinition: &ast.VariableDefinition{Variable: arg.Name, Type: arg.Type}, from: fromDirective{Body: []string{arg.Name}}})
	}
	return rt, schema
}

func TestParseForm_reads_what_JSON_would_have(t *testing.T) {
	t.Parallel()
	rt, schema := formRoute(t)
	for form, want := range map[string]string{
		`name=a+b&count=2&ok=true`:                   `{"name": "a b", "count": 2, "ok": true}`,
		`name=&name%32=x`:                            `{"name": "", "name2": "x"}`,
		`count=two&ok=on`:                            `{"count": "two", "ok": "on"}`,
		`name=1&name=2`:                              `{"name": ["1", "2"]}`,
		`tags=a&tags=b,c`:                            `{"tags": ["a", "b", "c"]}`,
		`tags[]=a&tags[]=b&sizes[]=1`:                `{"tags": ["a", "b"], "sizes": [1]}`,
		`tags[1]=b,c&tags[0]=a`:                      `{"tags": ["a", "b,c"]}`,
		`price[amount]=1.00&price[currency]=EUR`:     `{"price": {"amount": "1.00", "currency": "EUR"}}`,
		`metadata[zone]=1`:                           `{"metadata": {"zone": "1"}}`,
		`items[0][sku]=A&items[0][quantity]=1`:       `{"items": [{"sku": "A", "quantity": 1}]}`,
		`items[999999][sku]=B&items[2][made_of]=x`:   `{"items": [{"made_of": ["x"]}, {"sku": "B"}]}`,
		`items[a][sku]=A`:                            `{"items": {"a": {"sku": "A"}}}`,
		`count[x]=1&unknown[0]=1&price=1&items=text`: `{"count": {"x": "1"}, "unknown": {"0": "1"}, "price": "1", "items": ["text"]}`,
	} {
		body, err := rt.parseForm(schema, []byte(form))
		if err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		got, _ := json.Marshal(body)
		var a, b any
		if err := json.Unmarshal([]byte(want), &a); err != nil {
			t.Fatal(want, err)
		}
		_ = json.Unmarshal(got, &b)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%s (-want +got):\n%s", form, diff)
		}
	}
}

func TestParseForm_refuses_what_can_be_read_in_two_ways(t *testing.T) {
	t.Parallel()
	rt, schema := formRoute(t)
	for _, form := range []string{
		`%zz`, `name=%ff`, `%ff=x`, `=x`, `[a]=x`, `a]=x`, `a[=x`, `a[b=x`, `a[b]c=x`, `a[b[c]]=x`, `a[][b]=x`, `a[b][]c=x`, `a[1][1][1][1][1][1][1][1]=x`,
		`price=1&price[amount]=2`, `tags=a&tags[]=b`, `tags[0]=a&tags=b`, `{"name": "a"}`, ` {"name": "a"}`, `a;b=c`,
	} {
		if body, err := rt.parseForm(schema, []byte(form)); err == nil {
			t.Errorf("%s is read as %v, want an error", form, body)
		}
	}
}

func FuzzParseForm(f *testing.F) {
	f.Add(`items[0][sku]=A&items[0][quantity]=1&price[amount]=1&tags=a,b&tags=c`)
	f.Add(`a[b][c]=1&a[]=2`)
	f.Fuzz(func(t *testing.T, form string) {
		rt, schema := formRoute(t)
		body, err := rt.parseForm(schema, []byte(form))
		if err != nil {
			if fault.From(err).Code == fault.Internal {
				t.Errorf("%q is an internal error: %v", form, err)
			}
			return
		}
		if _, err := json.Marshal(body); err != nil {
			t.Errorf("%q is read as %v, which is no JSON: %v", form, body, err)
		}
	})
}
