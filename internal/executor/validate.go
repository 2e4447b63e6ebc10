package executor

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/validator/core"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/backplane-dev/backplane/internal/fault"
)

// ruleSet holds the library's rules that look at one node or one definition at a
// time. This package replaces the rules that follow fragments, since the library's
// visit a fragment once for every definition that reaches it, and compare all fields
// with all others, which is quadratic.
type ruleSet struct {
	local   []core.Rule
	suggest bool
}

func newRuleSet(suggest bool, scalars map[string]func(any) error) *ruleSet {
	r := &ruleSet{suggest: suggest, local: []core.Rule{
		rules.FragmentsOnCompositeTypesRule,
		rules.KnownDirectivesRule,
		rules.KnownFragmentNamesRule,
		rules.KnownRootTypeRule,
		rules.LoneAnonymousOperationRule,
		rules.PossibleFragmentSpreadsRule,
		rules.ProvidedRequiredArgumentsRule,
		rules.UniqueArgumentNamesRule,
		rules.UniqueDirectivesPerLocationRule,
		rules.UniqueInputFieldNamesRule,
		rules.UniqueOperationNamesRule,
		rules.UniqueVariableNamesRule,
		rules.VariablesAreInputTypesRule,
		{Name: "NumbersInRange", RuleFunc: numbersInRange},
		{Name: "ScalarsOfCorrectForm", RuleFunc: scalarsOfCorrectForm(scalars)},
	}}
	if suggest {
		r.local = append(r.local, rules.FieldsOnCorrectTypeRule, rules.KnownArgumentNamesRule,
			rules.KnownTypeNamesRule, rules.ScalarLeafsRule, rules.ValuesOfCorrectTypeRule)
		return r
	}
	r.local = append(r.local, rules.FieldsOnCorrectTypeRuleWithoutSuggestions, rules.KnownArgumentNamesRuleWithoutSuggestions,
		rules.KnownTypeNamesRuleWithoutSuggestions, rules.ScalarLeafsRuleWithoutSuggestions, rules.ValuesOfCorrectTypeRuleWithoutSuggestions)
	return r
}

// validateDocument returns why the document does not fit the schema: at most
// limits.Errors errors, and one more if there are others. It annotates the document
// with the types of the schema.
func (r *ruleSet) validateDocument(schema *ast.Schema, doc *document, limits Limits) gqlerror.List {
	found := &errorCollector{limit: limits.Errors, seen: map[errorKey]bool{}}
	found.runUntilFull(func() {
		r.walkDefinitions(schema, doc, found)
		checkFragments(doc, found)
		checkVariables(doc, found)
		checkSubscriptions(doc, found)
		if len(found.errs) == 0 {
			checkMerging(schema, doc, limits, found)
		}
	})
	return found.errs
}

// walkDefinitions runs the local rules over every definition once. The library's walker
// enters a fragment wherever it is spread, so it gets an empty copy of each fragment
// first and the real fragments after them, which it visits once as definitions. It
// looks names up to the first match, so spreads find the empty copies.
func (r *ruleSet) walkDefinitions(schema *ast.Schema, doc *document, found *errorCollector) {
	var fragments ast.FragmentDefinitionList
	for _, f := range doc.ast.Fragments {
		fragments = append(fragments, &ast.FragmentDefinition{Name: f.Name, TypeCondition: f.TypeCondition, Position: f.Position})
	}
	fragments = append(fragments, doc.ast.Fragments...)
	observers := &core.Events{}
	for _, rule := range r.local {
		rule.RuleFunc(observers, func(options ...core.ErrorOption) {
			err := &gqlerror.Error{Rule: rule.Name}
			for _, o := range options {
				o(err)
			}
			if r.suggest {
				nameEnumValues(schema, err)
			}
			found.add(err)
		})
	}
	observers.OnFragmentSpread(func(_ *core.Walker, spread *ast.FragmentSpread) {
		spread.Definition = doc.fragments[spread.Name]
	})
	core.Walk(schema, &ast.QueryDocument{Operations: doc.ast.Operations, Fragments: fragments}, observers)
}

// unknownEnumValue is the library's error about a value that an enum has not. It may suggest some.
var unknownEnumValue = regexp.MustCompile(`^(Value "[^"]*" does not exist in "[\[]*(\w+)[\]!]*" enum\.)`)

// nameEnumValues adds to such an error all values that the enum has.
func nameEnumValues(schema *ast.Schema, err *gqlerror.Error) {
	parts := unknownEnumValue.FindStringSubmatch(err.Message)
	if parts == nil {
		return
	}
	if def := schema.Types[parts[2]]; def != nil && def.Kind == ast.Enum {
		err.Message = parts[1] + " Its values are " + listEnumValues(def) + "."
	}
}

// numbersInRange refuses numbers that their position cannot hold: the library checks only the
// form, and execution would fail, maybe after a mutation has run. It writes whole numbers
// of an ID and a Float as values of these, since both may have any number of digits.
func numbersInRange(observers *core.Events, addError core.AddErrFunc) {
	observers.OnValue(func(_ *core.Walker, v *ast.Value) {
		typeName := ""
		if v.Definition != nil {
			typeName = v.Definition.Name
		}
		switch {
		case v.Kind == ast.IntValue && typeName == "ID":
			v.Kind = ast.StringValue
		case v.Kind == ast.IntValue && typeName == "Float":
			v.Kind = ast.FloatValue
		}
		if fitsNumber(v, typeName) {
			return
		}
		if typeName == "Int" {
			addError(core.Message("Int cannot represent %s: it does not fit 32 bits.", v.Raw), core.At(v.Position))
			return
		}
		addError(core.Message("The number %s does not fit 64 bits.", v.Raw), core.At(v.Position))
	})
}

// scalarsOfCorrectForm refuses literals that a custom scalar cannot be read from: execution would fail,
// maybe after a mutation has run.
func scalarsOfCorrectForm(scalars map[string]func(any) error) core.RuleFunc {
	return func(observers *core.Events, addError core.AddErrFunc) {
		observers.OnValue(func(_ *core.Walker, v *ast.Value) {
			if v.Definition == nil || v.Definition.Kind != ast.Scalar || scalars[v.Definition.Name] == nil {
				return
			}
			literal, ok := literalValue(v)
			if !ok || literal == nil {
				return
			}
			if err := scalars[v.Definition.Name](literal); err != nil {
				addError(core.Message("%s", fault.From(err).Message), core.At(v.Position))
			}
		})
	}
}

// literalValue returns a literal as JSON has it; ok is false if it holds variables.
func literalValue(v *ast.Value) (value any, ok bool) {
	switch v.Kind {
	case ast.Variable:
		return nil, false
	case ast.IntValue, ast.FloatValue:
		return json.Number(v.Raw), true
	case ast.ListValue:
		items := make([]any, len(v.Children))
		for i, c := range v.Children {
			if items[i], ok = literalValue(c.Value); !ok {
				return nil, false
			}
		}
		return items, true
	case ast.ObjectValue:
		object := make(map[string]any, len(v.Children))
		for _, c := range v.Children {
			if object[c.Name], ok = literalValue(c.Value); !ok {
				return nil, false
			}
		}
		return object, true
	default:
		value, err := v.Value(nil)
		return value, err == nil
	}
}

// fitsNumber reports whether a literal is no number or one that its type can hold.
func fitsNumber(v *ast.Value, typeName string) bool {
	switch v.Kind {
	case ast.IntValue:
		n, err := strconv.ParseInt(v.Raw, 10, 64)
		return err == nil && (typeName != "Int" || n >= math.MinInt32 && n <= math.MaxInt32)
	case ast.FloatValue:
		_, err := strconv.ParseFloat(v.Raw, 64)
		return err == nil
	default:
		return true
	}
}

// checkFragments reports fragments that share a name or that no operation uses.
func checkFragments(doc *document, found *errorCollector) {
	used := map[string]bool{}
	for _, op := range doc.ast.Operations {
		doc.collectFragmentNames(op.SelectionSet, used)
	}
	for _, f := range doc.ast.Fragments {
		if doc.fragments[f.Name] != f {
			found.addf(f.Position, "There can be only one fragment named %q.", f.Name)
		}
		if !used[f.Name] {
			found.addf(f.Position, "Fragment %q is never used.", f.Name)
		}
	}
}

// collectFragmentNames adds the names of all fragments that the set spreads, directly
// or through others.
func (d *document) collectFragmentNames(set ast.SelectionSet, names map[string]bool) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			d.collectFragmentNames(sel.SelectionSet, names)
		case *ast.InlineFragment:
			d.collectFragmentNames(sel.SelectionSet, names)
		case *ast.FragmentSpread:
			if def := d.fragments[sel.Name]; def != nil && !names[sel.Name] {
				names[sel.Name] = true
				d.collectFragmentNames(def.SelectionSet, names)
			}
		}
	}
}

// checkSubscriptions reports subscriptions with more than one root field, and with
// introspection at the root.
func checkSubscriptions(doc *document, found *errorCollector) {
	for _, op := range doc.ast.Operations {
		if op.Operation != ast.Subscription {
			continue
		}
		fields := doc.collectFields([]ast.SelectionSet{op.SelectionSet})
		for _, f := range fields {
			if f.Alias != fields[0].Alias {
				found.addf(f.Position, "A subscription must select only one field at its root.")
			}
			if strings.HasPrefix(f.Name, "__") {
				found.addf(f.Position, "A subscription must not select an introspection field at its root.")
			}
		}
	}
}

// errorKey identifies an error of a document: the walk may report one twice, since it
// sees each fragment twice.
type errorKey struct {
	message string
	at      gqlerror.Location
}

// errorCollector collects errors up to a limit.
type errorCollector struct {
	limit int
	errs  gqlerror.List
	seen  map[errorKey]bool
}

// errorLimitReached is the panic that ends a validation once it has as many errors as
// are shown.
type errorLimitReached struct{}

// runUntilFull runs check until it returns or the limit is reached.
func (f *errorCollector) runUntilFull(check func()) {
	defer func() {
		if r := recover(); r != nil && r != any(errorLimitReached{}) {
			panic(r)
		}
	}()
	check()
}

// add adds the error unless it is there. At the limit it panics with
// errorLimitReached: the library's walker cannot be stopped in another way, and each
// further error costs a search for suggestions.
func (f *errorCollector) add(err *gqlerror.Error) {
	err = presentDocumentError(err, fault.GraphQLValidationFailed)
	id := errorKey{message: err.Message}
	if len(err.Locations) > 0 {
		id.at = err.Locations[0]
	}
	if f.seen[id] {
		return
	}
	f.seen[id] = true
	if len(f.errs) == f.limit {
		f.errs = append(f.errs, presentError(tooManyErrors(f.limit)))
		panic(errorLimitReached{})
	}
	f.errs = append(f.errs, err)
}

func (f *errorCollector) addf(pos *ast.Position, format string, args ...any) {
	f.add(gqlerror.ErrorPosf(pos, format, args...))
}
