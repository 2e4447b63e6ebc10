package executor

import (
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// census counts what a document consists of, as written, and stops at the
// first limit it passes. It visits each node once.
type census struct {
	limits                      Limits
	fields, aliases, directives int
	nodes                       int // fields, values, fragments and so on: what takes memory
	introspects                 bool
	err                         error
}

func (c *census) take(doc *ast.QueryDocument) error {
	c.check(fault.TooManyOperations, len(doc.Operations), c.limits.Operations, "operations")
	c.check(fault.TooManyFragments, len(doc.Fragments), c.limits.Fragments, "fragments")
	for _, op := range doc.Operations {
		c.name(op.Name)
		c.variables(op.VariableDefinitions)
		c.applied(op.Directives)
		c.selection(op.SelectionSet)
	}
	for _, f := range doc.Fragments {
		c.name(f.Name)
		c.name(f.TypeCondition)
		if len(f.VariableDefinition) > 0 {
			c.fail(fault.New(fault.Invalid, fault.ParseFailed, "Fragments cannot have variables of their own."))
		}
		c.applied(f.Directives)
		c.selection(f.SelectionSet)
	}
	return c.err
}

func (c *census) selection(set ast.SelectionSet) {
	for _, sel := range set {
		if c.err != nil {
			return
		}
		c.nodes++
		switch sel := sel.(type) {
		case *ast.Field:
			c.field(sel)
			c.selection(sel.SelectionSet)
		case *ast.InlineFragment:
			c.name(sel.TypeCondition)
			c.applied(sel.Directives)
			c.selection(sel.SelectionSet)
		case *ast.FragmentSpread:
			c.name(sel.Name)
			c.applied(sel.Directives)
		}
	}
}

func (c *census) field(f *ast.Field) {
	c.fields++
	c.check(fault.TooManyFields, c.fields, c.limits.Fields, "fields")
	if f.Alias != f.Name {
		c.aliases++
		c.check(fault.TooManyAliases, c.aliases, c.limits.Aliases, "aliases")
	}
	c.introspects = c.introspects || f.Name == "__schema" || f.Name == "__type"
	c.name(f.Name)
	c.name(f.Alias)
	c.arguments(f.Arguments)
	c.applied(f.Directives)
}

func (c *census) applied(directives ast.DirectiveList) {
	c.directives += len(directives)
	c.check(fault.TooManyDirectives, c.directives, c.limits.Directives, "directives")
	for _, d := range directives {
		c.name(d.Name)
		c.arguments(d.Arguments)
	}
}

func (c *census) arguments(args ast.ArgumentList) {
	for _, a := range args {
		c.name(a.Name)
		c.value(a.Value, 0)
	}
}

func (c *census) variables(defs ast.VariableDefinitionList) {
	for _, v := range defs {
		c.name(v.Variable)
		c.name(v.Type.Name())
		c.value(v.DefaultValue, 0)
		c.applied(v.Directives)
		depth := 0
		for t := v.Type; t != nil; t = t.Elem {
			depth++
		}
		c.check(fault.TooDeep, depth, maxLiteral, "levels in a type")
	}
}

func (c *census) value(v *ast.Value, depth int) {
	if v == nil || c.err != nil {
		return
	}
	c.nodes++
	c.check(fault.TooDeep, depth, maxLiteral, "levels in a value")
	switch v.Kind {
	case ast.StringValue, ast.BlockValue:
		if strings.IndexByte(v.Raw, 0) >= 0 {
			c.fail(errNull())
		}
	case ast.Variable, ast.EnumValue:
		c.name(v.Raw)
	case ast.IntValue, ast.FloatValue:
		if len(v.Raw) > maxName {
			c.fail(fault.New(fault.Invalid, fault.ParseFailed, "A number may have at most %d characters.", maxName))
		}
	default: // the others have no text of their own
	}
	for _, child := range v.Children {
		c.name(child.Name)
		c.value(child.Value, depth+1)
	}
}

func (c *census) name(s string) {
	if len(s) > maxName {
		c.fail(fault.New(fault.Invalid, fault.ParseFailed, "A name may have at most %d characters.", maxName))
	}
}

func (c *census) check(code fault.Code, n, limit int, what string) {
	c.fail(within(code, n, limit, what))
}

func (c *census) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func errNull() error {
	return fault.New(fault.Invalid, fault.BadInput, "Text must not contain the null character.")
}
