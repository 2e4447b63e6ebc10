package graph

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
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
func nullable[T any](o graphql.Omittable[*T]) validate.Field[*T] {
	if !o.IsSet() {
		return validate.Field[*T]{}
	}
	return validate.Of(o.Value())
}

// update gathers the fields of an update, and what is wrong with them.
type update struct{ errs []error }

func (u *update) err() error { return errors.Join(u.errs...) }

// required is a field of an update that must not be null.
func required[T any](u *update, name string, o graphql.Omittable[*T]) validate.Field[T] {
	v := o.Value()
	switch {
	case !o.IsSet():
		return validate.Field[T]{}
	case v == nil:
		u.errs = append(u.errs, fault.New(fault.Invalid, fault.BadInput, "%s must not be null; leave it out to keep it.", name).At(name))
		return validate.Field[T]{}
	}
	return validate.Of(*v)
}

// requiredList is required for a list.
func requiredList[T any](u *update, name string, o graphql.Omittable[[]T]) validate.Field[[]T] {
	if !o.IsSet() {
		return validate.Field[[]T]{}
	}
	if o.Value() == nil {
		return required(u, name, graphql.OmittableOf[*[]T](nil))
	}
	return validate.Of(o.Value())
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

func orderList(f *model.OrderFilter, by order.OrderBy, args page.Args) loader.OrderList {
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

// serviceEventFilter finds the service of the name; that it is not there is an
// error, as nobody could say what is to be followed.
func (r *Resolver) serviceEventFilter(ctx context.Context, name *string) (event.Filter, error) {
	f := event.Filter{Types: event.ServiceTypes()}
	if name == nil {
		return f, nil
	}
	v := r.registry.Service(ctx, *name)
	if v == nil {
		return f, registry.ServiceNotFound().At("service")
	}
	f.ServiceID = v.ID
	return f, nil
}

// actor returns who did it, nil for the system itself.
func actor(e *event.Event) *string {
	if e.Actor == "" {
		return nil
	}
	return &e.Actor
}

// orZero returns an optional value, zero for null and absent.
func orZero[T any](o graphql.Omittable[*T]) T {
	if v := o.Value(); v != nil {
		return *v
	}
	var none T
	return none
}

// orAbsent returns a text, nil if it is empty.
func orAbsent(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func serviceFilter(f *model.ServiceFilter) registry.ServiceFilter {
	if f == nil {
		return registry.ServiceFilter{}
	}
	return registry.ServiceFilter{Tag: given(f.Tag), Health: given(f.Health)}
}

func healthCheck(in *model.HealthCheckInput) *registry.HealthCheck {
	if in == nil {
		return nil
	}
	return &registry.HealthCheck{
		Path: in.Path, Interval: in.Interval, Timeout: orZero(in.Timeout), Healthy: in.HealthyThreshold, Unhealthy: in.UnhealthyThreshold,
	}
}

func serviceInput(in model.RegisterServiceInput) registry.ServiceInput {
	return registry.ServiceInput{
		Name: in.Name, Description: text(in.Description), Tags: in.Tags.Value(), Metadata: in.Metadata.Value(), Strategy: in.Strategy,
		HealthCheck: healthCheck(in.HealthCheck.Value()),
	}
}

func serviceChange(in model.UpdateServiceInput) (registry.ServiceChange, error) {
	var up update
	c := registry.ServiceChange{
		Description: required(&up, "description", in.Description), Tags: requiredList(&up, "tags", in.Tags),
		Strategy: required(&up, "strategy", in.Strategy), Trusted: required(&up, "trusted", in.Trusted),
		Public: required(&up, "public", in.Public),
	}
	if in.Metadata.IsSet() {
		c.Metadata = validate.Of(in.Metadata.Value()) // null empties it
	}
	if in.HealthCheck.IsSet() {
		c.HealthCheck = validate.Of(healthCheck(in.HealthCheck.Value()))
	}
	return c, up.err()
}

func instanceInput(in model.RegisterInstanceInput) registry.InstanceInput {
	return registry.InstanceInput{
		InstanceID: in.InstanceID, URL: in.URL, Weight: in.Weight, Metadata: in.Metadata.Value(), Incarnation: orZero(in.Incarnation), TTL: in.TTL,
	}
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
		change.Price = validate.Of(amount)
	}
	return change, up.err()
}

// orNone returns a text, nil if it is empty.
func orNone[T ~string](s T) *T {
	if s == "" {
		return nil
	}
	return &s
}

func letterFilter(f *model.DeadLetterFilter) event.LetterFilter {
	if f == nil {
		return event.LetterFilter{}
	}
	replayed := given(f.Replayed)
	return event.LetterFilter{Consumer: given(f.Consumer), SubjectID: given(f.SubjectID), Replayed: replayed != nil && *replayed}
}

func replayOf(in model.ReplayDeadLettersInput) event.Replay {
	which := event.Replay{Consumer: text(in.Consumer)}
	for _, id := range in.Ids.Value() {
		which.IDs = append(which.IDs, uid.DeadLetter(id))
	}
	return which
}
