package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/graph/scalar"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/page"
)

// payloadLists are the lists that a payload of a mutation leads to, by their types, with the check of their arguments.
var payloadLists = map[string]func(ctx context.Context, args page.Args, orderBy string) error{
	"OrderConnection":           checkKeysetPage,
	"ServiceInstanceConnection": checkKeysetPage,
	"EventConnection": func(ctx context.Context, args page.Args, _ string) error {
		if _, err := (page.Args{First: args.First, Last: args.Last}).Window(""); err != nil {
			return err
		}
		_, err := cursor.DecodeArgs(ctx, args)
		return err
	},
}

// instanceOrder is the one order of the instances of a service.
const instanceOrder = "INSTANCE_ID_ASC"

func checkKeysetPage(_ context.Context, args page.Args, orderBy string) error {
	_, err := args.Window(orderBy)
	return err
}

// checkPayloadLists refuses a mutation whose payload asks for pages that no list has. Found after the change,
// such a mistake would take the place of the object around the list, and the client would not learn what was done.
func checkPayloadLists(ctx context.Context, mutation *graphql.FieldContext) error {
	c := payloadCheck{ctx, graphql.GetOperationContext(ctx)}
	return c.checkSelections(mutation.Field.Selections)
}

type payloadCheck struct {
	ctx context.Context
	op  *graphql.OperationContext
}

// checkSelections looks at all fields that are included for some type.
func (c payloadCheck) checkSelections(set ast.SelectionSet) error {
	for _, sel := range set {
		var err error
		switch sel := sel.(type) {
		case *ast.Field:
			if len(sel.SelectionSet) > 0 && executor.IsIncluded(sel.Directives, c.op.Variables) {
				if err = c.checkList(sel); err == nil {
					err = c.checkSelections(sel.SelectionSet)
				}
			}
		case *ast.InlineFragment:
			if executor.IsIncluded(sel.Directives, c.op.Variables) {
				err = c.checkSelections(sel.SelectionSet)
			}
		case *ast.FragmentSpread:
			if executor.IsIncluded(sel.Directives, c.op.Variables) {
				err = c.checkSelections(sel.Definition.SelectionSet)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c payloadCheck) checkList(f *ast.Field) error {
	check := payloadLists[f.Definition.Type.Name()]
	if check == nil || len(f.Arguments) == 0 {
		return nil
	}
	given := f.ArgumentMap(c.op.Variables)
	orderBy, ok := given["orderBy"].(string)
	if !ok {
		orderBy = instanceOrder
	}
	return check(c.ctx, pageArgs(wholeNumber(given["first"]), textOf(given["after"]), wholeNumber(given["last"]), textOf(given["before"])), orderBy)
}

// wholeNumber returns a coerced Int, nil for none.
func wholeNumber(v any) *int {
	n, err := scalar.UnmarshalInt64(v)
	if err != nil {
		return nil
	}
	i := int(n)
	return &i
}

func textOf(v any) *string {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	return &s
}
