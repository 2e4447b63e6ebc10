package operation

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"

	"backplane/internal/fault"
)

// coerceVariables returns the variables of the operation as the specification
// coerces them: strictly, so that a number is no String and text no Int. Values
// of other names are ignored. What it returns shares nothing with its input but
// the values of custom scalars.
func coerceVariables(schema *ast.Schema, op *ast.OperationDefinition, given map[string]any) (map[string]any, error) {
	coerced := make(map[string]any, len(op.VariableDefinitions))
	c := coercer{schema}
	for _, def := range op.VariableDefinitions {
		path := place{name: def.Variable}
		v, ok := given[def.Variable]
		switch {
		case !ok && def.DefaultValue != nil:
			value, err := def.DefaultValue.Value(nil)
			if err != nil {
				return nil, path.wrong("has a default that is out of range")
			}
			coerced[def.Variable] = value
			continue
		case !ok && def.Type.NonNull:
			return nil, path.wrong("is required")
		case !ok:
			continue
		}
		value, err := c.value(def.Type, v, &path)
		if err != nil {
			return nil, err
		}
		coerced[def.Variable] = value
	}
	return coerced, nil
}

// place is where in the variables a value stands.
type place struct {
	parent *place
	name   string
	depth  int
}

// maxValueDepth bounds the nesting of a variable's value. Types that nest in
// themselves would let a client choose it.
const maxValueDepth = 50

func (p *place) below(name string) *place { return &place{p, name, p.depth + 1} }

func (p *place) path() []string {
	if p == nil {
		return nil
	}
	return append(p.parent.path(), p.name)
}

// wrong returns the error that what stands here is wrong. The value itself is
// not repeated.
func (p *place) wrong(format string, args ...any) error {
	path := p.path()
	err := fault.New(fault.Invalid, fault.BadInput, format, args...)
	err.Message = truncate("Variable \"$" + strings.Join(path, ".") + "\" " + err.Message + ".")
	return err.At(path...)
}

type coercer struct{ schema *ast.Schema }

func (c coercer) value(t *ast.Type, v any, at *place) (any, error) {
	if at.depth > maxValueDepth {
		return nil, at.wrong("is nested too deeply")
	}
	if v == nil {
		if t.NonNull {
			return nil, at.wrong("must not be null")
		}
		return nil, nil
	}
	if t.Elem != nil {
		return c.list(t.Elem, v, at)
	}
	def := c.schema.Types[t.NamedType]
	switch def.Kind {
	case ast.Enum:
		return enumValue(def, v, at)
	case ast.InputObject:
		return c.object(def, v, at)
	default:
		return scalar(def.Name, v, at)
	}
}

func (c coercer) list(elem *ast.Type, v any, at *place) (any, error) {
	items, ok := v.([]any)
	if !ok {
		items = []any{v} // one item stands for a list of one
	}
	out := make([]any, len(items))
	for i, item := range items {
		var err error
		if out[i], err = c.value(elem, item, at.below(strconv.Itoa(i))); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func enumValue(def *ast.Definition, v any, at *place) (any, error) {
	s, ok := v.(string)
	if !ok {
		return nil, at.wrong("must be one of the values of %s, as text", def.Name)
	}
	if def.EnumValues.ForName(s) == nil {
		return nil, at.wrong("is not a value of %s", def.Name)
	}
	return s, nil
}

func (c coercer) object(def *ast.Definition, v any, at *place) (any, error) {
	given, ok := v.(map[string]any)
	if !ok {
		return nil, at.wrong("must be an object of type %s", def.Name)
	}
	out := make(map[string]any, len(given))
	for _, f := range def.Fields {
		item, ok := given[f.Name]
		if !ok {
			if f.Type.NonNull && f.DefaultValue == nil {
				return nil, at.below(f.Name).wrong("is required")
			}
			continue
		}
		var err error
		if out[f.Name], err = c.value(f.Type, item, at.below(f.Name)); err != nil {
			return nil, err
		}
	}
	if len(out) < len(given) {
		return nil, unknownField(def, given, at)
	}
	return out, checkOneOf(def, out, at)
}

func unknownField(def *ast.Definition, given map[string]any, at *place) error {
	unknown := ""
	for name := range given { // the first by name, so that equal requests get equal answers
		if def.Fields.ForName(name) == nil && (unknown == "" || name < unknown) {
			unknown = name
		}
	}
	return at.below(truncate(unknown)).wrong("is not a field of %s", def.Name)
}

func checkOneOf(def *ast.Definition, out map[string]any, at *place) error {
	if def.Directives.ForName("oneOf") == nil {
		return nil
	}
	for _, v := range out {
		if len(out) == 1 && v != nil {
			return nil
		}
	}
	return at.wrong("must have exactly one field, which is not null")
}

func scalar(name string, v any, at *place) (any, error) {
	switch name {
	case "String":
		if s, ok := v.(string); ok {
			return s, checkText(s, at)
		}
		return nil, at.wrong("must be text")
	case "Boolean":
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, at.wrong("must be true or false")
	case "Int":
		if n, ok := wholeNumber(v); ok && n >= math.MinInt32 && n <= math.MaxInt32 {
			return n, nil
		}
		return nil, at.wrong("must be a whole number of at most 32 bits")
	case "Float":
		if f, ok := floatNumber(v); ok {
			return f, nil
		}
		return nil, at.wrong("must be a number")
	case "ID":
		return idValue(v, at)
	default:
		return v, checkJSON(v, at)
	}
}

func idValue(v any, at *place) (any, error) {
	if s, ok := v.(string); ok {
		return s, checkText(s, at)
	}
	if n, ok := wholeNumber(v); ok {
		return strconv.FormatInt(n, 10), nil
	}
	return nil, at.wrong("must be text or a whole number")
}

func wholeNumber(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.ParseInt(string(v), 10, 64)
		return n, err == nil
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	}
	return 0, false
}

func floatNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil
	case float64:
		return v, !math.IsInf(v, 0) && !math.IsNaN(v)
	}
	n, ok := wholeNumber(v)
	return float64(n), ok
}

// checkText refuses what no database takes as text.
func checkText(s string, at *place) error {
	if strings.IndexByte(s, 0) >= 0 {
		return at.wrong("must not contain the null character")
	}
	if !utf8.ValidString(s) {
		return at.wrong("must be valid UTF-8")
	}
	return nil
}

// checkJSON checks the text inside a custom scalar's value, whatever it is.
func checkJSON(v any, at *place) error {
	if at.depth > maxValueDepth {
		return at.wrong("is nested too deeply")
	}
	switch v := v.(type) {
	case string:
		return checkText(v, at)
	case []any:
		for i, item := range v {
			if err := checkJSON(item, at.below(strconv.Itoa(i))); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, item := range v {
			if err := checkText(name, at); err != nil {
				return err
			}
			if err := checkJSON(item, at.below(truncate(name))); err != nil {
				return err
			}
		}
	}
	return nil
}
