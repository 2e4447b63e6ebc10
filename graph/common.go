package graph

import (
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// commonFields are the fields, by type, that look the same to all who may see
// their object, if they have the same roles and scopes. Subscriptions that select
// nothing else share their responses with those of other users. What is not in
// the list counts as different for each user: so do Event.subject and all behind
// it, since who owns an order sees it, and others of the same role do not.
var commonFields = map[string][]string{
	"Subscription": {"events", "userEvents", "orderEvents", "serviceEvents"},
	"Event":        {"id", "cursor", "type", "occurredAt", "actor", "subjectId", "subjectVersion", "data"},
}

// isCommon reports whether the operation selects common fields only.
func isCommon(op *graphql.OperationContext) bool {
	return allCommon(op, op.Operation.SelectionSet)
}

// allCommon is isCommon for a part of the operation. Fragments have no cycles:
// the document is valid.
func allCommon(op *graphql.OperationContext, set ast.SelectionSet) bool {
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			if sel.Name != "__typename" && !slices.Contains(commonFields[sel.ObjectDefinition.Name], sel.Name) || !allCommon(op, sel.SelectionSet) {
				return false
			}
		case *ast.InlineFragment:
			if !allCommon(op, sel.SelectionSet) {
				return false
			}
		case *ast.FragmentSpread:
			if !allCommon(op, op.Doc.Fragments.ForName(sel.Name).SelectionSet) {
				return false
			}
		}
	}
	return true
}
