package executor

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// coerceVariables returns the variables of the operation as the specification
// coerces them: strictly, so that a number is no String and text no Int. Values
// of other names are ignored. What it returns shares nothing with its input but
// the values of custom scalars. Its error joins what is wrong, up to the limit;
// called says how it calls a value, nil as a variable.
func (c *coercer) coerceVariables(op *ast.OperationDefinition, given map[string]any, called func(path []string) string) (map[string]any, error) {
	coerced := make(map[string]any, len(op.VariableDefinitions))
	for _, def := range op.VariableDefinitions {
		path := place{name: def.Variable, called: called}
		v, ok := given[def.Variable]
		switch {
		case !ok && def.DefaultValue != nil:
			value, err := def.DefaultValue.Value(nil)
			if err != nil {
				c.refuse(path.wrong("has a default that is out of range"))
			}
			coerced[def.Variable] = value
		case !ok && def.Type.NonNull:
			c.refuse(path.wrong("is required"))
		case ok:
			coerced[def.Variable] = c.value(def.Type, v, &path)
		}
	}
	return coerced, errors.Join(c.errs...)
}

// place is where in the variables a value stands.
type place struct {
	parent *place
	name   string
	depth  int
	called func(path []string) string // how messages call a value; nil as a variable
}

// maxValueDepth bounds the nesting of a variable's value. Types that nest in
// themselves would let a client choose it.
const maxValueDepth = 50

func (p *place) below(name string) *place { return &place{p, name, p.depth + 1, p.called} }

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
	subject := "Variable \"$" + strings.Join(path, ".") + "\""
	if p.called != nil {
		subject = p.called(path)
	}
	err := fault.New(fault.Invalid, fault.BadInput, format, args...)
	err.Message = truncate(subject + " " + err.Message + ".")
	return err.At(path...)
}

// coercer coerces the values of one operation and gathers what is wrong.
type coercer struct {
	schema  *ast.Schema
	scalars map[string]func(any) error // checks of custom scalars, by name
	limit   int                        // after so many errors it looks no further
	errs    []error
}

func (c *coercer) refuse(err error) {
	if err != nil && !c.full() {
		c.errs = append(c.errs, err)
	}
}

func (c *coercer) full() bool { return len(c.errs) >= c.limit }

// value returns the value coerced; what it returns counts only if nothing was
// refused.
func (c *coercer) value(t *ast.Type, v any, at *place) any {
	if at.depth > maxValueDepth {
		c.refuse(at.wrong("is nested too deeply"))
		return nil
	}
	if v == nil {
		if t.NonNull {
			c.refuse(at.wrong("must not be null"))
		}
		return nil
	}
	if t.Elem != nil {
		return c.list(t.Elem, v, at)
	}
	def := c.schema.Types[t.NamedType]
	if def.Kind == ast.InputObject {
		return c.object(def, v, at)
	}
	out, err := c.leaf(def, v, at)
	c.refuse(err)
	return out
}

func (c *coercer) leaf(def *ast.Definition, v any, at *place) (any, error) {
	if def.Kind == ast.Enum {
		return enumValue(def, v, at)
	}
	out, err := scalar(def.Name, v, at)
	check := c.scalars[def.Name]
	if err != nil || check == nil {
		return out, err
	}
	if err := check(v); err != nil {
		f := fault.From(err)
		wrong := fault.From(at.wrong("%s", strings.TrimSuffix(strings.TrimPrefix(f.Message, "This "), ".")))
		wrong.Kind, wrong.Code = f.Kind, f.Code
		return nil, wrong
	}
	return out, nil
}

func (c *coercer) list(elem *ast.Type, v any, at *place) any {
	items, ok := v.([]any)
	if !ok {
		items = []any{v} // one item stands for a list of one
	}
	out := make([]any, len(items))
	for i, item := range items {
		if c.full() {
			return nil
		}
		out[i] = c.value(elem, item, at.below(strconv.Itoa(i)))
	}
	return out
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

func (c *coercer) object(def *ast.Definition, v any, at *place) any {
	given, ok := v.(map[string]any)
	if !ok {
		c.refuse(at.wrong("must be an object of type %s", def.Name))
		return nil
	}
	out, before := make(map[string]any, len(given)), len(c.errs)
	for _, f := range def.Fields {
		item, ok := given[f.Name]
		switch {
		case ok:
			out[f.Name] = c.value(f.Type, item, at.below(f.Name))
		case f.Type.NonNull && f.DefaultValue == nil:
			c.refuse(at.below(f.Name).wrong("is required"))
		}
	}
	if len(out) < len(given) {
		c.unknownFields(def, given, at)
	} else if len(c.errs) == before {
		c.refuse(checkOneOf(def, out, at))
	}
	return out
}

// unknownFields refuses each field that the type does not have, by name, so that
// equal requests get equal answers.
func (c *coercer) unknownFields(def *ast.Definition, given map[string]any, at *place) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if c.full() {
			return
		}
		if def.Fields.ForName(name) == nil {
			c.refuse(at.below(truncate(name)).wrong("is not a field of %s", def.Name))
		}
	}
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
