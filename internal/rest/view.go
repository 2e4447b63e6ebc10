package rest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

// view says how a value of the data is rendered: as it is if nil or plain.
type view struct {
	plain bool             // nothing in it is hidden
	nodes string           // the member that replaces it, "" if none does
	sub   map[string]*view // of the members that are objects or lists of them
}

// viewOf returns the view of what is selected, after hidden fields were added.
func viewOf(set ast.SelectionSet) *view {
	v := &view{plain: true, sub: map[string]*view{}}
	for _, f := range fieldsOf(set) {
		v.plain = v.plain && !strings.HasPrefix(f.Alias, hiddenPrefix)
		if len(f.SelectionSet) == 0 {
			continue
		}
		sub := viewOf(f.SelectionSet)
		if nodes := nodesOf(f); nodes != nil {
			sub.nodes, sub.plain = nodes.Alias, false
		}
		v.plain = v.plain && sub.plain
		if old := v.sub[f.Alias]; old != nil {
			sub = old.mergeWith(sub)
		}
		v.sub[f.Alias] = sub
	}
	return v
}

// nodesOf returns the nodes of a connection of which nothing else is selected, nil
// of all else. Inside what is shown they stand for it: lists are arrays.
func nodesOf(f *ast.Field) *ast.Field {
	all := fieldsOf(f.SelectionSet)
	if len(all) != 1 || all[0].Name != "nodes" || !hasField(typeOf(f.SelectionSet), "pageInfo") {
		return nil
	}
	return all[0]
}

// mergeWith returns the view of a field that is selected twice.
func (v *view) mergeWith(w *view) *view {
	both := &view{plain: v.plain && w.plain, sub: map[string]*view{}}
	if v.nodes == w.nodes {
		both.nodes = v.nodes
	}
	for _, one := range []*view{v, w} {
		for name, sub := range one.sub {
			if old := both.sub[name]; old != nil {
				sub = old.mergeWith(sub)
			}
			both.sub[name] = sub
		}
	}
	return both
}

// appendValue renders the value at the start of data, and returns the data after it. The
// data is JSON that the executor wrote.
func (v *view) appendValue(out, data []byte) (shown, rest []byte) {
	if v == nil || v.plain || len(data) == 0 {
		value, rest := cutValue(data)
		return append(out, value...), rest
	}
	switch {
	case data[0] == '{' && v.nodes != "":
		object, rest := cutValue(data)
		shown, _ = v.sub[v.nodes].appendValue(out, findMember(object, v.nodes))
		return shown, rest
	case data[0] == '{':
		return v.appendObject(out, data)
	case data[0] == '[':
		return v.appendList(out, data)
	}
	value, rest := cutValue(data)
	return append(out, value...), rest
}

func (v *view) appendList(out, data []byte) (shown, rest []byte) {
	out = append(out, '[')
	for data = data[1:]; data[0] != ']'; {
		if data[0] == ',' {
			out, data = append(out, ','), data[1:]
		}
		out, data = v.appendValue(out, data)
	}
	return append(out, ']'), data[1:]
}

// appendObject leaves hidden members out; the legacy id, which comes first, replaces the
// id.
func (v *view) appendObject(out, data []byte) (shown, rest []byte) {
	out = append(out, '{')
	start := len(out)
	var legacy []byte
	for data = data[1:]; data[0] != '}'; {
		var name []byte
		name, data = cutName(data)
		if strings.HasPrefix(string(name), hiddenPrefix) {
			var value []byte
			if value, data = cutValue(data); string(name) == legacyKey && value[0] == '"' {
				legacy = value
			}
			continue
		}
		if len(out) > start {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), '"', ':')
		if string(name) == "id" && legacy != nil {
			_, data = cutValue(data)
			out = append(out, legacyID(legacy)...)
			continue
		}
		out, data = v.sub[string(name)].appendValue(out, data)
	}
	return append(out, '}'), data[1:]
}

// maxNumber is the largest whole number that JSON readers with floating-point numbers hold.
const maxNumber = 1<<53 - 1

// legacyID returns a legacy id, which is JSON text, as it is shown: as a number if
// it is one that every JSON reader takes as it is.
func legacyID(text []byte) []byte {
	digits := text[1 : len(text)-1]
	for _, c := range digits {
		if c < '0' || c > '9' {
			return text
		}
	}
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' {
		return text
	}
	if n, err := strconv.ParseInt(string(digits), 10, 64); err != nil || n > maxNumber {
		return text
	}
	return digits
}

// cutValue returns the JSON value at the start of data and the data after it. The data is
// valid and has no spaces between its tokens.
func cutValue(data []byte) (value, rest []byte) {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = endOfText(data, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return data[:i], data[i:]
			}
		case ',', ':':
			if depth == 0 {
				return data[:i], data[i:]
			}
		}
		if depth == 0 && (data[i] == '"' || data[i] == '}' || data[i] == ']') {
			return data[:i+1], data[i+1:]
		}
	}
	return data, nil
}

// endOfText returns the index of the quote that ends the text starting at i.
func endOfText(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(data) - 1
}

// cutName returns the name of the member at the start of data, or after a comma, and the
// data after its colon. Names are those of GraphQL and need no escapes.
func cutName(data []byte) (name, rest []byte) {
	if data[0] == ',' {
		data = data[1:]
	}
	end := endOfText(data, 0)
	return data[1:end], data[end+2:]
}

// findMember returns the value of the member of a JSON object, nil if there is none.
func findMember(object []byte, member string) []byte {
	if len(object) == 0 || object[0] != '{' {
		return nil
	}
	for data := object[1:]; len(data) > 0 && data[0] != '}'; {
		var name, value []byte
		name, data = cutName(data)
		if value, data = cutValue(data); string(name) == member {
			return value
		}
	}
	return nil
}

// findPath follows keys into the data; in lists it takes the first item.
func findPath(data []byte, path []string) []byte {
	for _, key := range path {
		if len(data) > 1 && data[0] == '[' {
			data, _ = cutValue(data[1:])
		}
		data = findMember(data, key)
	}
	return data
}

// prependField adds a hidden field in front of the selections of f.
func prependField(f *ast.Field, field string) {
	doc, err := parser.ParseQuery(&ast.Source{Input: "{" + field + "}"})
	if err != nil {
		panic(err) // the field is a constant, or a name found in the schema
	}
	added := doc.Operations[0].SelectionSet
	for _, sel := range added {
		sel.(*ast.Field).ObjectDefinition = typeOf(f.SelectionSet)
	}
	f.SelectionSet = append(added, f.SelectionSet...)
}

// quoteJSON writes text as JSON.
func quoteJSON(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // text is always encoded
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
