package rest

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/problem"
)

// walk is how a legacy REST client walks a list that it counts: by a parameter with a number
// of objects or of a page.
type walk struct {
	name string // of the parameter
	page bool   // it is the number of a page
	skip int    // objects before the page
	size int    // objects in a page
}

// numberOf returns what the parameter says for a number of objects before a page.
func (w *walk) numberOf(skip int) int {
	if w.page {
		return skip/w.size + 1
	}
	return skip
}

// bindWalk turns the number of objects or pages that the client passes over into a cursor.
func (b *boundRequest) bindWalk(query url.Values) {
	p := b.rt.skips
	if p == nil {
		return
	}
	for _, w := range []*walk{{name: p.from.Offset}, {name: p.from.Page, page: true}} {
		values := b.queryValues(p, w.name, query)
		if w.name == "" || len(values) == 0 {
			continue
		}
		if other := b.otherPosition(); other != "" {
			b.addParameterViolationf(w.name, "%s cannot be given with %s: give one of them.", w.name, other)
			return
		}
		w.size = b.pageSize()
		b.walk = w
		if skip, ok := b.parseWalk(w, values); ok && skip > 0 {
			w.skip = skip
			b.setVariable(p, valueSource{inQuery, w.name}, page.SkipCursor(skip))
		}
	}
}

// otherPosition returns the parameter by which the client says where the page is, empty if there is none.
func (b *boundRequest) otherPosition() string {
	if b.walk != nil {
		return b.walk.name
	}
	for _, argument := range []string{"after", "last", "before"} {
		if p := b.rt.listParam(argument); p != nil && b.variables[p.Variable] != nil {
			return b.origin[p.Variable].name
		}
	}
	return ""
}

// parseWalk returns how many objects the client passes over.
func (b *boundRequest) parseWalk(w *walk, values []string) (skip int, ok bool) {
	n, err := strconv.Atoi(values[0])
	least := 0
	if w.page {
		least = 1
	}
	switch {
	case len(values) > 1:
		b.addParameterViolationf(w.name, "%s must be given once.", w.name)
		return 0, false
	case err != nil || n < least:
		b.addParameterViolationf(w.name, "%s must be a whole number from %d on.", w.name, least)
		return 0, false
	}
	if skip = n; w.page {
		skip = min(n-1, page.MaxSkip+1) * w.size
	}
	if skip > page.MaxSkip {
		b.addParameterViolationf(w.name, "%s reaches no further than behind %d objects: follow the links of the header Link, or sort the list the other way.", w.name, page.MaxSkip)
		return 0, false
	}
	return skip, true
}

// setPageSize sets how many objects a page has if the client does not say it.
func (b *boundRequest) setPageSize(size int) {
	first, last := b.rt.listParam("first"), b.rt.listParam("last")
	fromEnd := last != nil && b.variables[last.Variable] != nil
	switch {
	case first == nil:
	case fromEnd && b.variables[first.Variable] != nil:
		from := b.origin[first.Variable]
		b.addViolation(problem.Violation{Code: fault.PageSizeInvalid, Detail: from.name + " cannot be given with " + b.origin[last.Variable].name + ": give one of them.", In: from.in, Pointer: jsonPointer(from.name)})
	case !fromEnd && first.DefaultValue == nil && b.variables[first.Variable] == nil:
		b.variables[first.Variable] = size
	}
}

// pageSize returns how many objects a page has, as far as the client says it.
func (b *boundRequest) pageSize() int {
	if p := b.rt.listParam("first"); p != nil {
		switch v := b.variables[p.Variable].(type) {
		case int:
			return v
		case json.Number:
			if n, err := strconv.Atoi(string(v)); err == nil && n > 0 {
				return min(n, page.MaxSize)
			}
		}
	}
	return page.DefaultSize
}

// listParam returns the variable of an argument of the list that is shown, nil if there is none.
func (rt *route) listParam(argument string) *param {
	if !rt.answer.page {
		return nil
	}
	arg := rt.answer.fields[len(rt.answer.fields)-2].Arguments.ForName(argument)
	if arg == nil || arg.Value.Kind != ast.Variable {
		return nil
	}
	return rt.paramOf(arg.Value.Raw)
}

// checkSkips checks that the parameters that pass over objects are those of a list that can.
func (rt *route) checkSkips() error {
	if p := rt.skips; p != nil && (rt.listParam("after") != p || !rt.answer.counted) {
		return rt.errorAt(p.Position, "offset and page are for the variable that is the argument after of the list that is shown")
	}
	return nil
}

// isCounted reports whether a list can be counted, and read by a number of objects: one whose
// cursors are those of package page, not of the event log.
func isCounted(list *ast.Field) bool {
	after := list.Definition.Arguments.ForName("after")
	return after != nil && after.Type.Name() == "String" && slices.ContainsFunc(fieldsOf(list.SelectionSet), func(f *ast.Field) bool {
		return f.ObjectDefinition != nil && f.ObjectDefinition.Fields.ForName("totalCount") != nil
	})
}

// describeSkips describes the parameters by which clients count the objects of a list.
func describeSkips(p *param) (all []describedName) {
	if name := p.from.Offset; name != "" {
		all = append(all, describedName{name, "Only items behind this many from the start: 0 to 10,000. Not with a page or a cursor."})
	}
	if name := p.from.Page; name != "" {
		all = append(all, describedName{name, "The number of a page, from 1 on, at most 10,000 objects behind the start. Not with an offset or a cursor."})
	}
	return all
}

type describedName struct{ name, about string }
