package graph

import (
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// shareableFields are the fields, by type, that are equal for all callers that may see
// their object and have the same roles and scopes. Subscriptions that select nothing
// else share their responses with those of other users. All other fields may differ
// for each user: so do Event.subject and the fields below it, since the owner of an
// order sees it and others of the same role do not.
var shareableFields = map[string][]string{
	"Subscription": {"events", "userEvents", "orderEvents", "serviceEvents"},
	"Event":        {"id", "cursor", "type", "occurredAt", "actor", "subjectId", "subjectVersion", "data"},
}

// isShareable reports whether the operation selects shareable fields only.
func isShareable(op *graphql.OperationContext) bool {
	return areShareable(op, op.Operation.SelectionSet)
}

// areShareable is isCommon for a part of the operation. Fragments have no cycles:
// the document is valid.
func areShareable(op *graphql.OperationContext, set ast.SelectionSet) bool {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if sel.Name != "__typename" && !slices.Contains(shareableFields[sel.ObjectDefinition.Name], sel.Name) || !areShareable(op, sel.SelectionSet) {
				return false
			}
		case *ast.InlineFragment:
			if !areShareable(op, sel.SelectionSet) {
				return false
			}
		case *ast.FragmentSpread:
			if !areShareable(op, op.Doc.Fragments.ForName(sel.Name).SelectionSet) {
				return false
			}
		}
	}
	return true
}
