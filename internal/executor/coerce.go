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
	"github.com/backplane-dev/backplane/internal/validate"
)

// coerceVariables returns the variables of the operation as the specification
// coerces them: strictly, so that a number is no String and text no Int. Values
// of undefined variables are ignored. The result shares only the values of custom
// scalars with its input. Its error joins all mistakes, up to the limit; describe names
// a value in messages, nil as a variable.
func (c *coercer) coerceVariables(op *ast.OperationDefinition, given map[string]any, describe func(path []string) string) (map[string]any, error) {
	coerced := make(map[string]any, len(op.VariableDefinitions))
	for _, def := range op.VariableDefinitions {
		path := valuePath{name: def.Variable, describe: describe}
		v, ok := given[def.Variable]
		c.singleIsList = !ok || !c.strictLists
		switch {
		case !ok && def.DefaultValue != nil:
			value, err := def.DefaultValue.Value(nil)
			if err != nil {
				c.addError(path.errorf("has a default that is out of range"))
				continue
			}
			v, ok = value, true
		case !ok && def.Type.NonNull:
			c.addError(path.errorf("is required"))
		}
		if ok {
			c.checkNull(def, v, &path)
			coerced[def.Variable] = c.coerceValue(def.Type, v, &path)
		}
	}
	return coerced, errors.Join(c.errs...)
}

// checkNull refuses the null of a nullable variable that the operation uses where none may be.
func (c *coercer) checkNull(def *ast.VariableDefinition, v any, at *valuePath) {
	use, used := c.nonNull[def.Variable]
	switch {
	case v != nil || !used:
	case at.describe != nil: // such a client does not see the document
		c.addError(at.errorf("must not be null"))
	default:
		c.addError(at.errorf("must not be null: it is used as %s, of type \"%s\"", use.at, use.value.ExpectedType))
	}
}

// valuePath is the position of a value in the variables.
type valuePath struct {
	parent   *valuePath
	name     string
	depth    int
	describe func(path []string) string // names a value in messages; nil as a variable
}

// maxValueDepth bounds the nesting of a variable's value. Types that nest in
// themselves would let a client choose it.
const maxValueDepth = 50

func (p *valuePath) childPath(name string) *valuePath {
	return &valuePath{p, name, p.depth + 1, p.describe}
}

func (p *valuePath) pathNames() []string {
	if p == nil {
		return nil
	}
	return append(p.parent.pathNames(), p.name)
}

// errorf returns an error about the value at the path. It does not repeat the value,
// which may be secret.
func (p *valuePath) errorf(format string, args ...any) error {
	path := p.pathNames()
	subject := "Variable \"$" + strings.Join(path, ".") + "\""
	if p.describe != nil {
		subject = p.describe(path)
	}
	err := fault.New(fault.BadInput, format, args...)
	err.Message = truncate(subject + " " + err.Message + ".")
	return err.At(path...)
}

// coercer coerces the values of one operation and collects the errors.
type coercer struct {
	schema  *ast.Schema
	scalars map[string]func(any) error // checks of custom scalars, by name
	limit   int                        // number of errors after which it stops
	nonNull map[string]variableUsage   // variables that must not be null though their types allow it
	errs    []error

	hideValues   bool // of enums, in errors
	strictLists  bool // a single item of a request is no list
	singleIsList bool // a single item of the value being coerced is one
}

func (c *coercer) addError(err error) {
	if err != nil && !c.isFull() {
		c.errs = append(c.errs, err)
	}
}

func (c *coercer) isFull() bool { return len(c.errs) >= c.limit }

// coerceValue returns the coerced value, which is valid only if no error was added.
func (c *coercer) coerceValue(t *ast.Type, v any, at *valuePath) any {
	if at.depth > maxValueDepth {
		c.addError(at.errorf("is nested too deeply"))
		return nil
	}
	if v == nil {
		if t.NonNull {
			c.addError(at.errorf("must not be null"))
		}
		return nil
	}
	if t.Elem != nil {
		return c.coerceList(t.Elem, v, at)
	}
	def := c.schema.Types[t.NamedType]
	if def.Kind == ast.InputObject {
		return c.coerceObject(def, v, at)
	}
	out, err := c.coerceLeaf(def, v, at)
	c.addError(err)
	return out
}

func (c *coercer) coerceLeaf(def *ast.Definition, v any, at *valuePath) (any, error) {
	if def.Kind == ast.Enum {
		return c.coerceEnum(def, v, at)
	}
	out, err := coerceScalar(def.Name, v, at)
	check := c.scalars[def.Name]
	if err != nil || check == nil {
		return out, err
	}
	if err := check(v); err != nil {
		f := fault.From(err)
		wrong := fault.From(at.errorf("%s", strings.TrimSuffix(strings.TrimPrefix(f.Message, "This "), ".")))
		wrong.Code = f.Code
		return nil, wrong
	}
	return out, nil
}

func (c *coercer) coerceList(elem *ast.Type, v any, at *valuePath) any {
	items, ok := v.([]any)
	if !ok && !c.singleIsList {
		c.addError(at.errorf("must be a list"))
		return nil
	}
	if !ok {
		items = []any{v} // a single item is a list of one
	}
	if limit := c.listLimit(elem); len(items) > limit {
		c.addError(at.errorf("must have at most %d items", limit))
		return nil
	}
	out := make([]any, len(items))
	for i, item := range items {
		if c.isFull() {
			return nil
		}
		out[i] = c.coerceValue(elem, item, at.childPath(strconv.Itoa(i)))
	}
	return out
}

// maxListItems bounds a list in the variables. No resolver takes more, and databases bound the
// parameters of a statement.
const maxListItems = 10_000

// listLimit returns how many items a list may have: of an enum no more than it has values, as
// such a list is a set.
func (c *coercer) listLimit(elem *ast.Type) int {
	if def := c.schema.Types[elem.NamedType]; def != nil && def.Kind == ast.Enum {
		return len(def.EnumValues)
	}
	return maxListItems
}

func (c *coercer) coerceEnum(def *ast.Definition, v any, at *valuePath) (any, error) {
	s, ok := v.(string)
	if !ok {
		return nil, at.errorf("must be one of the values of %s, as text", def.Name)
	}
	if def.EnumValues.ForName(s) != nil {
		return s, nil
	}
	if c.hideValues {
		return nil, at.errorf("is not a value of %s", def.Name)
	}
	return nil, at.errorf("is not a value of %s, which has %s", def.Name, listEnumValues(def))
}

// listEnumValues returns the values of an enum for an error message, which cuts a long list.
func listEnumValues(def *ast.Definition) string {
	names := make([]string, len(def.EnumValues))
	for i, v := range def.EnumValues {
		names[i] = v.Name
	}
	return strings.Join(names, ", ")
}

func (c *coercer) coerceObject(def *ast.Definition, v any, at *valuePath) any {
	given, ok := v.(map[string]any)
	if !ok {
		c.addError(at.errorf("must be an object of type %s", def.Name))
		return nil
	}
	out, before := make(map[string]any, len(given)), len(c.errs)
	for _, f := range def.Fields {
		item, ok := given[f.Name]
		switch {
		case ok:
			out[f.Name] = c.coerceValue(f.Type, item, at.childPath(f.Name))
		case f.Type.NonNull && f.DefaultValue == nil:
			c.addError(at.childPath(f.Name).errorf("is required"))
		}
	}
	if len(out) < len(given) {
		c.refuseUnknownFields(def, given, at)
	} else if len(c.errs) == before {
		c.addError(checkOneOf(def, out, at))
	}
	return out
}

// refuseUnknownFields refuses each field that the type does not have, in the order of
// names, so that equal requests get equal responses.
func (c *coercer) refuseUnknownFields(def *ast.Definition, given map[string]any, at *valuePath) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if c.isFull() {
			return
		}
		if def.Fields.ForName(name) == nil {
			c.addError(at.childPath(truncate(name)).errorf("is not a field of %s", def.Name))
		}
	}
}

func checkOneOf(def *ast.Definition, out map[string]any, at *valuePath) error {
	if def.Directives.ForName("oneOf") == nil {
		return nil
	}
	for _, v := range out {
		if len(out) == 1 && v != nil {
			return nil
		}
	}
	return at.errorf("must have exactly one field, which is not null")
}

func coerceScalar(name string, v any, at *valuePath) (any, error) {
	switch name {
	case "String":
		if s, ok := v.(string); ok {
			return s, checkText(s, at)
		}
		return nil, at.errorf("must be text")
	case "Boolean":
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, at.errorf("must be true or false")
	case "Int":
		if n, ok := toInt64(v); ok && n >= math.MinInt32 && n <= math.MaxInt32 {
			return n, nil
		}
		return nil, at.errorf("must be a whole number of at most 32 bits")
	case "Float":
		if f, ok := toFloat64(v); ok {
			return f, nil
		}
		return nil, at.errorf("must be a number")
	case "ID":
		return coerceID(v, at)
	default:
		return v, checkJSON(v, at)
	}
}

func coerceID(v any, at *valuePath) (any, error) {
	if s, ok := v.(string); ok {
		return s, checkText(s, at)
	}
	if n, ok := toInt64(v); ok {
		return strconv.FormatInt(n, 10), nil
	}
	return nil, at.errorf("must be text or a whole number")
}

func toInt64(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		return validate.WholeNumber(string(v))
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	}
	return 0, false
}

func toFloat64(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil
	case float64:
		return v, !math.IsInf(v, 0) && !math.IsNaN(v)
	}
	n, ok := toInt64(v)
	return float64(n), ok
}

// checkText refuses text that a database cannot store.
func checkText(s string, at *valuePath) error {
	if strings.IndexByte(s, 0) >= 0 {
		return at.errorf("must not contain the null character, or half of a surrogate pair")
	}
	if !utf8.ValidString(s) {
		return at.errorf("must be valid UTF-8")
	}
	return nil
}

// checkJSON checks all text inside a custom scalar's value.
func checkJSON(v any, at *valuePath) error {
	if at.depth > maxValueDepth {
		return at.errorf("is nested too deeply")
	}
	switch v := v.(type) {
	case string:
		return checkText(v, at)
	case []any:
		for i, item := range v {
			if err := checkJSON(item, at.childPath(strconv.Itoa(i))); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, item := range v {
			if err := checkText(name, at); err != nil {
				return err
			}
			if err := checkJSON(item, at.childPath(truncate(name))); err != nil {
				return err
			}
		}
	}
	return nil
}
