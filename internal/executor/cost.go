package executor

import (
	"encoding/json"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// selectionCost is the cost of a selection set: a fixed part, and a part for each item
// of the lists in it, since the size of a connection is an argument of the field above
// its lists.
type selectionCost struct{ fixed, perItem int }

// costCalculator computes what an operation costs with its variables. Every field
// costs one, a count of a connection countCost, and __typename nothing; what is selected on the items of a list costs as often as the
// list may have items. A fragment is priced once, however often it is spread.
type costCalculator struct {
	schema        *ast.Schema
	doc           *document
	vars          map[string]any
	limits        Limits
	fragmentCosts map[string]selectionCost
}

// countCost is the cost of the totalCount of a connection: it may read thousands of rows, where a
// page of fields reads a hundred.
const countCost = 100

// introspectionList is the number of items that the cost assumes for the lists of
// introspection. A full introspection has far fewer on average than the
// longest list, and reads only memory.
const introspectionList = 5

func (l Limits) checkCost(schema *ast.Schema, doc *document, op *Operation) (int, error) {
	p := costCalculator{schema: schema, doc: doc, vars: op.variables, limits: l, fragmentCosts: map[string]selectionCost{}}
	cost := p.costOfSelections(op.definition.SelectionSet).total(l.ListSize)
	if cost > l.Complexity {
		return cost, costError{fault.New(fault.TooComplex,
			"The operation costs %d, and at most %d is allowed: ask for fewer fields or shorter lists.", cost, l.Complexity), cost, l.Complexity}
	}
	return cost, nil
}

// costError is the error of an operation that costs more than is allowed.
type costError struct {
	cause       *fault.Error
	cost, limit int
}

func (e costError) Error() string { return e.cause.Error() }
func (e costError) Unwrap() error { return e.cause }

func multiplyCapped(a, b int) int {
	if a > 0 && b > maxCount/a {
		return maxCount
	}
	return a * b
}

// total returns the cost if each list has n items.
func (p selectionCost) total(n int) int { return addCapped(p.fixed, multiplyCapped(n, p.perItem)) }

func (p selectionCost) plus(q selectionCost) selectionCost {
	return selectionCost{addCapped(p.fixed, q.fixed), addCapped(p.perItem, q.perItem)}
}

func (p *costCalculator) costOfSelections(set ast.SelectionSet) selectionCost {
	var sum selectionCost
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if IsIncluded(sel.Directives, p.vars) {
				sum = sum.plus(p.costOfField(sel))
			}
		case *ast.InlineFragment:
			if IsIncluded(sel.Directives, p.vars) {
				sum = sum.plus(p.costOfSelections(sel.SelectionSet))
			}
		case *ast.FragmentSpread:
			if IsIncluded(sel.Directives, p.vars) {
				sum = sum.plus(p.costOfFragment(sel.Name))
			}
		}
	}
	return sum
}

func (p *costCalculator) costOfFragment(name string) selectionCost {
	sum, ok := p.fragmentCosts[name]
	if !ok {
		sum = p.costOfSelections(p.doc.fragments[name].SelectionSet)
		p.fragmentCosts[name] = sum
	}
	return sum
}

func (p *costCalculator) costOfField(f *ast.Field) selectionCost {
	if len(f.SelectionSet) == 0 {
		return selectionCost{fixed: costOfLeaf(f)}
	}
	sub, items := p.costOfSelections(f.SelectionSet), p.assumedListSize(f)
	size, sized := p.requestedListSize(f)
	if f.Definition.Type.Elem == nil { // an object, maybe a connection
		if sized {
			items = size
		}
		return selectionCost{fixed: addCapped(1, sub.total(items))}
	}
	each := sub.total(items)
	if sized {
		return selectionCost{fixed: addCapped(1, multiplyCapped(size, each))}
	}
	return selectionCost{fixed: 1, perItem: each}
}

func costOfLeaf(f *ast.Field) int {
	if f.Name == "__typename" {
		return 0 // clients add it to every selection
	}
	if f.Name == "totalCount" && strings.HasSuffix(f.ObjectDefinition.Name, "Connection") {
		return countCost
	}
	return 1
}

// assumedListSize is the number of items of a list without first or last.
func (p *costCalculator) assumedListSize(f *ast.Field) int {
	if strings.HasPrefix(f.Definition.Type.Name(), "__") {
		return min(introspectionList, p.limits.ListSize)
	}
	return p.limits.ListSize
}

// requestedListSize returns the number of items that first or last asks for.
func (p *costCalculator) requestedListSize(f *ast.Field) (size int, ok bool) {
	for _, name := range []string{"first", "last"} {
		arg := f.Arguments.ForName(name)
		if arg == nil {
			continue
		}
		v, err := arg.Value.Value(p.vars)
		if n, isInt := integerValue(v); err == nil && isInt {
			size, ok = max(size, min(n, p.limits.PageSize)), true
		}
	}
	return size, ok
}

func integerValue(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case int64:
		return int(v), true
	case json.Number:
		n, err := v.Int64()
		return int(n), err == nil
	}
	return 0, false
}

// IsIncluded reports whether @skip and @include leave a selection in, for these variables.
func IsIncluded(directives ast.DirectiveList, variables map[string]any) bool {
	for _, d := range directives {
		if d.Name != "skip" && d.Name != "include" {
			continue
		}
		arg := d.Arguments.ForName("if")
		if arg == nil {
			continue
		}
		v, err := arg.Value.Value(variables)
		if b, isBool := v.(bool); err == nil && isBool && b == (d.Name == "skip") {
			return false
		}
	}
	return true
}

// countRootFields returns how many fields of the root the operation resolves.
func countRootFields(doc *document, op *Operation) int {
	p := costCalculator{vars: op.variables}
	names, spread := map[string]bool{}, map[string]bool{}
	var visit func(ast.SelectionSet)
	visit = func(set ast.SelectionSet) {
		for _, sel := range set {
			switch sel := sel.(type) {
			case *ast.Field:
				if sel.Name != "__typename" && IsIncluded(sel.Directives, p.vars) {
					names[sel.Alias] = true
				}
			case *ast.InlineFragment:
				if IsIncluded(sel.Directives, p.vars) {
					visit(sel.SelectionSet)
				}
			case *ast.FragmentSpread:
				if IsIncluded(sel.Directives, p.vars) && !spread[sel.Name] {
					spread[sel.Name] = true
					visit(doc.fragments[sel.Name].SelectionSet)
				}
			}
		}
	}
	visit(op.definition.SelectionSet)
	return len(names)
}
