package plan

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// Plan is a compiled operation for certain values of the variables that @skip and @include use.
// Selections are compiled when an object of their type is first met. It is safe for concurrent use.
type Plan struct {
	types     *Types
	document  *ast.QueryDocument
	operation ast.Operation
	variables map[string]any // of the conditions
	root      *selection
	size      atomic.Int64

	mu sync.Mutex // for the children of fields
}

// selection is a selection set on an object type, with fields merged and conditions applied.
type selection struct {
	object  *Object
	fields  []*field
	waiting []*field // that may wait
	plain   []*field // that have objects and do not wait
	slots   int      // fields of waiting and plain
}

// field is a field of a selection. Its Field is nil for __typename.
type field struct {
	*Field

	collected graphql.CollectedField
	key       []byte // the alias as JSON, and a colon
	typename  []byte // the value of __typename
	slot      int    // place of its values in a level
	children  map[string]*selection
}

// Conditions returns the names of the variables that decide which fields the operation has. The
// document must be valid.
func Conditions(doc *ast.QueryDocument, op *ast.OperationDefinition) []string {
	c := conditions{fragments: map[string]bool{}, names: map[string]bool{}}
	c.visit(op.SelectionSet)
	var names []string
	for _, v := range op.VariableDefinitions {
		if c.names[v.Variable] {
			names = append(names, v.Variable)
		}
	}
	return names
}

type conditions struct{ fragments, names map[string]bool }

func (c conditions) visit(set ast.SelectionSet) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			c.add(sel.Directives)
			c.visit(sel.SelectionSet)
		case *ast.InlineFragment:
			c.add(sel.Directives)
			c.visit(sel.SelectionSet)
		case *ast.FragmentSpread:
			c.add(sel.Directives)
			if !c.fragments[sel.Name] {
				c.fragments[sel.Name] = true
				c.visit(sel.Definition.SelectionSet)
			}
		}
	}
}

func (c conditions) add(directives ast.DirectiveList) {
	for _, d := range directives {
		for _, a := range d.Arguments {
			if a.Value.Kind == ast.Variable {
				c.names[a.Value.Raw] = true
			}
		}
	}
}

// Compile returns the plan of an operation of a valid document. Variables has the values of the
// variables that Conditions returns.
func Compile(types *Types, schema *ast.Schema, doc *ast.QueryDocument, op *ast.OperationDefinition, variables map[string]any) *Plan {
	p := &Plan{types: types, document: doc, operation: op.Operation, variables: maps.Clone(variables)}
	root := schema.Query
	switch op.Operation {
	case ast.Mutation:
		root = schema.Mutation
	case ast.Subscription:
		root = schema.Subscription
	case ast.Query:
	}
	p.root = p.compile(op.SelectionSet, types.Objects[root.Name])
	return p
}

// Fields returns how many fields are compiled, which says how much memory the plan takes.
func (p *Plan) Fields() int { return int(p.size.Load()) }

func (p *Plan) compile(set ast.SelectionSet, of *Object) *selection {
	oc := &graphql.OperationContext{Variables: p.variables, Doc: p.document}
	s := &selection{object: of}
	known := map[string]bool{}
	for _, c := range graphql.CollectFields(oc, set, of.Implementors) {
		if known[c.Alias] {
			continue // the same field of two interfaces, which gqlgen writes once too
		}
		known[c.Alias] = true
		s.add(c)
	}
	p.size.Add(int64(len(s.fields)))
	return s
}

func (s *selection) add(c graphql.CollectedField) {
	f := &field{collected: c, key: append(AppendString(nil, c.Alias), ':'), Field: s.object.Fields[c.Name]}
	s.fields = append(s.fields, f)
	switch {
	case c.Name == "__typename":
		f.typename = AppendString(nil, s.object.Name)
		return
	case f.Field == nil:
		panic("plan: the tables of the types lack " + s.object.Name + "." + c.Name + ": run make generate")
	case f.Waits:
		s.waiting = append(s.waiting, f)
	case f.Type != "":
		s.plain = append(s.plain, f)
	default:
		return
	}
	f.slot = s.slots
	s.slots++
}

// below returns the selection of a field's objects of a type.
func (p *Plan) below(f *field, typ string) *selection {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := f.children[typ]
	if s == nil {
		s = p.compile(f.collected.Selections, p.types.Objects[typ])
		if f.children == nil {
			f.children = map[string]*selection{}
		}
		f.children[typ] = s
	}
	return s
}
