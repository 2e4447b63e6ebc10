package executor

import (
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// shape is the size of a selection set with all its fragments expanded.
type shape struct {
	fields    int // fields in all
	roots     int // fields of the first level
	depth     int // levels of fields
	fragments int // longest chain of fragments that spread fragments
	lists     int // most lists of types and fields nested along one path, as introspection nests them
}

// many stands for every number too large to matter, so that sums never overflow.
const many = 1 << 40

func add(a, b int) int { return min(a+b, many) }

// expander computes shapes. A fragment's is computed once, however often it is
// spread, so the work is linear in the document.
type expander struct {
	fragments map[string]*ast.FragmentDefinition // the first of each name
	done      map[string]shape
	open      map[string]bool
	err       error
}

// maxIntrospectionLists bounds the lists of types and fields inside each other:
// each level multiplies the answer by the size of the schema.
const maxIntrospectionLists = 3

func newExpander(doc *ast.QueryDocument) *expander {
	x := &expander{
		fragments: make(map[string]*ast.FragmentDefinition, len(doc.Fragments)),
		done:      make(map[string]shape, len(doc.Fragments)),
		open:      map[string]bool{},
	}
	for _, f := range doc.Fragments {
		if x.fragments[f.Name] == nil {
			x.fragments[f.Name] = f
		}
	}
	return x
}

// of returns the shape of the set. On a cycle it sets err and stops.
func (x *expander) of(set ast.SelectionSet) shape {
	var s shape
	for _, sel := range set {
		if x.err != nil {
			return s
		}
		switch sel := sel.(type) {
		case *ast.Field:
			s.addField(x.field(sel))
		case *ast.InlineFragment:
			s.addInline(x.of(sel.SelectionSet))
		case *ast.FragmentSpread:
			sub := x.fragment(sel)
			sub.fragments++
			s.addInline(sub)
		}
	}
	return s
}

func (s *shape) addField(sub shape) {
	s.fields = add(s.fields, add(sub.fields, 1))
	s.roots = add(s.roots, 1)
	s.depth = max(s.depth, sub.depth+1)
	s.fragments = max(s.fragments, sub.fragments)
	s.lists = max(s.lists, sub.lists)
}

func (s *shape) addInline(sub shape) {
	s.fields = add(s.fields, sub.fields)
	s.roots = add(s.roots, sub.roots)
	s.depth = max(s.depth, sub.depth)
	s.fragments = max(s.fragments, sub.fragments)
	s.lists = max(s.lists, sub.lists)
}

func (x *expander) field(f *ast.Field) shape {
	sub := x.of(f.SelectionSet)
	switch f.Name {
	case "fields", "interfaces", "possibleTypes", "inputFields":
		sub.lists++
	case "__schema", "__type":
		if sub.lists >= maxIntrospectionLists && x.err == nil {
			x.err = at(fault.New(fault.Invalid, fault.TooDeep,
				"Introspection may nest at most %d lists of fields and types.", maxIntrospectionLists-1), f.Position)
		}
	}
	return sub
}

func (x *expander) fragment(spread *ast.FragmentSpread) shape {
	if s, ok := x.done[spread.Name]; ok {
		return s
	}
	def := x.fragments[spread.Name]
	if def == nil {
		return shape{} // a validation rule says so
	}
	if x.open[spread.Name] {
		x.err = at(fault.New(fault.Invalid, fault.ValidationFailed,
			"Cannot spread fragment %q within itself.", spread.Name), spread.Position)
		return shape{}
	}
	x.open[spread.Name] = true
	s := x.of(def.SelectionSet)
	delete(x.open, spread.Name)
	x.done[spread.Name] = s
	return s
}

// measure returns the shape of each operation, or the first limit that the
// document passes, or the first cycle of fragments.
func (l Limits) measure(doc *ast.QueryDocument) (map[*ast.OperationDefinition]shape, *expander, error) {
	x := newExpander(doc)
	shapes := make(map[*ast.OperationDefinition]shape, len(doc.Operations))
	total := 0
	for _, op := range doc.Operations {
		s := x.of(op.SelectionSet)
		if x.err == nil {
			x.err = l.checkShape(s)
		}
		total = add(total, s.fields)
		shapes[op] = s
	}
	for _, f := range doc.Fragments { // one that nothing uses may still hold a cycle
		x.fragment(&ast.FragmentSpread{Name: f.Name, Position: f.Position})
	}
	if x.err == nil {
		x.err = within(fault.TooManyFields, total, l.ExpandedFields, "fields with its fragments expanded")
	}
	return shapes, x, x.err
}

func (l Limits) checkShape(s shape) error {
	for _, c := range []struct {
		code     fault.Code
		n, limit int
		what     string
	}{
		{fault.FragmentsTooDeep, s.fragments, l.FragmentDepth, "levels of fragments in fragments"},
		{fault.TooDeep, s.depth, l.Depth, "levels of fields"},
		{fault.TooManyFields, s.fields, l.ExpandedFields, "fields with its fragments expanded"},
		{fault.TooManyRootFields, s.roots, l.RootFields, "fields at its root"},
	} {
		if err := within(c.code, c.n, c.limit, c.what); err != nil {
			return err
		}
	}
	return nil
}
