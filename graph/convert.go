package graph

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// optionalValue returns the value of an optional input field, nil for null and absent.
func optionalValue[T any](o graphql.Omittable[*T]) *T { return o.Value() }

// optionalText returns an optional string, empty for null and absent.
func optionalText(o graphql.Omittable[*string]) string {
	if s := o.Value(); s != nil {
		return *s
	}
	return ""
}

// nullableField returns a field of an update that null clears.
func nullableField[T any](o graphql.Omittable[*T]) validate.Field[*T] {
	if !o.IsSet() {
		return validate.Field[*T]{}
	}
	return validate.Of(o.Value())
}

// updateErrors collects the errors of the fields of an update.
type updateErrors struct{ errs []error }

func (u *updateErrors) err() error { return errors.Join(u.errs...) }

// requiredField returns a field of an update that must not be null.
func requiredField[T any](u *updateErrors, name string, o graphql.Omittable[*T]) validate.Field[T] {
	v := o.Value()
	switch {
	case !o.IsSet():
		return validate.Field[T]{}
	case v == nil:
		u.errs = append(u.errs, fault.New(fault.BadInput, "%s must not be null; leave it out to keep it.", name).At(name))
		return validate.Field[T]{}
	}
	return validate.Of(*v)
}

// requiredListField is required for a list.
func requiredListField[T any](u *updateErrors, name string, o graphql.Omittable[[]T]) validate.Field[[]T] {
	if !o.IsSet() {
		return validate.Field[[]T]{}
	}
	if o.Value() == nil {
		return requiredField(u, name, graphql.OmittableOf[*[]T](nil))
	}
	return validate.Of(o.Value())
}

// parseMoney parses the amount of an input field.
func parseMoney(field string, m model.MoneyInput) (money.Money, error) {
	amount, err := money.Parse(m.Amount, m.Currency)
	if err != nil {
		f := fault.From(err)
		return amount, f.At(slices.Concat([]string{field}, f.Path)...)
	}
	return amount, nil
}

func pageArgs(first *int, after *string, last *int, before *string) page.Args {
	return page.Args{First: first, After: after, Last: last, Before: before}
}

func orderListArgs(f *model.OrderFilter, by order.OrderBy, args page.Args) loader.OrderList {
	return loader.OrderList{Filter: orderFilter(f), By: by, Args: args}
}

// newConnection returns the connection of a list at the root. A page that is the whole list needs no count. Those of lists
// inside of others are counted together, whatever their pages hold.
func newConnection[T any](p page.Page[T], err error, count func(context.Context) (int, error)) (*model.Connection[T], error) {
	if err != nil {
		return nil, err
	}
	if p.Whole {
		count = func(context.Context) (int, error) { return len(p.Items), nil }
	}
	return model.NewConnection(p, count), nil
}

func userFilter(f *model.UserFilter) user.Filter {
	if f == nil {
		return user.Filter{}
	}
	return user.Filter{
		Status: optionalValue(f.Status), Username: optionalValue(f.Username), Email: optionalValue(f.Email), LegacyID: optionalValue(f.LegacyID),
		CreatedAfter: optionalValue(f.CreatedAfter), CreatedBefore: optionalValue(f.CreatedBefore),
	}
}

func productFilter(f *model.ProductFilter) order.ProductFilter {
	if f == nil {
		return order.ProductFilter{}
	}
	return order.ProductFilter{
		Active: optionalValue(f.Active), SKUs: f.Skus.Value(), Currency: optionalValue(f.Currency), LegacyID: optionalValue(f.LegacyID),
	}
}

func orderFilter(f *model.OrderFilter) order.Filter {
	if f == nil {
		return order.Filter{}
	}
	return order.Filter{
		UserID: (*uid.User)(optionalValue(f.UserID)), Status: f.Status.Value(), Number: optionalValue(f.Number), LegacyID: optionalValue(f.LegacyID),
		PlacedAfter: optionalValue(f.PlacedAfter), PlacedBefore: optionalValue(f.PlacedBefore),
	}
}

func paymentFilter(f *model.PaymentFilter) payment.Filter {
	if f == nil {
		return payment.Filter{}
	}
	return payment.Filter{
		Status: f.Status.Value(), OrderID: (*uid.Order)(optionalValue(f.OrderID)), UserID: (*uid.User)(optionalValue(f.UserID)),
		CreatedAfter: optionalValue(f.CreatedAfter), CreatedBefore: optionalValue(f.CreatedBefore),
	}
}

// optionalID returns an id that may be empty; nil for an empty one.
func optionalID[T ~string](id T) *string {
	if id == "" {
		return nil
	}
	s := string(id)
	return &s
}

func securityEventFilter(f *model.SecurityEventFilter) securitylog.Filter {
	if f == nil {
		return securitylog.Filter{}
	}
	filter := securitylog.Filter{Address: optionalValue(f.Address), Since: optionalValue(f.Since), Until: optionalValue(f.Until)}
	if t := optionalValue(f.Type); t != nil {
		filter.Type = *t
	}
	if id := optionalValue(f.UserID); id != nil {
		user := uid.User(cmp.Or(*id, noID))
		filter.UserID = &user
	}
	return filter
}

func signInAttempts(events []*security.Event) []*model.SignInAttempt {
	attempts := make([]*model.SignInAttempt, len(events))
	for i, e := range events {
		attempts[i] = model.NewSignInAttempt(e)
	}
	return attempts
}

// noID is the id of no object: an empty one would filter nothing.
const noID = "-"

func eventFilter(types []event.Type, subjectID *string) event.Filter {
	types = slices.Clone(types) // nil stays nil; a literal list may be long, and repeat its values
	slices.Sort(types)
	f := event.Filter{Types: slices.Clip(slices.Compact(types))}
	if types != nil && len(types) == 0 { // no type is not every type
		f.SubjectID = noID
		return f
	}
	if subjectID != nil {
		f.SubjectID = cmp.Or(*subjectID, noID)
	}
	return f
}

// eventHistoryFilter is eventFilter with what only lists can be filtered by.
func eventHistoryFilter(types []event.Type, subjectID, actor *string, since, until *time.Time) event.Filter {
	f := eventFilter(types, subjectID)
	f.Since, f.Until = since, until
	if actor != nil {
		f.Actor = cmp.Or(*actor, noID)
	}
	return f
}

func userEventFilter(userID string) event.Filter {
	return event.Filter{UserID: uid.User(cmp.Or(userID, noID))}
}

func orderEventFilter(orderID, userID *string) event.Filter {
	f := event.Filter{Types: order.OrderEntity.EventTypes()}
	if orderID != nil {
		f.OrderID = uid.Order(cmp.Or(*orderID, noID))
	}
	if userID != nil {
		f.UserID = uid.User(cmp.Or(*userID, noID))
	}
	return f
}

// serviceEventFilter returns the filter for events of the named service, or
// SERVICE_NOT_FOUND if there is no service to follow.
func (r *Resolver) serviceEventFilter(ctx context.Context, name *string) (event.Filter, error) {
	f := event.Filter{Types: registry.EventTypes()}
	if name == nil {
		return f, nil
	}
	v := r.domains.Registry.Service(ctx, *name)
	if v == nil {
		return f, registry.ServiceNotFound().At("service")
	}
	f.ServiceID = v.ID
	return f, nil
}

// eventActor returns the actor of the event as the caller may know it: nil for the system itself, and for customers
// if another account acted. It is equal for all callers of the same roles and scopes that see the event,
// since the events of a user are seen by no other customer.
func eventActor(ctx context.Context, e *event.Event) (*string, error) {
	caller := auth.From(ctx)
	switch {
	case e.Actor == "":
		return nil, nil //nolint:nilnil // there is none
	case caller.IsStaff() || caller.Has(auth.Service) || e.Concerns(e.Actor):
		return &e.Actor, nil
	case caller == nil || !e.Concerns(string(caller.UserID)):
		return nil, nil //nolint:nilnil // it is hidden
	}
	if kind, _ := uid.KindOf(e.Actor); kind != session.APIKeyEntity.Kind {
		return nil, nil //nolint:nilnil // it is hidden
	}
	key, err := loader.APIKeys.Load(ctx, uid.APIKey(e.Actor))
	if err != nil || key == nil {
		return nil, err
	}
	return &e.Actor, nil
}

// valueOrZero returns an optional value, zero for null and absent.
func valueOrZero[T any](o graphql.Omittable[*T]) T {
	if v := o.Value(); v != nil {
		return *v
	}
	var none T
	return none
}

func serviceFilter(f *model.ServiceFilter) registry.ServiceFilter {
	if f == nil {
		return registry.ServiceFilter{}
	}
	return registry.ServiceFilter{Tag: optionalValue(f.Tag), Health: optionalValue(f.Health)}
}

func toHealthCheck(in *model.HealthCheckInput) *registry.HealthCheck {
	if in == nil {
		return nil
	}
	return &registry.HealthCheck{
		Path: in.Path, Interval: in.Interval, Timeout: valueOrZero(in.Timeout), Healthy: in.HealthyThreshold, Unhealthy: in.UnhealthyThreshold,
	}
}

func toServiceInput(in model.RegisterServiceInput) registry.ServiceInput {
	return registry.ServiceInput{
		Name: in.Name, Description: optionalText(in.Description), Tags: in.Tags.Value(), Metadata: in.Metadata.Value(), Strategy: in.Strategy,
		HealthCheck: toHealthCheck(in.HealthCheck.Value()),
	}
}

func toServiceChange(in model.UpdateServiceInput) registry.ServiceChange {
	var up updateErrors
	c := registry.ServiceChange{
		Description: requiredField(&up, "description", in.Description), Tags: requiredListField(&up, "tags", in.Tags),
		Strategy: requiredField(&up, "strategy", in.Strategy), Trusted: requiredField(&up, "trusted", in.Trusted),
		TrustedAddresses: requiredListField(&up, "trustedAddresses", in.TrustedAddresses), Public: requiredField(&up, "public", in.Public),
		PaymentProvider: requiredField(&up, "paymentProvider", in.PaymentProvider),
	}
	if in.Metadata.IsSet() {
		c.Metadata = validate.Of(in.Metadata.Value()) // null clears it
	}
	if in.HealthCheck.IsSet() {
		c.HealthCheck = validate.Of(toHealthCheck(in.HealthCheck.Value()))
	}
	c.Invalid = up.err()
	return c
}

func toInstanceChange(in model.UpdateInstanceInput) registry.InstanceChange {
	var up updateErrors
	c := registry.InstanceChange{Weight: requiredField(&up, "weight", in.Weight)}
	if in.Metadata.IsSet() {
		c.Metadata = validate.Of(in.Metadata.Value()) // null clears it
	}
	c.Invalid = up.err()
	return c
}

func toInstanceInput(in model.RegisterInstanceInput) registry.InstanceInput {
	return registry.InstanceInput{
		InstanceID: in.InstanceID, URL: in.URL, Weight: in.Weight, Metadata: in.Metadata.Value(), Incarnation: valueOrZero(in.Incarnation), TTL: in.TTL,
	}
}

func toScopes(names []string) []auth.Scope {
	all := make([]auth.Scope, len(names))
	for i, name := range names {
		all[i] = auth.Scope(name)
	}
	return all
}

func toOrderWants(items []*model.OrderItemInput) []order.Want {
	all := make([]order.Want, len(items))
	for i, it := range items {
		all[i] = order.Want{SKU: it.Sku, Quantity: it.Quantity}
	}
	return all
}

func toProductChange(in model.UpdateProductInput) order.ProductChange {
	var up updateErrors
	change := order.ProductChange{
		SKU: requiredField(&up, "sku", in.Sku), Name: requiredField(&up, "name", in.Name), Description: requiredField(&up, "description", in.Description),
		Active: requiredField(&up, "active", in.Active), LegacyID: nullableField(in.LegacyID),
	}
	if p := requiredField(&up, "price", in.Price); p.Set {
		amount, err := parseMoney("price", p.Value)
		if err != nil {
			up.errs = append(up.errs, err)
		}
		change.Price = validate.Of(amount)
	}
	change.Invalid = up.err()
	return change
}

func toUserChange(in model.UpdateUserInput) user.Change {
	var up updateErrors
	change := user.Change{
		Username: requiredField(&up, "username", in.Username), Email: nullableField(in.Email), Name: requiredField(&up, "name", in.Name),
		Roles: requiredListField(&up, "roles", in.Roles), Status: requiredField(&up, "status", in.Status), LegacyID: nullableField(in.LegacyID),
	}
	change.Invalid = up.err()
	return change
}

func toPlaceInput(in model.PlaceOrderInput) order.PlaceInput {
	want := order.PlaceInput{
		Items: toOrderWants(in.Items), UserID: (*uid.User)(optionalValue(in.UserID)), Note: optionalText(in.Note), LegacyID: optionalValue(in.LegacyID),
	}
	if expected := in.ExpectedTotal.Value(); expected != nil {
		total, err := parseMoney("expectedTotal", *expected)
		want.ExpectedTotal, want.Invalid = &total, err
	}
	return want
}

// nilIfEmpty returns a pointer to the text, nil if it is empty.
func nilIfEmpty[T ~string](s T) *T {
	if s == "" {
		return nil
	}
	return &s
}

func deadLetterFilter(f *model.DeadLetterFilter) consumer.DeadLetterFilter {
	if f == nil {
		return consumer.DeadLetterFilter{}
	}
	replayed := optionalValue(f.Replayed)
	return consumer.DeadLetterFilter{Consumer: optionalValue(f.Consumer), SubjectID: optionalValue(f.SubjectID), Replayed: replayed != nil && *replayed}
}

func replayRequest(in model.ReplayDeadLettersInput) consumer.ReplayRequest {
	which := consumer.ReplayRequest{Consumer: optionalText(in.Consumer)}
	for _, id := range in.Ids.Value() {
		which.IDs = append(which.IDs, uid.DeadLetter(id))
	}
	return which
}
