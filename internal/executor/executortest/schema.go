// Package executortest owns a small executable schema for the tests of what
// executes GraphQL. It interprets the schema over plain Go values, so that the
// tests need neither generated code nor a database.
package executortest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

// SDL is the schema: a shop in miniature, with an interface whose objects nest
// in each other and a root field for each way in which a resolver can end.
const SDL = `
scalar JSON
enum Color { RED GREEN }
interface Node { id: ID! self: Node name: String }
type User implements Node { id: ID! self: Node name: String age: Int friends(first: Int, last: Int, after: String): UserConnection! orders(first: Int, last: Int): [Order!]! }
type Order implements Node { id: ID! self: Node name: String total: Float! user: User! items: [Item!]! }
type Item { sku: String! quantity: Int! product(region: String): Product }
type Product { sku: String! price: Int! colors: [Color!]! }
type UserConnection { nodes: [User!]! edges: [UserEdge!]! pageInfo: PageInfo! totalCount: Int! }
type UserEdge { cursor: String! node: User! }
type PageInfo { hasNextPage: Boolean! endCursor: String }
union Thing = User | Order
input Filter { name: String age: Int ids: [ID!] color: Color tags: [[String!]!] any: JSON not: Filter limit: Int! = 3 }
input Pick @oneOf { id: ID name: String }
type Query {
  query: Query
  hello: String!
  echo(text: String, number: Int, ratio: Float, flag: Boolean, id: ID, color: Color, list: [Int!], filter: Filter, pick: Pick, any: JSON): String
  node(id: ID!): Node
  thing: Thing
  user(id: ID!): User
  users(first: Int, last: Int, after: String): UserConnection!
  fail: String
  panic: String
  wait: String
  many: [Faulty]
}
type Faulty { fail: String }
type Mutation { touch(input: Filter): String! }
type Subscription { ticks(upTo: Int): Int! tocks: Int! }
`

// Resolver resolves one field for given arguments.
type Resolver func(ctx context.Context, args map[string]any) (any, error)

// Object is a value whose fields are values, Resolvers or Objects. The key
// __typename names its type where an interface or union is expected.
type Object map[string]any

// Schema is a graphql.ExecutableSchema over Objects.
type Schema struct {
	ast                           *ast.Schema
	Query, Mutation, Subscription Object
}

// New returns the schema of SDL with the given objects as its roots.
func New(query, mutation, subscription Object) *Schema {
	return &Schema{gqlparser.MustLoadSchema(&ast.Source{Name: "test", Input: SDL}), query, mutation, subscription}
}

// Schema implements graphql.ExecutableSchema.
func (s *Schema) Schema() *ast.Schema { return s.ast }

// Complexity implements graphql.ExecutableSchema; there are no custom costs.
func (s *Schema) Complexity(context.Context, string, string, int, map[string]any) (int, bool) {
	return 0, false
}

// Exec implements graphql.ExecutableSchema. A subscription yields each item of
// the []any or chan any that its field resolves to; of a channel until it is
// closed or the operation's context ends. An item may be a Resolver, which runs
// under the context of its response.
func (s *Schema) Exec(ctx context.Context) graphql.ResponseHandler {
	op := graphql.GetOperationContext(ctx)
	switch op.Operation.Operation {
	case ast.Mutation:
		return s.once(op, s.ast.Mutation, s.Mutation)
	case ast.Subscription:
		return s.stream(ctx, op)
	default:
		return s.once(op, s.ast.Query, s.Query)
	}
}

func (s *Schema) once(op *graphql.OperationContext, def *ast.Definition, root Object) graphql.ResponseHandler {
	done := false
	return func(ctx context.Context) *graphql.Response {
		if done {
			return nil
		}
		done = true
		return &graphql.Response{Data: s.object(ctx, op, def, op.Operation.SelectionSet, root)}
	}
}

func (s *Schema) stream(ctx context.Context, op *graphql.OperationContext) graphql.ResponseHandler {
	f := graphql.CollectFields(op, op.Operation.SelectionSet, nil)[0]
	items, err := s.resolve(ctx, op, f, s.Subscription[f.Name])
	if err != nil {
		graphql.AddError(ctx, err)
		return nil
	}
	next := source(ctx, items)
	return func(ctx context.Context) *graphql.Response {
		item, ok := next()
		if !ok {
			return nil
		}
		return &graphql.Response{Data: s.object(ctx, op, s.ast.Subscription, op.Operation.SelectionSet, Object{f.Name: item})}
	}
}

// source returns what yields the items of a subscription.
func source(ctx context.Context, items any) func() (item any, ok bool) {
	if ch, live := items.(chan any); live {
		return func() (item any, ok bool) {
			select {
			case item, ok = <-ch:
				return item, ok
			case <-ctx.Done():
				return nil, false
			}
		}
	}
	rest := items.([]any)
	return func() (item any, ok bool) {
		if len(rest) == 0 {
			return nil, false
		}
		item, rest = rest[0], rest[1:]
		return item, true
	}
}

func (s *Schema) object(ctx context.Context, op *graphql.OperationContext, def *ast.Definition, set ast.SelectionSet, obj Object) json.RawMessage {
	var out bytes.Buffer
	sep := byte('{')
	for _, f := range graphql.CollectFields(op, set, append([]string{def.Name}, def.Interfaces...)) {
		fmt.Fprintf(&out, "%c%q:", sep, f.Alias)
		sep = ','
		ctx := graphql.WithFieldContext(ctx, &graphql.FieldContext{Object: def.Name, Field: f})
		out.Write(s.field(ctx, op, def, f, obj))
	}
	if sep == '{' {
		out.WriteByte('{')
	}
	out.WriteByte('}')
	return out.Bytes()
}

func (s *Schema) field(ctx context.Context, op *graphql.OperationContext, def *ast.Definition, f graphql.CollectedField, obj Object) json.RawMessage {
	value := obj[f.Name]
	switch f.Name {
	case "__typename":
		value = def.Name
	case "__type":
		value = Resolver(func(_ context.Context, args map[string]any) (any, error) {
			if t := s.ast.Types[args["name"].(string)]; t != nil {
				return Object{"name": t.Name}, nil
			}
			return nil, nil
		})
	}
	v, err := s.resolve(ctx, op, f, value)
	if err != nil {
		graphql.AddError(ctx, err)
		return json.RawMessage("null")
	}
	return s.complete(ctx, op, f.Definition.Type, f.Selections, v)
}

func (s *Schema) resolve(ctx context.Context, op *graphql.OperationContext, f graphql.CollectedField, value any) (v any, err error) {
	resolver, ok := value.(Resolver)
	if !ok {
		return value, nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = op.RecoverFunc(ctx, r)
		}
	}()
	return op.ResolverMiddleware(ctx, func(ctx context.Context) (any, error) {
		return resolver(ctx, f.ArgumentMap(op.Variables))
	})
}

func (s *Schema) complete(ctx context.Context, op *graphql.OperationContext, t *ast.Type, set ast.SelectionSet, v any) json.RawMessage {
	switch v := v.(type) {
	case Object:
		def := s.ast.Types[t.Name()]
		if name, ok := v["__typename"].(string); ok {
			def = s.ast.Types[name]
		}
		return s.object(ctx, op, def, set, v)
	case []any:
		items := make([]json.RawMessage, len(v))
		for i := range v {
			ctx := graphql.WithFieldContext(ctx, &graphql.FieldContext{Index: &i})
			items[i] = s.complete(ctx, op, t.Elem, set, v[i])
		}
		return marshal(items)
	default:
		return marshal(v)
	}
}

func marshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
