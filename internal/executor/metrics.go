package executor

import (
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// documentMetrics counts the parts of a document as written, and stops at the first
// limit that is exceeded. It visits each node once.
type documentMetrics struct {
	limits                      Limits
	fields, aliases, directives int
	nodes                       int // fields, values, fragments: what takes memory
	introspects                 bool
	err                         error
}

func (c *documentMetrics) measure(doc *ast.QueryDocument) error {
	c.checkLimit(fault.TooManyOperations, len(doc.Operations), c.limits.Operations, "operations")
	c.checkLimit(fault.TooManyFragments, len(doc.Fragments), c.limits.Fragments, "fragments")
	for _, op := range doc.Operations {
		c.checkName(op.Name)
		c.countVariables(op.VariableDefinitions)
		c.countDirectives(op.Directives)
		c.countSelections(op.SelectionSet)
	}
	for _, f := range doc.Fragments {
		c.checkName(f.Name)
		c.checkName(f.TypeCondition)
		if len(f.VariableDefinition) > 0 {
			c.setError(fault.New(fault.GraphQLParseFailed, "Fragments cannot have variables of their own."))
		}
		c.countDirectives(f.Directives)
		c.countSelections(f.SelectionSet)
	}
	return c.err
}

func (c *documentMetrics) countSelections(set ast.SelectionSet) {
	for _, sel := range set {
		if c.err != nil {
			return
		}
		c.nodes++
		switch sel := sel.(type) {
		case *ast.Field:
			c.countField(sel)
			c.countSelections(sel.SelectionSet)
		case *ast.InlineFragment:
			c.checkName(sel.TypeCondition)
			c.countDirectives(sel.Directives)
			c.countSelections(sel.SelectionSet)
		case *ast.FragmentSpread:
			c.checkName(sel.Name)
			c.countDirectives(sel.Directives)
		}
	}
}

func (c *documentMetrics) countField(f *ast.Field) {
	c.fields++
	c.checkLimit(fault.TooManyFields, c.fields, c.limits.Fields, "fields")
	if f.Alias != f.Name {
		c.aliases++
		c.checkLimit(fault.TooManyAliases, c.aliases, c.limits.Aliases, "aliases")
	}
	c.introspects = c.introspects || f.Name == "__schema" || f.Name == "__type"
	c.checkName(f.Name)
	c.checkName(f.Alias)
	c.countArguments(f.Arguments)
	c.countDirectives(f.Directives)
}

func (c *documentMetrics) countDirectives(directives ast.DirectiveList) {
	c.directives += len(directives)
	c.checkLimit(fault.TooManyDirectives, c.directives, c.limits.Directives, "directives")
	for _, d := range directives {
		c.checkName(d.Name)
		c.countArguments(d.Arguments)
	}
}

func (c *documentMetrics) countArguments(args ast.ArgumentList) {
	for _, a := range args {
		c.checkName(a.Name)
		c.countValue(a.Value, 0)
	}
}

func (c *documentMetrics) countVariables(defs ast.VariableDefinitionList) {
	for _, v := range defs {
		c.checkName(v.Variable)
		c.checkName(v.Type.Name())
		c.countValue(v.DefaultValue, 0)
		c.countDirectives(v.Directives)
		depth := 0
		for t := v.Type; t != nil; t = t.Elem {
			depth++
		}
		c.checkLimit(fault.TooDeep, depth, maxLiteral, "levels in a type")
	}
}

func (c *documentMetrics) countValue(v *ast.Value, depth int) {
	if v == nil || c.err != nil {
		return
	}
	c.nodes++
	c.checkLimit(fault.TooDeep, depth, maxLiteral, "levels in a value")
	switch v.Kind {
	case ast.StringValue, ast.BlockValue:
		if strings.IndexByte(v.Raw, 0) >= 0 {
			c.setError(errNullCharacter())
		}
	case ast.Variable, ast.EnumValue:
		c.checkName(v.Raw)
	case ast.IntValue, ast.FloatValue:
		if len(v.Raw) > maxName {
			c.setError(fault.New(fault.GraphQLParseFailed, "A number may have at most %d characters.", maxName))
		}
	default: // other values have no text
	}
	for _, child := range v.Children {
		c.checkName(child.Name)
		c.countValue(child.Value, depth+1)
	}
}

func (c *documentMetrics) checkName(s string) {
	if len(s) > maxName {
		c.setError(fault.New(fault.GraphQLParseFailed, "A name may have at most %d characters.", maxName))
	}
}

func (c *documentMetrics) checkLimit(code fault.Code, n, limit int, what string) {
	c.setError(checkLimit(code, n, limit, what))
}

func (c *documentMetrics) setError(err error) {
	if c.err == nil {
		c.err = err
	}
}

func errNullCharacter() error {
	return fault.New(fault.BadInput, "Text must not contain the null character.")
}
