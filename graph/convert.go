package graph

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/99designs/gqlgen/graphql"

	"backplane/graph/loader"
	"backplane/graph/model"
	"backplane/internal/auth"
	"backplane/internal/event"
	"backplane/internal/fault"
	"backplane/internal/input"
	"backplane/internal/money"
	"backplane/internal/order"
	"backplane/internal/page"
	"backplane/internal/uid"
	"backplane/internal/user"
)

// given returns the value of an optional input field, nil for null and absent.
func given[T any](o graphql.Omittable[*T]) *T { return o.Value() }

// text returns an optional string, empty for null and absent.
func text(o graphql.Omittable[*string]) string {
	if s := o.Value(); s != nil {
		return *s
	}
	return ""
}

// nullable is a field of an update that null empties.
func nullable[T any](o graphql.Omittable[*T]) input.Field[*T] {
	if !o.IsSet() {
		return input.Field[*T]{}
	}
	return input.Of(o.Value())
}

// update gathers the fields of an update, and what is wrong with them.
type update struct{ errs []error }

func (u *update) err() error { return errors.Join(u.errs...) }

// required is a field of an update that must not be null.
func required[T any](u *update, name string, o graphql.Omittable[*T]) input.Field[T] {
	v := o.Value()
	switch {
	case !o.IsSet():
		return input.Field[T]{}
	case v == nil:
		u.errs = append(u.errs, fault.New(fault.Invalid, fault.BadInput, "%s must not be null; leave it out to keep it.", name).At(name))
		return input.Field[T]{}
	}
	return input.Of(*v)
}

// requiredList is required for a list.
func requiredList[T any](u *update, name string, o graphql.Omittable[[]T]) input.Field[[]T] {
	if !o.IsSet() {
		return input.Field[[]T]{}
	}
	if o.Value() == nil {
		return required(u, name, graphql.OmittableOf[*[]T](nil))
	}
	return input.Of(o.Value())
}

// price parses an amount that stands at the input field price.
func price(m model.MoneyInput) (money.Money, error) {
	amount, err := money.Parse(m.Amount, m.Currency)
	if err != nil {
		f := fault.From(err)
		return amount, f.At(slices.Concat([]string{"price"}, f.Path)...)
	}
	return amount, nil
}

func pageArgs(first *int, after *string, last *int, before *string) page.Args {
	return page.Args{First: first, After: after, Last: last, Before: before}
}

func orderList(f *model.OrderFilter, by order.By, args page.Args) loader.OrderList {
	return loader.OrderList{Filter: orderFilter(f), By: by, Args: args}
}

func connect[T any](p page.Page[T], err error, count func(context.Context) (int, error)) (*model.Connection[T], error) {
	if err != nil {
		return nil, err
	}
	return model.NewConnection(p, count), nil
}

func userFilter(f *model.UserFilter) user.Filter {
	if f == nil {
		return user.Filter{}
	}
	return user.Filter{
		Status: given(f.Status), Username: given(f.Username), Email: given(f.Email), LegacyID: given(f.LegacyID),
		CreatedAfter: given(f.CreatedAfter), CreatedBefore: given(f.CreatedBefore),
	}
}

func productFilter(f *model.ProductFilter) order.ProductFilter {
	if f == nil {
		return order.ProductFilter{}
	}
	return order.ProductFilter{
		Active: given(f.Active), SKUs: f.Skus.Value(), Currency: given(f.Currency), LegacyID: given(f.LegacyID),
	}
}

func orderFilter(f *model.OrderFilter) order.Filter {
	if f == nil {
		return order.Filter{}
	}
	return order.Filter{
		UserID: (*uid.User)(given(f.UserID)), Status: f.Status.Value(), Number: given(f.Number), LegacyID: given(f.LegacyID),
		PlacedAfter: given(f.PlacedAfter), PlacedBefore: given(f.PlacedBefore),
	}
}

// noID is the id of nothing: an empty one would filter nothing.
const noID = "-"

func eventFilter(types []event.Type, subjectID *string) event.Filter {
	f := event.Filter{Types: types}
	if subjectID != nil {
		f.SubjectID = cmp.Or(*subjectID, noID)
	}
	return f
}

func userEventFilter(userID string) event.Filter {
	return event.Filter{UserID: uid.User(cmp.Or(userID, noID))}
}

func orderEventFilter(orderID, userID *string) event.Filter {
	f := event.Filter{Types: event.OrderTypes()}
	if orderID != nil {
		f.OrderID = uid.Order(cmp.Or(*orderID, noID))
	}
	if userID != nil {
		f.UserID = uid.User(cmp.Or(*userID, noID))
	}
	return f
}

// actor returns who did it, nil for the system itself.
func actor(e *event.Event) *string {
	if e.Actor == "" {
		return nil
	}
	return &e.Actor
}

func scopes(names []string) []auth.Scope {
	all := make([]auth.Scope, len(names))
	for i, name := range names {
		all[i] = auth.Scope(name)
	}
	return all
}

func wants(items []*model.OrderItemInput) []order.Want {
	all := make([]order.Want, len(items))
	for i, it := range items {
		all[i] = order.Want{SKU: it.Sku, Quantity: it.Quantity}
	}
	return all
}

func productChange(in model.UpdateProductInput) (order.ProductChange, error) {
	var up update
	change := order.ProductChange{
		SKU: required(&up, "sku", in.Sku), Name: required(&up, "name", in.Name), Description: required(&up, "description", in.Description),
		Active: required(&up, "active", in.Active), LegacyID: nullable(in.LegacyID),
	}
	if p := required(&up, "price", in.Price); p.Set {
		amount, err := price(p.Value)
		if err != nil {
			up.errs = append(up.errs, err)
		}
		change.Price = input.Of(amount)
	}
	return change, up.err()
}
