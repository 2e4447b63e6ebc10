package executor

import (
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/fault"
)

// merging checks that fields which answer under one name can be merged, as the
// specification's FieldsInSetCanMerge defines it, without comparing all pairs.
//
// All fields of one place in the response are looked at together, as in
// Sangria's algorithm: both relations that must hold between any two of them
// are equivalences, so comparing each with the first is enough. The shapes of
// the answers must agree among all fields; names and arguments only among
// fields whose parents can be the same object. Places never outnumber the
// fields of the expanded operation, which are limited; only the second check
// may visit a field once for each type it can be selected on, and has a budget.
type merging struct {
	schema *ast.Schema
	doc    *document
	found  *findings
	budget int
	failed map[*ast.Field]bool // fields in an error already
}

// checkMerging reports the fields of every operation that cannot be merged.
func checkMerging(schema *ast.Schema, doc *document, limits Limits, found *findings) {
	m := &merging{schema: schema, doc: doc, found: found, budget: 2 * limits.ExpandedFields, failed: map[*ast.Field]bool{}}
	for _, op := range doc.ast.Operations {
		root := doc.gather([]ast.SelectionSet{op.SelectionSet})
		m.shapes(root)
		m.identities(root)
	}
}

// gather returns the fields of the sets and of all fragments in them, each
// named fragment once.
func (d *document) gather(sets []ast.SelectionSet) []*ast.Field {
	var fields []*ast.Field
	var seen map[string]bool
	var visit func(ast.SelectionSet)
	visit = func(set ast.SelectionSet) {
		for _, sel := range set {
			switch sel := sel.(type) {
			case *ast.Field:
				fields = append(fields, sel)
			case *ast.InlineFragment:
				visit(sel.SelectionSet)
			case *ast.FragmentSpread:
				if def := d.fragments[sel.Name]; def != nil && !seen[sel.Name] {
					if seen == nil {
						seen = map[string]bool{}
					}
					seen[sel.Name] = true
					visit(def.SelectionSet)
				}
			}
		}
	}
	for _, set := range sets {
		visit(set)
	}
	return fields
}

// grouped splits items by key, in the order in which keys first appear.
func grouped[T any](items []T, key func(T) string) [][]T {
	if len(items) == 1 {
		return [][]T{items}
	}
	index := make(map[string]int, len(items))
	var groups [][]T
	for _, it := range items {
		k := key(it)
		i, ok := index[k]
		if !ok {
			i = len(groups)
			index[k] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], it)
	}
	return groups
}

func alias(f *ast.Field) string      { return f.Alias }
func parentName(f *ast.Field) string { return f.ObjectDefinition.Name }

// children returns the fields below a group that answers as one.
func (m *merging) children(group []*ast.Field) []*ast.Field {
	var sets []ast.SelectionSet
	for _, f := range group {
		if len(f.SelectionSet) > 0 {
			sets = append(sets, f.SelectionSet)
		}
	}
	if len(sets) == 0 {
		return nil
	}
	return m.doc.gather(sets)
}

// shapes checks SameResponseShape for all fields of one place.
func (m *merging) shapes(fields []*ast.Field) {
	if len(fields) == 0 {
		return
	}
	for _, group := range grouped(fields, alias) {
		first := group[0]
		for _, f := range group[1:] {
			if !m.sameShape(first.Definition.Type, f.Definition.Type) {
				m.conflict(first, f, "they return the types "+first.Definition.Type.String()+" and "+f.Definition.Type.String())
			}
		}
		m.shapes(m.children(group))
	}
}

func (m *merging) sameShape(a, b *ast.Type) bool {
	if a == b {
		return true
	}
	if a.NonNull != b.NonNull || (a.Elem == nil) != (b.Elem == nil) {
		return false
	}
	if a.Elem != nil {
		return m.sameShape(a.Elem, b.Elem)
	}
	if a.NamedType == b.NamedType {
		return true
	}
	return m.schema.Types[a.NamedType].IsCompositeType() && m.schema.Types[b.NamedType].IsCompositeType()
}

// identities checks that fields which may be asked of one object are the same
// field with the same arguments.
func (m *merging) identities(fields []*ast.Field) {
	if len(fields) == 0 {
		return
	}
	if m.budget -= len(fields); m.budget < 0 {
		m.found.add(present(fault.New(fault.Invalid, fault.TooComplex, "The document selects the same fields through too many types.")))
		panic(enough{})
	}
	for _, group := range grouped(fields, alias) {
		for _, overlapping := range byParent(group) {
			first := overlapping[0]
			for _, f := range overlapping[1:] {
				m.identical(first, f)
			}
			m.identities(m.children(overlapping))
		}
	}
}

// byParent splits a group into the sets of fields that one object can be asked
// for: those of its own type, and those of interfaces and unions.
func byParent(group []*ast.Field) [][]*ast.Field {
	if len(group) == 1 {
		return [][]*ast.Field{group}
	}
	var abstract, concrete []*ast.Field
	for _, f := range group {
		if f.ObjectDefinition.IsAbstractType() {
			abstract = append(abstract, f)
		} else {
			concrete = append(concrete, f)
		}
	}
	if len(concrete) == 0 {
		return [][]*ast.Field{abstract}
	}
	sets := grouped(concrete, parentName)
	for i := range sets {
		sets[i] = append(slices.Clip(sets[i]), abstract...)
	}
	return sets
}

func (m *merging) identical(a, b *ast.Field) {
	switch {
	case a.Name != b.Name:
		m.conflict(a, b, "\""+a.Name+"\" and \""+b.Name+"\" are different fields")
	case !sameArguments(a.Arguments, b.Arguments):
		m.conflict(a, b, "they have differing arguments")
	}
}

func (m *merging) conflict(a, b *ast.Field, why string) {
	if m.failed[b] {
		return
	}
	m.failed[b] = true
	err := gqlerror.ErrorPosf(b.Position,
		"Fields %q conflict because %s. Use different aliases on the fields to fetch both if this was intentional.", a.Alias, why)
	err.Locations = append([]gqlerror.Location{{Line: a.Position.Line, Column: a.Position.Column}}, err.Locations...)
	m.found.add(err)
}

// sameArguments reports whether both lists have the same names, which are
// unique in each, with the same values.
func sameArguments(a, b ast.ArgumentList) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 1 {
		return a[0].Name == b[0].Name && sameValue(a[0].Value, b[0].Value)
	}
	byName := func(x, y *ast.Argument) int { return strings.Compare(x.Name, y.Name) }
	a, b = slices.SortedFunc(slices.Values(a), byName), slices.SortedFunc(slices.Values(b), byName)
	return slices.EqualFunc(a, b, func(x, y *ast.Argument) bool { return x.Name == y.Name && sameValue(x.Value, y.Value) })
}

// sameValue reports whether the values are the same; the order of an object's
// fields does not matter.
func sameValue(a, b *ast.Value) bool {
	if a.Kind != b.Kind || a.Raw != b.Raw || len(a.Children) != len(b.Children) {
		return false
	}
	x, y := a.Children, b.Children
	if a.Kind == ast.ObjectValue {
		byName := func(x, y *ast.ChildValue) int { return strings.Compare(x.Name, y.Name) }
		x, y = slices.SortedStableFunc(slices.Values(x), byName), slices.SortedStableFunc(slices.Values(y), byName)
	}
	return slices.EqualFunc(x, y, func(x, y *ast.ChildValue) bool { return x.Name == y.Name && sameValue(x.Value, y.Value) })
}
