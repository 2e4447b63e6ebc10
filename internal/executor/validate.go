package executor

import (
	"math"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/validator/core"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/backplane-dev/backplane/internal/fault"
)

// ruleSet holds the library's rules that look at one node or one definition at
// a time. The rules that follow fragments are our own, since the library's
// visit a fragment once for every definition that reaches it, and compare all
// fields with all others.
type ruleSet struct{ local []core.Rule }

func newRuleSet(suggest bool) *ruleSet {
	r := &ruleSet{local: []core.Rule{
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
		{Name: "IntInRange", RuleFunc: intInRange},
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

// validate returns why the document does not fit the schema: at most
// limits.Errors errors, and one more if there are others. It annotates the
// document with the types of the schema.
func (r *ruleSet) validate(schema *ast.Schema, doc *document, limits Limits) gqlerror.List {
	found := &findings{limit: limits.Errors, seen: map[finding]bool{}}
	found.collect(func() {
		r.walk(schema, doc, found)
		checkFragments(doc, found)
		checkVariables(doc, found)
		checkSubscriptions(doc, found)
		if len(found.errs) == 0 {
			checkMerging(schema, doc, limits, found)
		}
	})
	return found.errs
}

// walk runs the local rules over every definition once. The library's walker
// enters a fragment wherever it is spread; it is given hollow fragments to
// enter, and after them the real ones, which it then visits on their own. It
// looks names up to the first match, so spreads find the hollow ones.
func (r *ruleSet) walk(schema *ast.Schema, doc *document, found *findings) {
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
			found.add(err)
		})
	}
	observers.OnFragmentSpread(func(_ *core.Walker, spread *ast.FragmentSpread) {
		spread.Definition = doc.fragments[spread.Name]
	})
	core.Walk(schema, &ast.QueryDocument{Operations: doc.ast.Operations, Fragments: fragments}, observers)
}

// intInRange refuses integers that Int cannot hold: the library looks only at
// the form, and executing would fail in words meant for programmers.
func intInRange(observers *core.Events, addError core.AddErrFunc) {
	observers.OnValue(func(_ *core.Walker, v *ast.Value) {
		if v.Kind != ast.IntValue || v.Definition == nil || v.Definition.Name != "Int" {
			return
		}
		if n, err := strconv.ParseInt(v.Raw, 10, 64); err != nil || n < math.MinInt32 || n > math.MaxInt32 {
			addError(core.Message("Int cannot represent %s: it does not fit 32 bits.", v.Raw), core.At(v.Position))
		}
	})
}

// checkFragments reports fragments that share a name or that no operation uses.
func checkFragments(doc *document, found *findings) {
	used := map[string]bool{}
	for _, op := range doc.ast.Operations {
		doc.reach(op.SelectionSet, used)
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

// reach adds the names of all fragments that the set spreads, and they spread.
func (d *document) reach(set ast.SelectionSet, names map[string]bool) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			d.reach(sel.SelectionSet, names)
		case *ast.InlineFragment:
			d.reach(sel.SelectionSet, names)
		case *ast.FragmentSpread:
			if def := d.fragments[sel.Name]; def != nil && !names[sel.Name] {
				names[sel.Name] = true
				d.reach(def.SelectionSet, names)
			}
		}
	}
}

// checkSubscriptions reports subscriptions with more than one root field, and
// with one that is not a subscription's own.
func checkSubscriptions(doc *document, found *findings) {
	for _, op := range doc.ast.Operations {
		if op.Operation != ast.Subscription {
			continue
		}
		fields := doc.gather([]ast.SelectionSet{op.SelectionSet})
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

// finding tells two errors of one document apart: the walk sees fragments
// twice, hollow and real.
type finding struct {
	message string
	at      gqlerror.Location
}

// findings collects errors up to a limit.
type findings struct {
	limit int
	errs  gqlerror.List
	seen  map[finding]bool
}

// enough ends a validation that has found as many errors as are shown.
type enough struct{}

// collect runs check until it returns or has found enough.
func (f *findings) collect(check func()) {
	defer func() {
		if r := recover(); r != nil && r != any(enough{}) {
			panic(r)
		}
	}()
	check()
}

// add keeps the error unless it is known. Past the limit it does not return:
// the library's walker offers no other way to be stopped, and each further
// error costs a search for suggestions.
func (f *findings) add(err *gqlerror.Error) {
	err = shorten(err, fault.ValidationFailed)
	id := finding{message: err.Message}
	if len(err.Locations) > 0 {
		id.at = err.Locations[0]
	}
	if f.seen[id] {
		return
	}
	f.seen[id] = true
	if len(f.errs) == f.limit {
		f.errs = append(f.errs, present(tooManyErrors(f.limit)))
		panic(enough{})
	}
	f.errs = append(f.errs, err)
}

func (f *findings) addf(pos *ast.Position, format string, args ...any) {
	f.add(gqlerror.ErrorPosf(pos, format, args...))
}
