package executor

import (
	"slices"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
)

// readScopeDirective names the scope that an API key needs to read objects of a type.
const readScopeDirective = "readScope"

// ReadScopes returns the scopes that an API key needs to get all of a selection, each once.
// The selection is one of a validated document.
func ReadScopes(set ast.SelectionSet) []auth.Scope {
	var scopes []auth.Scope
	visitObjects(set, func(_ *ast.Field, s auth.Scope) (inside bool) {
		if s != "" && !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
		return true
	})
	return scopes
}

// MissingReadScope returns a scope that the caller lacks for a field of the selection that is
// never null, so that the response would have an error in place of the object around it; empty
// if there is none. A field that may be null is null for such a caller.
func MissingReadScope(p *auth.Principal, set ast.SelectionSet) auth.Scope {
	var missing auth.Scope
	visitObjects(set, func(f *ast.Field, s auth.Scope) (inside bool) {
		if s == "" || p.May(s) {
			return true
		}
		if f.Definition.Type.NonNull {
			missing = s
		}
		return false
	})
	return missing
}

// visitObjects calls visit for each field of the selection that has objects, with the scope
// that reading them takes, and goes on inside of it if visit says so.
func visitObjects(set ast.SelectionSet, visit func(f *ast.Field, s auth.Scope) (inside bool)) {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if sel.Definition != nil && len(sel.SelectionSet) > 0 && visit(sel, readScope(sel.SelectionSet)) {
				visitObjects(sel.SelectionSet, visit)
			}
		case *ast.InlineFragment:
			visitObjects(sel.SelectionSet, visit)
		case *ast.FragmentSpread:
			visitObjects(sel.Definition.SelectionSet, visit)
		}
	}
}

// readScope returns the scope of the type that a selection is made on, empty if it has none.
func readScope(set ast.SelectionSet) auth.Scope {
	var def *ast.Definition
	switch sel := set[0].(type) {
	case *ast.Field:
		def = sel.ObjectDefinition
	case *ast.InlineFragment:
		def = sel.ObjectDefinition
	case *ast.FragmentSpread:
		def = sel.ObjectDefinition
	}
	if def == nil {
		return ""
	}
	return ReadScopeOf(def)
}

// ReadScopeOf returns the scope that an API key needs to read objects of the type, empty if it
// needs none.
func ReadScopeOf(def *ast.Definition) auth.Scope {
	d := def.Directives.ForName(readScopeDirective)
	if d == nil {
		return ""
	}
	return auth.Scope(d.Arguments.ForName("scope").Value.Raw)
}
