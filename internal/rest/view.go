package rest

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

// view says how a value of the data is shown: nil, or plain, as it is.
type view struct {
	plain bool             // nothing in it is hidden
	nodes string           // the member that is shown in its place, "" if it is shown itself
	sub   map[string]*view // of the members that are objects or lists of them
}

// viewOf returns the view of what is selected, after hidden fields were added.
func viewOf(set ast.SelectionSet) *view {
	v := &view{plain: true, sub: map[string]*view{}}
	for _, f := range fieldsOf(set) {
		v.plain = v.plain && !strings.HasPrefix(f.Alias, hidden)
		if len(f.SelectionSet) == 0 {
			continue
		}
		sub := viewOf(f.SelectionSet)
		if nodes := nodesOf(f); nodes != nil {
			sub.nodes, sub.plain = nodes.Alias, false
		}
		v.plain = v.plain && sub.plain
		if old := v.sub[f.Alias]; old != nil {
			sub = old.merge(sub)
		}
		v.sub[f.Alias] = sub
	}
	return v
}

// nodesOf returns the nodes of a connection of which nothing else is selected, nil
// of all else. Inside what is shown they stand for it: lists are arrays.
func nodesOf(f *ast.Field) *ast.Field {
	all := fieldsOf(f.SelectionSet)
	if len(all) != 1 || all[0].Name != "nodes" || !has(typeOf(f.SelectionSet), "pageInfo") {
		return nil
	}
	return all[0]
}

// merge returns the view of a field that is selected twice.
func (v *view) merge(w *view) *view {
	both := &view{plain: v.plain && w.plain, sub: map[string]*view{}}
	if v.nodes == w.nodes {
		both.nodes = v.nodes
	}
	for _, one := range []*view{v, w} {
		for name, sub := range one.sub {
			if old := both.sub[name]; old != nil {
				sub = old.merge(sub)
			}
			both.sub[name] = sub
		}
	}
	return both
}

// append writes the value that begins data as it is shown, and returns what is
// behind it. The data is JSON that the executor wrote.
func (v *view) append(out, data []byte) (shown, rest []byte) {
	if v == nil || v.plain || len(data) == 0 {
		value, rest := cutValue(data)
		return append(out, value...), rest
	}
	switch {
	case data[0] == '{' && v.nodes != "":
		object, rest := cutValue(data)
		shown, _ = v.sub[v.nodes].append(out, find(object, v.nodes))
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
		out, data = v.append(out, data)
	}
	return append(out, ']'), data[1:]
}

// appendObject leaves hidden members out; the one of the legacy id, which comes
// first, takes the place of the id.
func (v *view) appendObject(out, data []byte) (shown, rest []byte) {
	out = append(out, '{')
	start := len(out)
	var legacy []byte
	for data = data[1:]; data[0] != '}'; {
		var name []byte
		name, data = cutName(data)
		if strings.HasPrefix(string(name), hidden) {
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
		out, data = v.sub[string(name)].append(out, data)
	}
	return append(out, '}'), data[1:]
}

// legacyID returns a legacy id, which is JSON text, as it is shown: as a number if
// it is one.
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
	return digits
}

// cutValue returns the JSON value that begins data and what is behind it. The
// data is valid and has no spaces between its tokens.
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

// endOfText returns where the text ends that begins at i.
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

// cutName returns the name of the member that begins data, or is behind a comma,
// and what is behind its colon. Names are those of GraphQL and need no escapes.
func cutName(data []byte) (name, rest []byte) {
	if data[0] == ',' {
		data = data[1:]
	}
	end := endOfText(data, 0)
	return data[1:end], data[end+2:]
}

// find returns the value of the member of a JSON object, nil if there is none.
func find(object []byte, member string) []byte {
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

// findAll follows keys into the data; of lists the first item counts.
func findAll(data []byte, way []string) []byte {
	for _, key := range way {
		if len(data) > 1 && data[0] == '[' {
			data, _ = cutValue(data[1:])
		}
		data = find(data, key)
	}
	return data
}

// prepend puts a field of ours in front of what is selected of f.
func prepend(f *ast.Field, field string) {
	doc, err := parser.ParseQuery(&ast.Source{Input: "{" + field + "}"})
	if err != nil {
		panic(err) // the field is ours, or a name that was found in the schema
	}
	added := doc.Operations[0].SelectionSet
	for _, sel := range added {
		sel.(*ast.Field).ObjectDefinition = typeOf(f.SelectionSet)
	}
	f.SelectionSet = append(added, f.SelectionSet...)
}

// quote writes text as JSON.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // text is always encoded
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
