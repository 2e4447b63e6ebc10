package rest

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// schemaWriter writes the JSON schemas of inputs and results, and keeps the named ones.
type schemaWriter struct {
	schema  *ast.Schema
	schemas object // by name
}

func newSchemaWriter(schema *ast.Schema) *schemaWriter {
	s := &schemaWriter{schema, object{}}
	text := func(about string) object { return object{"type": "string", "description": about} }
	s.schemas["Form"] = object{"type": "object", "additionalProperties": object{"type": "string"},
		"description": "The properties of the JSON body. Parts of an object and items of a list are fields such as `price[amount]=1.00` and `items[0][sku]=TEA-GREEN`; items that are text may also be repeated, or stand between commas."}
	s.schemas["Problem"] = object{
		"type": "object", "description": "What went wrong (RFC 9457).",
		"required": []any{"type", "title", "status", "detail", "code", "error"},
		"properties": object{
			"type": text("Always about:blank."), "title": text("The status in words."),
			"status":          object{"type": "integer", "description": "The status."},
			"detail":          text("One sentence for an end user."),
			"code":            s.enumSchema(schema.Types["ErrorCode"]),
			"error":           text("The code in words, for legacy REST clients."),
			"current_version": object{"type": "integer", "description": "The version that the object is at, if it has changed."},
			"request_id":      text("Finds an error of the server in its log."),
			"errors": object{"type": "array", "description": "Each thing that is wrong with the request.", "items": object{
				"type": "object", "required": []any{"code", "detail"},
				"properties": object{
					"code": s.enumSchema(schema.Types["ErrorCode"]), "detail": text("One sentence for an end user."),
					"in":      object{"type": "string", "enum": []any{inPath, inQuery, inHeader, inBody}, "description": "Where it stands."},
					"pointer": text("A JSON pointer (RFC 6901) to it."),
				},
			}},
		},
	}
	return s
}

// withDescription sets the description of a schema; OpenAPI 3.1 allows one beside $ref.
func withDescription(schema object, about string) object {
	if about != "" {
		schema["description"] = about
	}
	return schema
}

// nullableSchema is a schema that allows null, too.
func nullableSchema(schema object) object {
	switch t := schema["type"].(type) {
	case string:
		schema["type"] = []any{t, "null"}
	case []any:
		schema["type"] = append(slices.Clone(t), "null")
	case nil:
		if len(schema) == 0 {
			return schema // anything, so null, too
		}
		return object{"anyOf": []any{schema, object{"type": "null"}}}
	}
	if values, ok := schema["enum"].([]any); ok {
		schema["enum"] = append(slices.Clone(values), nil)
	}
	return schema
}

// inputSchema is the schema of a variable's values.
func (s *schemaWriter) inputSchema(p *param) object {
	schema := s.typeSchema(p.Type)
	if p.legacy != nil && p.legacy.variable == "legacyId" || p.from.Text {
		schema["type"], schema["examples"] = []any{"string", "integer"}, []any{5}
		if !p.Type.NonNull {
			schema = nullableSchema(schema)
		}
	}
	if v := p.DefaultValue; v != nil && v.Kind != ast.NullValue {
		if value, err := v.Value(nil); err == nil {
			if v.Kind == ast.ListValue && len(v.Children) == 0 {
				value = []any{} // not null
			}
			schema["default"] = value
		}
	}
	return schema
}

func (s *schemaWriter) typeSchema(t *ast.Type) object {
	schema := object{}
	if t.Elem != nil {
		schema["type"], schema["items"] = "array", s.typeSchema(t.Elem)
	} else if def := s.schema.Types[t.NamedType]; def.Kind == ast.InputObject {
		schema = s.inputObject(def)
	} else {
		schema = s.leafSchema(def)
	}
	if !t.NonNull {
		return nullableSchema(schema)
	}
	return schema
}

func (s *schemaWriter) inputObject(def *ast.Definition) object {
	ref := object{"$ref": "#/components/schemas/" + def.Name}
	if s.schemas[def.Name] != nil {
		return ref
	}
	s.schemas[def.Name] = object{} // for types that nest in themselves
	properties, required := object{}, []any{}
	for _, f := range def.Fields {
		properties[snakeCase(f.Name)] = withDescription(withBounds(withExample(s.typeSchema(f.Type), f.Description), f.Description), f.Description)
		if f.Type.NonNull && f.DefaultValue == nil {
			required = append(required, snakeCase(f.Name))
		}
	}
	schema := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	s.schemas[def.Name] = withDescription(schema, def.Description)
	return ref
}

// partialSchema is the schema of a variable in a merge patch: any part of an object.
func (s *schemaWriter) partialSchema(p *param, whole object) object {
	def := s.schema.Types[p.Type.Name()]
	if def.Kind != ast.InputObject || p.Type.Elem != nil {
		return whole
	}
	schema := maps.Clone(s.schemas[def.Name].(object))
	delete(schema, "required")
	return schema
}

// leafSchema is the schema of a scalar or an enum.
func (s *schemaWriter) leafSchema(def *ast.Definition) object {
	if def.Kind == ast.Enum {
		return s.enumSchema(def)
	}
	switch def.Name {
	case "Int":
		return object{"type": "integer", "format": "int32"}
	case "Long":
		return object{"type": "integer", "format": "int64"}
	case "Float":
		return object{"type": "number"}
	case "Boolean":
		return object{"type": "boolean"}
	case "DateTime":
		return object{"type": "string", "format": "date-time"}
	case "StringMap":
		return object{"type": "object", "additionalProperties": object{"type": "string"}}
	case "JSON":
		return object{}
	}
	return withExample(object{"type": "string"}, def.Description)
}

func (s *schemaWriter) enumSchema(def *ast.Definition) object {
	if s.schemas[def.Name] == nil {
		values := make([]any, len(def.EnumValues))
		var about strings.Builder
		about.WriteString(def.Description + "\n")
		for i, v := range def.EnumValues {
			values[i] = v.Name
			fmt.Fprintf(&about, "\n- `%s`: %s", v.Name, v.Description)
		}
		s.schemas[def.Name] = object{"type": "string", "enum": values, "description": errorTexts.Replace(about.String())}
	}
	return object{"$ref": "#/components/schemas/" + def.Name}
}

// errorTexts writes what the schema says of error codes for callers of REST.
var errorTexts = strings.NewReplacer(
	"in `UserError.code` and in `extensions.code`", "in `code`",
	"the request id in `extensions`", "`request_id`",
	"The HTTP request is not a GraphQL request.", "The HTTP request is malformed, or not one that the path takes.",
	"`extensions.retryAfter`", "`Retry-After`",
	"call `refreshSession`", "call `POST /auth/refresh`",
	"`first` or `last`", "`limit` or `last`",
	"Read again, then subscribe after `eventCursor`.", "Take the cursor of `GET /events?last=1`, read again, and go on after that cursor.",
	"that `ifVersion` expects; the payload carries it as it is", "that `If-Match` names; `current_version` is the one that it is at",
	"`expectedTotal` says; the payload carries what it costs", "`expected_total` says",
)

// outputSchema is the schema of a result.
func (s *schemaWriter) outputSchema(rt *route, shown *ast.Field) object {
	schema := s.outputTypeSchema(rt, shown.Definition.Type, shown, "")
	if t := schema["anyOf"]; t != nil {
		schema = t.([]any)[0].(object) // no result is a 404
	}
	if len(rt.rest.Constants) == 0 {
		return schema
	}
	properties, required := object{}, []any{}
	for _, c := range rt.rest.Constants {
		properties[c.Name] = object{"type": "string", "const": c.Value, "examples": []any{c.Value}}
		required = append(required, c.Name)
	}
	return object{"allOf": []any{schema, object{"type": "object", "properties": properties, "required": required}}}
}

func (s *schemaWriter) outputTypeSchema(rt *route, t *ast.Type, f *ast.Field, parent string) object {
	schema := object{}
	switch {
	case t.Elem != nil:
		schema["type"], schema["items"] = "array", s.outputTypeSchema(rt, t.Elem, f, parent)
	case len(f.SelectionSet) > 0:
		schema = s.outputObject(rt, f, parent)
	default:
		schema = s.leafSchema(s.schema.Types[t.NamedType])
	}
	if !t.NonNull {
		return nullableSchema(schema)
	}
	return schema
}

// memberSchema is the schema of a member of an object; of a connection that of its
// nodes.
func (s *schemaWriter) memberSchema(rt *route, f *ast.Field, parent string) object {
	nodes := nodesOf(f)
	if nodes == nil {
		return s.outputTypeSchema(rt, f.Definition.Type, f, parent)
	}
	schema := s.outputTypeSchema(rt, nodes.Definition.Type, nodes, parent)
	if !f.Definition.Type.NonNull {
		return nullableSchema(schema)
	}
	return schema
}

// outputObject names what is selected of an object after its type or, if something
// else of that has the name, after the place where it is shown.
func (s *schemaWriter) outputObject(rt *route, f *ast.Field, parent string) object {
	def := rt.typeOf(f)
	properties, required := object{}, []any{}
	legacy := false
	for _, sub := range fieldsOf(f.SelectionSet) {
		legacy = legacy || sub.Alias == legacyKey
		if strings.HasPrefix(sub.Alias, hiddenPrefix) || properties[sub.Alias] != nil {
			continue
		}
		about := sub.Definition.Description
		schema := withExample(s.memberSchema(rt, sub, def.Name), about)
		if sub.Alias == "id" && legacy {
			schema["type"] = []any{"string", "integer"}
			about += " For an object from the former system, its legacy id."
		}
		properties[sub.Alias] = withDescription(schema, about)
		required = append(required, sub.Alias)
	}
	schema := withDescription(object{"type": "object", "properties": properties, "required": required}, def.Description)
	for _, name := range []string{def.Name, parent + def.Name, rt.op.Name + parent + def.Name} {
		if old := s.schemas[name]; old == nil || reflect.DeepEqual(old, schema) {
			s.schemas[name] = schema
			return object{"$ref": "#/components/schemas/" + name}
		}
	}
	return schema
}

// forExample matches the example in a description of the schema.
var forExample = regexp.MustCompile("e\\.g\\. `\"?([^`\"]+)\"?`")

func withExample(schema object, about string) object {
	match := forExample.FindStringSubmatch(about)
	if match != nil && schema["$ref"] == nil && schema["examples"] == nil && takesText(schema) {
		schema["examples"] = []any{match[1]}
	}
	return schema
}

func takesText(schema object) bool {
	if list, ok := schema["type"].([]any); ok {
		return slices.Contains(list, any("string"))
	}
	return schema["type"] == "string"
}

// paramDescription is the description, in the schema, of the input that a variable fills.
func (rt *route) paramDescription(p *param) string {
	root := rt.answer.fields
	for _, f := range root {
		for _, arg := range f.Arguments {
			if def := f.Definition.Arguments.ForName(arg.Name); def != nil {
				if text := variableDescription(arg.Value, p.Variable, def.Description); text != "" {
					return text
				}
			}
		}
	}
	return ""
}

// variableDescription finds a variable in a literal that the text describes.
func variableDescription(v *ast.Value, variable, text string) string {
	if v.Kind == ast.Variable && v.Raw == variable {
		return text
	}
	for _, child := range v.Children {
		about := ""
		if v.Definition != nil {
			if f := v.Definition.Fields.ForName(child.Name); f != nil {
				about = f.Description
			}
		}
		if found := variableDescription(child.Value, variable, about); found != "" {
			return found
		}
	}
	return ""
}

// exampleValues are examples by property name, where the schema has none.
var exampleValues = map[string]any{ //nolint:gochecknoglobals // a table
	"username": "ada", "email": "ada@example.com", "password": "a long enough password", "login": "ada", "sku": "TEA-GREEN", "name": "Green tea",
	"description": "From the hills.", "note": "Please ring twice.", "reason": "Ordered by mistake.", "limit": 20, "url": "http://127.0.0.1:9000", "quantity": 2, "by": 10, "stock": 10,
}

// exampleNamed is the example of a property.
func exampleNamed(name string, schema, schemas object) any {
	v, known := exampleValues[name]
	if _, text := v.(string); known && text == takesText(schema) && schema["examples"] == nil && schema["$ref"] == nil {
		return v
	}
	return exampleOf(schema, schemas)
}

// exampleOf makes an example that fits a schema.
func exampleOf(schema, schemas object) any {
	if list, ok := schema["examples"].([]any); ok && len(list) > 0 {
		return list[0]
	}
	if ref, ok := schema["$ref"].(string); ok {
		return exampleOf(schemas[strings.TrimPrefix(ref, "#/components/schemas/")].(object), schemas)
	}
	if list, ok := schema["anyOf"].([]any); ok && schema["type"] == nil {
		return exampleOf(list[0].(object), schemas)
	}
	if list, ok := schema["allOf"].([]any); ok {
		all := object{}
		for _, part := range list {
			maps.Copy(all, exampleOf(part.(object), schemas).(object))
		}
		return all
	}
	if values, ok := schema["enum"].([]any); ok {
		return values[0]
	}
	kind := schema["type"]
	if list, ok := kind.([]any); ok {
		kind = list[0]
	}
	return exampleOfKind(kind, schema, schemas)
}

func exampleOfKind(kind any, schema, schemas object) any {
	switch kind {
	case "object":
		out := object{}
		properties, _ := schema["properties"].(object)
		for name, p := range properties {
			out[name] = exampleNamed(name, p.(object), schemas)
		}
		return out
	case "array":
		return []any{exampleOf(schema["items"].(object), schemas)}
	case "integer", "number":
		return 1
	case "boolean":
		return true
	}
	if schema["format"] == "date-time" {
		return "2026-03-01T12:30:00.25Z"
	}
	return "text"
}
