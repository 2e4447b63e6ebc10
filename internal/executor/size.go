package executor

import (
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// selectionSize is the size of a selection set with all its fragments expanded.
type selectionSize struct {
	fields    int // fields in all
	roots     int // fields of the first level
	depth     int // levels of fields
	fragments int // longest chain of fragments that spread fragments
	lists     int // most lists of types and fields nested along one path, as introspection nests them
}

// maxCount caps every count, so that sums never overflow.
const maxCount = 1 << 40

func addCapped(a, b int) int { return min(a+b, maxCount) }

// sizeCalculator computes sizes. It measures a fragment once, however often it is
// spread, so the work is linear in the document.
type sizeCalculator struct {
	fragments map[string]*ast.FragmentDefinition // the first of each name
	measured  map[string]selectionSize
	expanding map[string]bool
	err       error
}

// maxIntrospectionLists bounds the lists of types and fields inside each other:
// each level multiplies the answer by the size of the schema.
const maxIntrospectionLists = 3

func newSizeCalculator(doc *ast.QueryDocument) *sizeCalculator {
	x := &sizeCalculator{
		fragments: make(map[string]*ast.FragmentDefinition, len(doc.Fragments)),
		measured:  make(map[string]selectionSize, len(doc.Fragments)),
		expanding: map[string]bool{},
	}
	for _, f := range doc.Fragments {
		if x.fragments[f.Name] == nil {
			x.fragments[f.Name] = f
		}
	}
	return x
}

// measureSelections returns the size of the set. On a cycle it sets err and stops.
func (x *sizeCalculator) measureSelections(set ast.SelectionSet) selectionSize {
	var s selectionSize
	for _, sel := range set {
		if x.err != nil {
			return s
		}
		switch sel := sel.(type) {
		case *ast.Field:
			s.addField(x.measureField(sel))
		case *ast.InlineFragment:
			s.addFragment(x.measureSelections(sel.SelectionSet))
		case *ast.FragmentSpread:
			sub := x.measureFragment(sel)
			sub.fragments++
			s.addFragment(sub)
		}
	}
	return s
}

func (s *selectionSize) addField(sub selectionSize) {
	s.fields = addCapped(s.fields, addCapped(sub.fields, 1))
	s.roots = addCapped(s.roots, 1)
	s.depth = max(s.depth, sub.depth+1)
	s.fragments = max(s.fragments, sub.fragments)
	s.lists = max(s.lists, sub.lists)
}

func (s *selectionSize) addFragment(sub selectionSize) {
	s.fields = addCapped(s.fields, sub.fields)
	s.roots = addCapped(s.roots, sub.roots)
	s.depth = max(s.depth, sub.depth)
	s.fragments = max(s.fragments, sub.fragments)
	s.lists = max(s.lists, sub.lists)
}

func (x *sizeCalculator) measureField(f *ast.Field) selectionSize {
	sub := x.measureSelections(f.SelectionSet)
	switch f.Name {
	case "fields", "interfaces", "possibleTypes", "inputFields":
		sub.lists++
	case "__schema", "__type":
		if sub.lists >= maxIntrospectionLists && x.err == nil {
			x.err = atPosition(fault.New(fault.TooDeep,
				"Introspection may nest at most %d lists of fields and types.", maxIntrospectionLists-1), f.Position)
		}
	}
	return sub
}

func (x *sizeCalculator) measureFragment(spread *ast.FragmentSpread) selectionSize {
	if s, ok := x.measured[spread.Name]; ok {
		return s
	}
	def := x.fragments[spread.Name]
	if def == nil {
		return selectionSize{} // a validation rule reports it
	}
	if x.expanding[spread.Name] {
		x.err = atPosition(fault.New(fault.GraphQLValidationFailed,
			"Cannot spread fragment %q within itself.", spread.Name), spread.Position)
		return selectionSize{}
	}
	x.expanding[spread.Name] = true
	s := x.measureSelections(def.SelectionSet)
	delete(x.expanding, spread.Name)
	x.measured[spread.Name] = s
	return s
}

// measureOperations returns the size of each operation, or the first limit that the
// document exceeds, or the first cycle of fragments.
func (l Limits) measureOperations(doc *ast.QueryDocument) (map[*ast.OperationDefinition]selectionSize, *sizeCalculator, error) {
	x := newSizeCalculator(doc)
	sizes := make(map[*ast.OperationDefinition]selectionSize, len(doc.Operations))
	total := 0
	for _, op := range doc.Operations {
		s := x.measureSelections(op.SelectionSet)
		if x.err == nil {
			x.err = l.checkSize(s)
		}
		total = addCapped(total, s.fields)
		sizes[op] = s
	}
	for _, f := range doc.Fragments { // an unused one may still have a cycle
		x.measureFragment(&ast.FragmentSpread{Name: f.Name, Position: f.Position})
	}
	if x.err == nil {
		x.err = checkLimit(fault.TooManyFields, total, l.ExpandedFields, "fields with its fragments expanded")
	}
	return sizes, x, x.err
}

func (l Limits) checkSize(s selectionSize) error {
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
		if err := checkLimit(c.code, c.n, c.limit, c.what); err != nil {
			return err
		}
	}
	return nil
}
