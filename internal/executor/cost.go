package executor

import (
	"encoding/json"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// price is the cost of a selection set: some of it once, and some for each
// item of the lists in it, since a connection is told its size above the lists
// that hold its items.
type price struct{ once, perItem int }

// pricing computes what an operation costs with its variables. Every field
// costs one; what is selected on the items of a list costs as often as the
// list may have items. A fragment is priced once, however often it is spread.
type pricing struct {
	schema *ast.Schema
	doc    *document
	vars   map[string]any
	limits Limits
	done   map[string]price
}

// introspectionList is how many items the cost assumes for the lists of
// introspection. A full introspection has far fewer on average than the
// longest list, and reads only memory.
const introspectionList = 5

func (l Limits) checkCost(schema *ast.Schema, doc *document, op *Operation) (int, error) {
	p := pricing{schema: schema, doc: doc, vars: op.variables, limits: l, done: map[string]price{}}
	cost := p.of(op.definition.SelectionSet).with(l.ListSize)
	if cost > l.Complexity {
		return cost, fault.New(fault.Invalid, fault.TooComplex,
			"The operation costs %d, and at most %d is allowed: ask for fewer fields or shorter lists.", cost, l.Complexity)
	}
	return cost, nil
}

func multiply(a, b int) int {
	if a > 0 && b > many/a {
		return many
	}
	return a * b
}

// with returns the cost if each list holds n items.
func (p price) with(n int) int { return add(p.once, multiply(n, p.perItem)) }

func (p price) plus(q price) price { return price{add(p.once, q.once), add(p.perItem, q.perItem)} }

func (p *pricing) of(set ast.SelectionSet) price {
	var sum price
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if p.included(sel.Directives) {
				sum = sum.plus(p.field(sel))
			}
		case *ast.InlineFragment:
			if p.included(sel.Directives) {
				sum = sum.plus(p.of(sel.SelectionSet))
			}
		case *ast.FragmentSpread:
			if p.included(sel.Directives) {
				sum = sum.plus(p.fragment(sel.Name))
			}
		}
	}
	return sum
}

func (p *pricing) fragment(name string) price {
	sum, ok := p.done[name]
	if !ok {
		sum = p.of(p.doc.fragments[name].SelectionSet)
		p.done[name] = sum
	}
	return sum
}

func (p *pricing) field(f *ast.Field) price {
	if len(f.SelectionSet) == 0 {
		return price{once: 1}
	}
	sub, items := p.of(f.SelectionSet), p.assumed(f)
	size, sized := p.size(f)
	if f.Definition.Type.Elem == nil { // an object, maybe a connection
		if sized {
			items = size
		}
		return price{once: add(1, sub.with(items))}
	}
	each := sub.with(items)
	if sized {
		return price{once: add(1, multiply(size, each))}
	}
	return price{once: 1, perItem: each}
}

// assumed is how many items a list has of which nobody said.
func (p *pricing) assumed(f *ast.Field) int {
	if strings.HasPrefix(f.Definition.Type.Name(), "__") {
		return min(introspectionList, p.limits.ListSize)
	}
	return p.limits.ListSize
}

// size returns how many items the field is asked for by first or last.
func (p *pricing) size(f *ast.Field) (size int, ok bool) {
	for _, name := range []string{"first", "last"} {
		arg := f.Arguments.ForName(name)
		if arg == nil {
			continue
		}
		v, err := arg.Value.Value(p.vars)
		if n, isInt := integer(v); err == nil && isInt {
			size, ok = max(size, min(n, p.limits.PageSize)), true
		}
	}
	return size, ok
}

func integer(v any) (int, bool) {
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

// included reports whether the variables leave the selection in.
func (p *pricing) included(directives ast.DirectiveList) bool {
	for _, d := range directives {
		if d.Name != "skip" && d.Name != "include" {
			continue
		}
		arg := d.Arguments.ForName("if")
		if arg == nil {
			continue
		}
		v, err := arg.Value.Value(p.vars)
		if b, isBool := v.(bool); err == nil && isBool && b == (d.Name == "skip") {
			return false
		}
	}
	return true
}
