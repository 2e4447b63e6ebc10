package executor

import (
	"github.com/vektah/gqlparser/v2/ast"
)

// usage is one place where a variable is used.
type usage struct {
	value *ast.Value
	oneOf *ast.Definition // the input object with exactly one field that it is given to, if any
}

// usages lists the variables that one definition uses itself, and the
// fragments that it spreads.
type usages struct {
	variables []usage
	spreads   []string
}

// checkVariables reports variables that are not defined, not used, or used
// where their type does not fit, for each operation with all that it spreads.
// Its work is operations times variables used, both of which are limited.
func checkVariables(doc *document, found *findings) {
	fragments := make(map[string]*usages, len(doc.fragments))
	for name, f := range doc.fragments {
		u := &usages{}
		u.directives(f.Directives)
		u.selection(f.SelectionSet)
		fragments[name] = u
	}
	for _, op := range doc.ast.Operations {
		u := &usages{}
		u.directives(op.Directives)
		for _, v := range op.VariableDefinitions {
			u.directives(v.Directives)
		}
		u.selection(op.SelectionSet)
		c := variableCheck{op: op, fragments: fragments, found: found, defined: map[string]*ast.VariableDefinition{}, used: map[string]bool{}, seen: map[string]bool{}}
		c.run(u)
	}
}

func (u *usages) selection(set ast.SelectionSet) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			u.arguments(sel.Arguments)
			u.directives(sel.Directives)
			u.selection(sel.SelectionSet)
		case *ast.InlineFragment:
			u.directives(sel.Directives)
			u.selection(sel.SelectionSet)
		case *ast.FragmentSpread:
			u.directives(sel.Directives)
			u.spreads = append(u.spreads, sel.Name)
		}
	}
}

func (u *usages) directives(directives ast.DirectiveList) {
	for _, d := range directives {
		u.arguments(d.Arguments)
	}
}

func (u *usages) arguments(args ast.ArgumentList) {
	for _, a := range args {
		u.value(a.Value, nil)
	}
}

func (u *usages) value(v *ast.Value, oneOf *ast.Definition) {
	if v.Kind == ast.Variable {
		u.variables = append(u.variables, usage{v, oneOf})
	}
	oneOf = nil
	if v.Kind == ast.ObjectValue && v.Definition != nil && v.Definition.Directives.ForName("oneOf") != nil {
		oneOf = v.Definition
	}
	for _, child := range v.Children {
		u.value(child.Value, oneOf)
	}
}

// variableCheck checks one operation.
type variableCheck struct {
	op        *ast.OperationDefinition
	fragments map[string]*usages
	found     *findings
	defined   map[string]*ast.VariableDefinition
	used      map[string]bool
	seen      map[string]bool // fragments
}

func (c *variableCheck) run(u *usages) {
	for _, v := range c.op.VariableDefinitions {
		if c.defined[v.Variable] == nil {
			c.defined[v.Variable] = v
		}
	}
	c.check(u)
	for _, v := range c.op.VariableDefinitions {
		if !c.used[v.Variable] {
			c.found.addf(v.Position, "Variable \"$%s\" is never used%s.", v.Variable, c.where())
		}
	}
}

func (c *variableCheck) check(u *usages) {
	for _, use := range u.variables {
		def := c.defined[use.value.Raw]
		if def == nil {
			c.found.addf(use.value.Position, "Variable \"$%s\" is not defined%s.", use.value.Raw, c.where())
			continue
		}
		c.used[use.value.Raw] = true
		c.position(use, def)
	}
	for _, name := range u.spreads {
		if next := c.fragments[name]; next != nil && !c.seen[name] {
			c.seen[name] = true
			c.check(next)
		}
	}
}

// position checks that the variable's type fits where it is used.
func (c *variableCheck) position(use usage, def *ast.VariableDefinition) {
	v := use.value
	if use.oneOf != nil && !def.Type.NonNull {
		c.found.addf(v.Position, "Variable \"$%s\" of type %q must be non-null, since %q takes exactly one field.", v.Raw, def.Type, use.oneOf.Name)
	}
	if v.ExpectedType == nil {
		return
	}
	expected := *v.ExpectedType
	hasDefault := def.DefaultValue != nil && def.DefaultValue.Kind != ast.NullValue
	if hasDefault || v.ExpectedTypeHasDefault {
		expected.NonNull = false // the default stands in for null
	}
	if !def.Type.IsCompatible(&expected) {
		c.found.addf(v.Position, "Variable \"$%s\" of type %q is used where %q is expected.", v.Raw, def.Type, v.ExpectedType)
	}
}

func (c *variableCheck) where() string {
	if c.op.Name == "" {
		return ""
	}
	return " in operation \"" + c.op.Name + "\""
}
