package executor

import (
	"github.com/vektah/gqlparser/v2/ast"
)

// variableUsage is one use of a variable.
type variableUsage struct {
	value *ast.Value
	oneOf *ast.Definition // the @oneOf input object that it is a field of, if any
	at    usagePosition
}

// usagePosition is where a document uses a value: an argument of a field or directive, or a field
// of an input object.
type usagePosition struct {
	kind, name, owner string
	item              bool // as an item of a list there
}

// String returns the position for a message.
func (p usagePosition) String() string {
	item := ""
	if p.item {
		item = "an item of "
	}
	return item + "the " + p.kind + " \"" + p.name + "\" of \"" + p.owner + "\""
}

// definitionUsages lists the variables that one definition uses itself, and the
// fragments that it spreads.
type definitionUsages struct {
	variables []variableUsage
	spreads   []string
}

// checkVariables reports variables that are not defined, not used, or used
// where their type does not fit, for each operation with the fragments it spreads.
// Its work is operations times variables used, both of which are limited.
func checkVariables(doc *document, found *errorCollector) {
	doc.nonNull = map[*ast.OperationDefinition]map[string]variableUsage{}
	fragments := make(map[string]*definitionUsages, len(doc.fragments))
	for name, f := range doc.fragments {
		u := &definitionUsages{}
		u.addDirectives(f.Directives)
		u.addSelections(f.SelectionSet)
		fragments[name] = u
	}
	for _, op := range doc.ast.Operations {
		u := &definitionUsages{}
		u.addDirectives(op.Directives)
		for _, v := range op.VariableDefinitions {
			u.addDirectives(v.Directives)
		}
		u.addSelections(op.SelectionSet)
		c := variableChecker{op: op, fragments: fragments, found: found, defined: map[string]*ast.VariableDefinition{}, used: map[string]bool{}, seen: map[string]bool{}}
		c.checkOperation(u)
		if c.nonNull != nil {
			doc.nonNull[op] = c.nonNull
		}
	}
}

func (u *definitionUsages) addSelections(set ast.SelectionSet) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			u.addArguments(sel.Arguments, sel.Name)
			u.addDirectives(sel.Directives)
			u.addSelections(sel.SelectionSet)
		case *ast.InlineFragment:
			u.addDirectives(sel.Directives)
			u.addSelections(sel.SelectionSet)
		case *ast.FragmentSpread:
			u.addDirectives(sel.Directives)
			u.spreads = append(u.spreads, sel.Name)
		}
	}
}

func (u *definitionUsages) addDirectives(directives ast.DirectiveList) {
	for _, d := range directives {
		u.addArguments(d.Arguments, "@"+d.Name)
	}
}

func (u *definitionUsages) addArguments(args ast.ArgumentList, owner string) {
	for _, a := range args {
		u.addValue(a.Value, nil, usagePosition{kind: "argument", name: a.Name, owner: owner})
	}
}

func (u *definitionUsages) addValue(v *ast.Value, oneOf *ast.Definition, at usagePosition) {
	if v.Kind == ast.Variable {
		u.variables = append(u.variables, variableUsage{v, oneOf, at})
	}
	oneOf = nil
	if v.Kind == ast.ObjectValue && v.Definition != nil && v.Definition.Directives.ForName("oneOf") != nil {
		oneOf = v.Definition
	}
	for _, child := range v.Children {
		below := at
		switch {
		case v.Kind == ast.ListValue:
			below.item = true
		case v.Definition != nil:
			below = usagePosition{kind: "field", name: child.Name, owner: v.Definition.Name}
		}
		u.addValue(child.Value, oneOf, below)
	}
}

// variableChecker checks one operation.
type variableChecker struct {
	op        *ast.OperationDefinition
	fragments map[string]*definitionUsages
	found     *errorCollector
	defined   map[string]*ast.VariableDefinition
	used      map[string]bool
	seen      map[string]bool // fragments

	// nonNull has for each nullable variable that is used where no null may be, since a default
	// stands in for a value that is left out, such a use. The null of a request is no value that
	// is left out.
	nonNull map[string]variableUsage
}

func (c *variableChecker) checkOperation(u *definitionUsages) {
	for _, v := range c.op.VariableDefinitions {
		if c.defined[v.Variable] == nil {
			c.defined[v.Variable] = v
		}
	}
	c.checkUsages(u)
	for _, v := range c.op.VariableDefinitions {
		if !c.used[v.Variable] {
			c.found.addf(v.Position, "Variable \"$%s\" is never used%s.", v.Variable, c.operationSuffix())
		}
	}
}

func (c *variableChecker) checkUsages(u *definitionUsages) {
	for _, use := range u.variables {
		def := c.defined[use.value.Raw]
		if def == nil {
			c.found.addf(use.value.Position, "Variable \"$%s\" is not defined%s.", use.value.Raw, c.operationSuffix())
			continue
		}
		c.used[use.value.Raw] = true
		c.checkType(use, def)
	}
	for _, name := range u.spreads {
		if next := c.fragments[name]; next != nil && !c.seen[name] {
			c.seen[name] = true
			c.checkUsages(next)
		}
	}
}

// checkType checks that the variable's type fits its use.
func (c *variableChecker) checkType(use variableUsage, def *ast.VariableDefinition) {
	v := use.value
	if use.oneOf != nil && !def.Type.NonNull {
		c.found.addf(v.Position, "Variable \"$%s\" of type %q must be non-null, since %q takes exactly one field.", v.Raw, def.Type, use.oneOf.Name)
	}
	if v.ExpectedType == nil {
		return
	}
	expected := *v.ExpectedType
	if expected.NonNull && !def.Type.NonNull {
		c.forbidNull(use)
	}
	hasDefault := def.DefaultValue != nil && def.DefaultValue.Kind != ast.NullValue
	if hasDefault || v.ExpectedTypeHasDefault {
		expected.NonNull = false // the default replaces a value that is left out
	}
	if !def.Type.IsCompatible(&expected) {
		c.found.addf(v.Position, "Variable \"$%s\" of type %q is used where %q is expected.", v.Raw, def.Type, v.ExpectedType)
	}
}

func (c *variableChecker) forbidNull(use variableUsage) {
	if c.nonNull == nil {
		c.nonNull = map[string]variableUsage{}
	}
	if _, ok := c.nonNull[use.value.Raw]; !ok {
		c.nonNull[use.value.Raw] = use
	}
}

func (c *variableChecker) operationSuffix() string {
	if c.op.Name == "" {
		return ""
	}
	return " in operation \"" + c.op.Name + "\""
}
