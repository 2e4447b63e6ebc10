package plan_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/backplane-dev/backplane/internal/executor/plan"
)

// sdl is the schema of the tests. Fields with @waits have resolvers, others accessors.
const sdl = `
directive @waits on FIELD_DEFINITION
interface Node { id: String! }
type Item implements Node { id: String! name: String waiting: String @waits size: Size price: Size! parts: [Item!] next: Item @waits sure: Item! @waits batched: Item @waits any(n: Int = 7): String @waits }
type Size implements Node { id: String! unit: String }
union Thing = Item | Size
type Query { item: Item @waits sure: Item! @waits items: [Item!] @waits holes: [Item]! @waits thing: Thing @waits things: [Node!]! @waits text: String! @waits other: Item @waits }
type Mutation { first: Item @waits second: Item @waits }
type Subscription { events: Item! @waits broken: Item! @waits }
`

var schema = gqlparser.MustLoadSchema(&ast.Source{Input: sdl})

// object is a value of an object type. A field is a value or a function.
type object map[string]any

// fixture runs operations on the schema.
type fixture struct {
	root  object
	hooks plan.Hooks
	field graphql.FieldMiddleware
	first graphql.RootFieldMiddleware
	types *plan.Types
}

func newFixture(root object) *fixture {
	f := &fixture{root: root}
	f.hooks = plan.Hooks{
		AroundLevel: func(ctx context.Context, _ []any) context.Context { return ctx },
		CountText:   func(context.Context, int64) bool { return true },
		Ended:       func(context.Context) bool { return false },
	}
	f.field = func(ctx context.Context, next graphql.Resolver) (any, error) { return next(ctx) }
	f.first = func(ctx context.Context, next graphql.RootResolver) graphql.Marshaler { return next(ctx) }
	f.types = f.newTypes()
	return f
}

func (f *fixture) newTypes() *plan.Types {
	types := &plan.Types{Objects: map[string]*plan.Object{}, Abstract: map[string]func(any) (string, any){}}
	types.NewExecution = func(oc *graphql.OperationContext) any { return oc }
	for name, def := range schema.Types {
		if strings.HasPrefix(name, "__") {
			continue
		}
		switch def.Kind {
		case ast.Object:
			o := &plan.Object{Name: name, Implementors: append([]string{name}, def.Interfaces...), Fields: map[string]*plan.Field{}}
			for _, field := range def.Fields {
				o.Fields[field.Name] = f.newField(def, field)
			}
			types.Objects[name] = o
		case ast.Interface, ast.Union:
			types.Abstract[name] = func(v any) (string, any) {
				o := v.(object)
				if o["kind"] == nil {
					return "Item", nil // as a nil pointer in an interface
				}
				return o["kind"].(string), o
			}
		default:
		}
	}
	return types
}

// value returns the value of a field, which is a function of it or stands in the object.
func (f *fixture) value(ctx context.Context, obj any, name string) (any, error) {
	o, ok := obj.(object)
	if !ok {
		o = f.root
	}
	switch v := o[name].(type) {
	case func(context.Context) (any, error):
		return v(ctx)
	case func() any:
		return v(), nil
	default:
		return v, nil
	}
}

func (f *fixture) newField(def *ast.Definition, field *ast.FieldDefinition) *plan.Field {
	waits := field.Directives.ForName("waits") != nil
	p := &plan.Field{Waits: waits, Resolver: waits, Method: waits, NonNull: field.Type.NonNull, GQL: field.Type.String()}
	fieldContext := func(ctx context.Context, c graphql.CollectedField) (*graphql.FieldContext, error) {
		oc := graphql.GetOperationContext(ctx)
		return &graphql.FieldContext{Object: def.Name, Field: c, Args: c.ArgumentMap(oc.Variables), IsResolver: waits}, nil
	}
	if schema.Types[field.Type.Name()].IsLeafType() {
		if !waits {
			p.Text = true
			p.Append = func(b []byte, obj any) ([]byte, bool) {
				v, _ := f.value(context.Background(), obj, field.Name)
				if s, ok := v.(string); ok {
					return plan.AppendString(b, s), true
				}
				return append(b, "null"...), !field.Type.NonNull
			}
		}
		p.Marshal = func(ctx context.Context, ec any, c graphql.CollectedField, obj any) graphql.Marshaler {
			get := func(ctx context.Context) (any, error) { return f.value(ctx, obj, field.Name) }
			return graphql.ResolveField(ctx, ec.(*graphql.OperationContext), c, fieldContext, get, nil,
				func(_ context.Context, _ ast.SelectionSet, v string) graphql.Marshaler {
					return graphql.MarshalString(v)
				}, true, field.Type.NonNull)
		}
		return p
	}
	p.Type, p.List = field.Type.Name(), field.Type.Elem != nil
	p.ItemNonNull = p.List && field.Type.Elem.NonNull
	switch {
	case def.Name == "Subscription":
		p.Stream = func(ctx context.Context, ec any, c graphql.CollectedField, write plan.EventWriter) func(context.Context) graphql.Marshaler {
			get := func(ctx context.Context) (any, error) { return f.value(ctx, nil, field.Name) }
			return graphql.ResolveFieldStream(ctx, ec.(*graphql.OperationContext), c, fieldContext, get, nil,
				func(ctx context.Context, _ ast.SelectionSet, v object) graphql.Marshaler {
					return write(ctx, func(to *plan.Values) { addObjects(v, to) })
				}, true, true)
		}
	case waits:
		p.Resolve = func(ctx context.Context, ec any, c graphql.CollectedField, obj any, to *plan.Values) {
			get := func(ctx context.Context) (any, error) { return f.value(ctx, obj, field.Name) }
			graphql.ResolveField(ctx, ec.(*graphql.OperationContext), c, fieldContext, get, nil,
				func(_ context.Context, _ ast.SelectionSet, v any) graphql.Marshaler {
					addObjects(v, to)
					return plan.Read
				}, true, field.Type.NonNull)
		}
	default:
		p.Read = func(obj any, to *plan.Values) {
			v, _ := f.value(context.Background(), obj, field.Name)
			addObjects(v, to)
		}
	}
	return p
}

func addObjects(v any, to *plan.Values) {
	switch v := v.(type) {
	case []object:
		to.List(len(v))
		for _, o := range v {
			if o == nil {
				to.Item(nil)
			} else {
				to.Item(o)
			}
		}
	case object:
		if v == nil {
			to.Null()
		} else {
			to.Object(v)
		}
	default:
		to.Null()
	}
}

// start starts an operation; the context has the errors of its responses.
func (f *fixture) start(t testing.TB, query string, vars map[string]any) (context.Context, graphql.ResponseHandler) {
	t.Helper()
	doc, errs := gqlparser.LoadQueryWithRules(schema, query, rules.NewDefaultRules())
	if errs != nil {
		t.Fatal(errs)
	}
	op := doc.Operations[0]
	conditions := map[string]any{}
	for _, name := range plan.Conditions(doc, op) {
		conditions[name] = vars[name]
	}
	p := plan.Compile(f.types, schema, doc, op, conditions)
	ctx := graphql.WithOperationContext(t.Context(), &graphql.OperationContext{
		Doc: doc, Operation: op, Variables: vars, ResolverMiddleware: f.field, RootResolverMiddleware: f.first,
		RecoverFunc: func(_ context.Context, cause any) error { return fmt.Errorf("panic: %v", cause) },
	})
	ctx = graphql.WithResponseContext(ctx, graphql.DefaultErrorPresenter, func(_ context.Context, cause any) error { return fmt.Errorf("panic: %v", cause) })
	return ctx, p.Exec(ctx, f.hooks)
}

// run returns the data and the sorted errors of a query or mutation.
func (f *fixture) run(t testing.TB, query string, vars map[string]any) (data string, errs []string) {
	t.Helper()
	ctx, next := f.start(t, query, vars)
	resp := next(ctx)
	if next(ctx) != nil {
		t.Error("there is a second response")
	}
	if !json.Valid(resp.Data) {
		t.Errorf("%s gave %s", query, resp.Data)
	}
	return string(resp.Data), errorsOf(ctx)
}

func errorsOf(ctx context.Context) (all []string) {
	for _, e := range graphql.GetErrors(ctx) {
		text := e.Path.String() + ": " + e.Message
		if len(e.Locations) > 0 {
			text += fmt.Sprintf(" at %d:%d", e.Locations[0].Line, e.Locations[0].Column)
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}
