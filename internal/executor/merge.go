package executor

import (
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/fault"
)

// mergeChecker checks that fields with one response name can be merged, as the
// specification's FieldsInSetCanMerge defines it, without comparing all pairs.
//
// It checks all fields of one position in the response together, as Sangria's algorithm
// does: both relations that must hold between any two of them are equivalences, so
// comparing each with the first is enough. Response shapes must agree among all fields;
// names and arguments only among fields whose parents can be the same object. There are
// no more positions than fields of the expanded operation, which are limited; only the
// second check may visit a field once for each type it can be selected on, and has a
// budget.
type mergeChecker struct {
	schema *ast.Schema
	doc    *document
	found  *errorCollector
	budget int
	failed map[*ast.Field]bool // fields that an error names already
}

// checkMerging reports the fields of every operation that cannot be merged.
func checkMerging(schema *ast.Schema, doc *document, limits Limits, found *errorCollector) {
	m := &mergeChecker{schema: schema, doc: doc, found: found, budget: 2 * limits.ExpandedFields, failed: map[*ast.Field]bool{}}
	for _, op := range doc.ast.Operations {
		root := doc.collectFields([]ast.SelectionSet{op.SelectionSet})
		m.checkResponseShapes(root)
		m.checkSameFields(root)
	}
}

// collectFields returns the fields of the sets and of all fragments in them, each
// named fragment once.
func (d *document) collectFields(sets []ast.SelectionSet) []*ast.Field {
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

// groupBy splits items by key, in the order in which keys first appear.
func groupBy[T any](items []T, key func(T) string) [][]T {
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

func fieldAlias(f *ast.Field) string     { return f.Alias }
func parentTypeName(f *ast.Field) string { return f.ObjectDefinition.Name }

// collectChildren returns the fields below a group that is merged.
func (m *mergeChecker) collectChildren(group []*ast.Field) []*ast.Field {
	var sets []ast.SelectionSet
	for _, f := range group {
		if len(f.SelectionSet) > 0 {
			sets = append(sets, f.SelectionSet)
		}
	}
	if len(sets) == 0 {
		return nil
	}
	return m.doc.collectFields(sets)
}

// checkResponseShapes checks SameResponseShape for all fields of one position.
func (m *mergeChecker) checkResponseShapes(fields []*ast.Field) {
	if len(fields) == 0 {
		return
	}
	for _, group := range groupBy(fields, fieldAlias) {
		first := group[0]
		for _, f := range group[1:] {
			if !m.haveSameShape(first.Definition.Type, f.Definition.Type) {
				m.reportConflict(first, f, "they return the types "+first.Definition.Type.String()+" and "+f.Definition.Type.String())
			}
		}
		m.checkResponseShapes(m.collectChildren(group))
	}
}

func (m *mergeChecker) haveSameShape(a, b *ast.Type) bool {
	if a == b {
		return true
	}
	if a.NonNull != b.NonNull || (a.Elem == nil) != (b.Elem == nil) {
		return false
	}
	if a.Elem != nil {
		return m.haveSameShape(a.Elem, b.Elem)
	}
	if a.NamedType == b.NamedType {
		return true
	}
	return m.schema.Types[a.NamedType].IsCompositeType() && m.schema.Types[b.NamedType].IsCompositeType()
}

// checkSameFields checks that fields which may be selected on one object are the same
// field with the same arguments.
func (m *mergeChecker) checkSameFields(fields []*ast.Field) {
	if len(fields) == 0 {
		return
	}
	if m.budget -= len(fields); m.budget < 0 {
		m.found.add(presentError(fault.New(fault.TooComplex, "The document selects the same fields through too many types.")))
		panic(errorLimitReached{})
	}
	for _, group := range groupBy(fields, fieldAlias) {
		for _, overlapping := range groupByParentType(group) {
			first := overlapping[0]
			for _, f := range overlapping[1:] {
				m.checkSameField(first, f)
			}
			m.checkSameFields(m.collectChildren(overlapping))
		}
	}
}

// groupByParentType splits a group into the sets of fields that can be selected on
// one object: those of its own type, and those of interfaces and unions.
func groupByParentType(group []*ast.Field) [][]*ast.Field {
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
	sets := groupBy(concrete, parentTypeName)
	for i := range sets {
		sets[i] = append(slices.Clip(sets[i]), abstract...)
	}
	return sets
}

func (m *mergeChecker) checkSameField(a, b *ast.Field) {
	switch {
	case a.Name != b.Name:
		m.reportConflict(a, b, "\""+a.Name+"\" and \""+b.Name+"\" are different fields")
	case !sameArguments(a.Arguments, b.Arguments):
		m.reportConflict(a, b, "they have differing arguments")
	}
}

func (m *mergeChecker) reportConflict(a, b *ast.Field, why string) {
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
