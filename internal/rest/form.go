package rest

import (
	"bytes"
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// maxFormDepth bounds the parts of a name in a form: the schema nests its inputs less deep.
const maxFormDepth = 8

// formField is a field of a form: values of a plain name or of name[], or parts by their
// names, as in price[amount] and items[0][sku].
type formField struct {
	values []string
	parts  map[string]*formField
}

// parseForm reads the properties of a body from a form. Text becomes what JSON would have for the
// type, as in the query.
func (rt *route) parseForm(schema *ast.Schema, text []byte) (map[string]any, error) {
	if bytes.HasPrefix(bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff"))), []byte("{")) {
		return nil, errMediaType("The request body looks like JSON: send it with Content-Type: application/json.")
	}
	values, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, fault.New(fault.BadRequest, "The form is malformed.")
	}
	form := &formField{}
	for name, some := range values {
		if !utf8.ValidString(name) || slices.ContainsFunc(some, func(v string) bool { return !utf8.ValidString(v) }) {
			return nil, fault.New(fault.BadRequest, "The form is not valid UTF-8.")
		}
		if wrong := form.add(name, some); wrong != "" {
			short := truncateName(name)
			return nil, unprocessable([]problem.Violation{{Code: fault.BadInput, Detail: short + wrong, In: inBody, Pointer: jsonPointer(short)}})
		}
	}
	body := make(map[string]any, len(form.parts))
	for name, f := range form.parts {
		var t *ast.Type
		if i := slices.IndexFunc(rt.params, func(p *param) bool { return slices.Contains(p.from.Body, name) }); i >= 0 {
			t = rt.params[i].Type
		}
		body[name] = f.valueAs(schema, t)
	}
	return body, nil
}

// add adds the values of a name, and returns what is wrong with the name, to be read after it.
func (f *formField) add(name string, values []string) (wrong string) {
	parts, ok := splitFormName(name)
	if !ok {
		return " is no name of a field: parts are written as in items[0][sku]."
	}
	for _, part := range parts {
		if f.parts == nil {
			f.parts = map[string]*formField{}
		}
		if f.parts[part] == nil {
			f.parts[part] = &formField{}
		}
		f = f.parts[part]
		if len(f.values) > 0 {
			return " is given as a value and by its parts, too."
		}
	}
	if len(f.parts) > 0 || len(f.values) > 0 {
		return " is given in two ways."
	}
	f.values = values
	return ""
}

// splitFormName returns the parts of a name such as items[0][sku]; brackets without a name at its
// end, as in tags[], are left out.
func splitFormName(name string) (parts []string, ok bool) {
	first, rest, nested := strings.Cut(name, "[")
	if first == "" || strings.Contains(first, "]") {
		return nil, false
	}
	parts = []string{first}
	for nested {
		part, after, closed := strings.Cut(rest, "]")
		switch {
		case !closed || strings.Contains(part, "[") || len(parts) == maxFormDepth:
			return nil, false
		case part == "" && after == "":
			return parts, true
		case part == "":
			return nil, false // of which object of a list?
		}
		parts = append(parts, part)
		if after == "" {
			return parts, true
		}
		if rest, nested = strings.CutPrefix(after, "["); !nested {
			return nil, false
		}
	}
	return parts, true
}

// valueAs returns the value as JSON would have it for the type, as far as it can be; the executor
// refuses the rest. The type is nil if it is not known.
func (f *formField) valueAs(schema *ast.Schema, t *ast.Type) any {
	switch {
	case t != nil && t.Elem != nil:
		return f.listOf(schema, t.Elem)
	case len(f.parts) > 0:
		return f.objectAs(schema, t)
	case len(f.values) != 1:
		return textItems(f.values)
	case t == nil:
		return f.values[0]
	}
	return parseTyped(t, f.values[0])
}

func (f *formField) objectAs(schema *ast.Schema, t *ast.Type) any {
	object := make(map[string]any, len(f.parts))
	for name, part := range f.parts {
		var of *ast.Type
		if t != nil {
			if field := fieldNamed(schema.Types[t.Name()], name); field != nil {
				of = field.Type
			}
		}
		object[name] = part.valueAs(schema, of)
	}
	return object
}

// listOf returns a list: of repeated values or those between commas, as in the query, or of parts
// with numbers, in their order.
func (f *formField) listOf(schema *ast.Schema, elem *ast.Type) any {
	items := []any{}
	for _, v := range f.values {
		for item := range strings.SplitSeq(v, ",") {
			items = append(items, parseTyped(elem, item))
		}
	}
	places := make([]int, 0, len(f.parts))
	for name := range f.parts {
		n, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(n) != name {
			return f.objectAs(schema, nil) // no list
		}
		places = append(places, n)
	}
	slices.SortFunc(places, cmp.Compare)
	for _, n := range places {
		items = append(items, f.parts[strconv.Itoa(n)].valueAs(schema, elem))
	}
	return items
}

func textItems(values []string) []any {
	items := make([]any, len(values))
	for i, v := range values {
		items[i] = v
	}
	return items
}
