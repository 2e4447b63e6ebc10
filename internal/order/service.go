package order

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// OrderBy says how a list of orders is sorted.
type OrderBy string //nolint:revive // sort orders are called OrderBy in every package

// The orders of a list; ties are broken by id.
const (
	ByPlacedDesc OrderBy = "PLACED_AT_DESC"
	ByPlacedAsc  OrderBy = "PLACED_AT_ASC"
	ByTotalDesc  OrderBy = "TOTAL_DESC" // by minor units: meaningful within one currency
	ByTotalAsc   OrderBy = "TOTAL_ASC"
)

// Filter says which orders a list shows. Nil fields filter nothing.
type Filter struct {
	UserID       *uid.User
	Status       []Status // any of these
	Number       *string
	LegacyID     *string
	PlacedAfter  *time.Time // at or after
	PlacedBefore *time.Time // before
}

// Store persists orders. It is declared here, where it is used.
//
// The transaction of methods that write makes the claim cl. For a duplicate call they
// return the order of the first, as it is now, and call no function.
type Store interface {
	// Place reads the offers of the wants' SKUs under locks taken in one order,
	// calls place, and commits the order it returns with its lines, the changed
	// stocks and the events. place may run again after a conflict; it is given
	// fresh offers each time. The customer must be an active account: else
	// USER_NOT_FOUND or USER_NOT_ACTIVE.
	Place(ctx context.Context, cl claim.Claim, customer uid.User, wants []Want, place func(offers map[string]Offer) (*Order, error)) (*Order, error)
	// Update loads the order under a lock, applies fn, and commits the result with
	// the events fn recorded and the stock it gives back, or nothing if fn fails or
	// records none. fn may run again after a conflict.
	Update(ctx context.Context, cl claim.Claim, id uid.Order, fn func(*Order) error) (*Order, error)
	// ByIDs returns the orders that exist.
	ByIDs(ctx context.Context, ids []uid.Order) (map[uid.Order]*Order, error)
	// Items returns the lines of the orders, each in its order's sequence.
	Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]Item, error)
	// List returns a page of the orders that match.
	List(ctx context.Context, f Filter, by OrderBy, args page.Args) (page.Page[*Order], error)
	// ListByUsers returns for each of the users a page of their orders that match,
	// read in one query. The filter's UserID is not used.
	ListByUsers(ctx context.Context, users []uid.User, f Filter, by OrderBy, args page.Args) (map[uid.User]page.Page[*Order], error)
	// Count returns how many orders match.
	Count(ctx context.Context, f Filter) (int, error)
	// CountByUsers is Count for the orders of each of the users, in one query. Users
	// without any may be left out. The filter's UserID is not used.
	CountByUsers(ctx context.Context, users []uid.User, f Filter) (map[uid.User]int, error)
}

// Peeker is a Store that also holds orders in the process.
type Peeker interface {
	// Peek returns the order as ByIDs would, at once; ok is false if it is not held.
	Peek(id uid.Order) (o *Order, ok bool)
	// PeekItems returns the lines of the order as Items would, in the same way.
	PeekItems(id uid.Order) (lines []Item, ok bool)
}

// Service is what callers may do with orders. Methods that change an order return nil in its
// place to a caller that may change orders and not read them, also in VERSION_CONFLICT.
type Service struct {
	store Store
	held  Peeker // nil if the store holds nothing
	now   func() time.Time
}

// NewService returns a Service on the store; now is its clock.
func NewService(store Store, now func() time.Time) *Service {
	held, _ := store.(Peeker)
	return &Service{store, held, now}
}

// PlaceInput is a request to buy.
type PlaceInput struct {
	Items    []Want
	UserID   *uid.User // the customer; nil for the caller. Only STAFF and ADMIN order for others
	Note     string
	LegacyID *string

	ExpectedTotal *money.Money // what the caller agreed to; nil for whatever the products cost
	Invalid       error        // mistakes that reading the input has found; reported with those of the rules
}

// Place places an order for the caller, or as STAFF or ADMIN for another user.
func (s *Service) Place(ctx context.Context, cl claim.Claim, in PlaceInput) (*Order, error) {
	caller, err := auth.Require(ctx, auth.OrdersWrite)
	if err != nil {
		return nil, err
	}
	customer := caller.UserID
	if in.UserID != nil {
		customer = *in.UserID
	}
	if !caller.IsStaff() && !caller.Owns(customer) {
		return nil, fault.New(fault.Forbidden, "Only STAFF and ADMIN may order for others.").At("userId")
	}
	if !customer.Valid() {
		return nil, fault.New(fault.UserNotFound, "There is no such user.").At("userId")
	}
	if err := caller.AllowLegacyID(in.LegacyID != nil); err != nil {
		return nil, err
	}
	details := Details{customer, in.Note, in.LegacyID, caller.IsStaff(), in.ExpectedTotal, in.Invalid}
	if err := details.check(in.Items); err != nil {
		return nil, err
	}
	at := s.now()
	o, err := s.store.Place(ctx, cl, customer, in.Items, func(offers map[string]Offer) (*Order, error) {
		return Place(details, in.Items, offers, at)
	})
	return readable(caller, o), err
}

// Cancel cancels a pending order: the caller's own, or as STAFF or ADMIN any.
func (s *Service) Cancel(ctx context.Context, cl claim.Claim, id uid.Order, ifVersion *int, reason string) (*Order, error) {
	return s.changeOrder(ctx, cl, id, ifVersion, ownerOrStaff, func(o *Order, at time.Time) error { return o.Cancel(reason, at) })
}

// Ship sends a paid order on its way. STAFF and ADMIN only.
func (s *Service) Ship(ctx context.Context, cl claim.Claim, id uid.Order, ifVersion *int) (*Order, error) {
	return s.changeOrder(ctx, cl, id, ifVersion, staffOnly, (*Order).Ship)
}

// Deliver marks a shipped order as arrived. STAFF and ADMIN only.
func (s *Service) Deliver(ctx context.Context, cl claim.Claim, id uid.Order, ifVersion *int) (*Order, error) {
	return s.changeOrder(ctx, cl, id, ifVersion, staffOnly, (*Order).Deliver)
}

// RequestRefund asks for the money of a paid order back: customers for their
// own until it ships, STAFF and ADMIN for any and also later.
func (s *Service) RequestRefund(ctx context.Context, cl claim.Claim, id uid.Order, ifVersion *int, reason string) (*Order, error) {
	caller := auth.From(ctx)
	return s.changeOrder(ctx, cl, id, ifVersion, ownerOrStaff, func(o *Order, at time.Time) error {
		if !caller.IsStaff() && o.Status != Paid && o.RefundRequestedAt == nil {
			return fault.New(CodeOrderNotRefundable, "You can ask for a refund of an order that is PAID and not shipped; this one is %s.", o.Status)
		}
		return o.RequestRefund(reason, at)
	})
}

// changeOrder loads the order, checks that the caller may see and change it, and
// that it has the expected version, and applies fn. For a duplicate call it checks the former
// of the order as it is now.
func (s *Service) changeOrder(ctx context.Context, cl claim.Claim, id uid.Order, ifVersion *int, allowed permission, fn func(*Order, time.Time) error) (*Order, error) {
	caller, err := auth.Require(ctx, auth.OrdersWrite)
	if err != nil {
		return nil, err
	}
	if !id.Valid() {
		return nil, NotFound()
	}
	at := s.now()
	o, err := s.store.Update(ctx, cl, id, func(o *Order) error {
		if err := allowed(caller, o); err != nil {
			return err
		}
		if err := validate.IfVersion(ctx, ifVersion, o.Version, readable(caller, o)); err != nil {
			return err
		}
		return fn(o, at)
	})
	if err == nil {
		err = allowed(caller, o)
	}
	if err != nil {
		return nil, err
	}
	return readable(caller, o), nil
}

// paymentOutcomes are what events of payments change of their orders.
var paymentOutcomes = map[event.Type]func(*Order, time.Time) error{
	event.PaymentSucceeded: (*Order).confirmPayment,
	event.PaymentFailed:    (*Order).failPayment,
	event.PaymentRefunded:  (*Order).confirmRefund,
}

// PaymentEventTypes are the types of events that HandlePaymentEvent handles.
func PaymentEventTypes() []event.Type {
	return []event.Type{event.PaymentSucceeded, event.PaymentFailed, event.PaymentRefunded}
}

// HandlePaymentEvent is a consumer.Handler: it pays, cancels or refunds the order of a payment as the payment's outcome says. It decides
// by the order as it is then, under its lock: a payment that succeeds after the order was cancelled is asked back.
func (s *Service) HandlePaymentEvent(ctx context.Context, d claim.Delivery, e *event.Event) error {
	at, apply := s.now(), paymentOutcomes[e.Type]
	if apply == nil {
		return nil
	}
	for _, id := range e.Related {
		if id := uid.Order(id); id.Valid() {
			_, err := s.store.Update(ctx, d, id, func(o *Order) error { return apply(o, at) })
			if fault.Is(err, CodeOrderNotFound) || fault.Is(err, CodePaymentUnderWay) {
				return nil // the payment has succeeded since it failed: the event of that follows, and decides
			}
			return err
		}
	}
	return nil
}

func readable(caller *auth.Principal, o *Order) *Order {
	return auth.Readable(caller, auth.OrdersRead, o)
}

// permission says whether the caller may change the order.
type permission func(caller *auth.Principal, o *Order) error

func ownerOrStaff(caller *auth.Principal, o *Order) error {
	if !caller.IsStaff() && !caller.Owns(o.UserID) {
		return NotFound()
	}
	return nil
}

func staffOnly(caller *auth.Principal, o *Order) error {
	if err := ownerOrStaff(caller, o); err != nil {
		return err
	}
	if !caller.IsStaff() {
		return fault.New(fault.Forbidden, "This needs the role STAFF or ADMIN.")
	}
	return nil
}

// ByIDs returns those of the orders that exist and that the caller may see.
func (s *Service) ByIDs(ctx context.Context, ids []uid.Order) (map[uid.Order]*Order, error) {
	caller := auth.From(ctx)
	ids = wellFormed(ids)
	if !caller.May(auth.OrdersRead) || len(ids) == 0 {
		return nil, nil
	}
	found, err := s.store.ByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	seen := make(map[uid.Order]*Order, len(found))
	for id, o := range found {
		if caller.MaySee(o.UserID, auth.OrdersRead) {
			seen[id] = o
		}
	}
	return seen, nil
}

// Peek answers for one order as ByIDs does, without I/O: nil if it is hidden from
// the caller. ok is false if that takes I/O.
func (s *Service) Peek(ctx context.Context, id uid.Order) (o *Order, ok bool) {
	caller := auth.From(ctx)
	switch {
	case !id.Valid() || !caller.May(auth.OrdersRead):
		return nil, true
	case s.held == nil:
		return nil, false
	}
	if o, ok = s.held.Peek(id); ok && !caller.MaySee(o.UserID, auth.OrdersRead) {
		return nil, true
	}
	return o, ok
}

// Items returns the lines of orders that the caller has been shown: a caller that may
// see an order may see its lines.
func (s *Service) Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]*Item, error) {
	found, err := s.store.Items(ctx, ids)
	lines := make(map[uid.Order][]*Item, len(found))
	for id, l := range found {
		lines[id] = pointersTo(l)
	}
	return lines, err
}

// PeekItems answers for one order as Items does, without I/O; ok is false if that
// takes I/O.
func (s *Service) PeekItems(_ context.Context, id uid.Order) (lines []*Item, ok bool) {
	if s.held == nil {
		return nil, false
	}
	held, ok := s.held.PeekItems(id)
	return pointersTo(held), ok
}

func pointersTo(lines []Item) []*Item {
	to := make([]*Item, len(lines))
	for i := range lines {
		to[i] = &lines[i]
	}
	return to
}

// List returns a page of the orders that the caller may see: STAFF and ADMIN
// all, others their own.
func (s *Service) List(ctx context.Context, f Filter, by OrderBy, args page.Args) (page.Page[*Order], error) {
	f, none, err := narrowToVisible(ctx, f)
	if err != nil || none {
		return page.Page[*Order]{}, err
	}
	return s.store.List(ctx, f, by, args)
}

// ListByUsers is List for many users at once, for one page of each. Users whose
// orders the caller may not see have none.
func (s *Service) ListByUsers(ctx context.Context, users []uid.User, f Filter, by OrderBy, args page.Args) (map[uid.User]page.Page[*Order], error) {
	seen, err := withVisibleOrders(ctx, users)
	if err != nil || len(seen) == 0 {
		return nil, err
	}
	return s.store.ListByUsers(ctx, seen, f, by, args)
}

// CountByUsers is Count for many users at once, for the orders of each.
func (s *Service) CountByUsers(ctx context.Context, users []uid.User, f Filter) (map[uid.User]int, error) {
	seen, err := withVisibleOrders(ctx, users)
	if err != nil || len(seen) == 0 {
		return nil, err
	}
	return s.store.CountByUsers(ctx, seen, f)
}

// withVisibleOrders returns those of the users whose orders the caller may see.
func withVisibleOrders(ctx context.Context, users []uid.User) (seen []uid.User, err error) {
	caller, err := auth.Require(ctx, auth.OrdersRead)
	if err != nil {
		return nil, err
	}
	for _, id := range users {
		if caller.MaySee(id, auth.OrdersRead) {
			seen = append(seen, id)
		}
	}
	return seen, nil
}

// Count returns how many orders List would show on all its pages.
func (s *Service) Count(ctx context.Context, f Filter) (int, error) {
	f, none, err := narrowToVisible(ctx, f)
	if err != nil || none {
		return 0, err
	}
	return s.store.Count(ctx, f)
}

// narrowToVisible narrows a filter to what the caller may see; none says that this is
// nothing.
func narrowToVisible(ctx context.Context, f Filter) (_ Filter, none bool, err error) {
	f.UserID, none, err = auth.NarrowOwner(ctx, auth.OrdersRead, f.UserID)
	return f, none, err
}

func wellFormed[ID interface{ Valid() bool }](ids []ID) []ID {
	var ok []ID
	for _, id := range ids {
		if id.Valid() {
			ok = append(ok, id)
		}
	}
	return ok
}
