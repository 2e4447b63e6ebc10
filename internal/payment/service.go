package payment

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// OrderBy says how a list of payments is sorted.
type OrderBy string

// The orders of a list; ties are broken by id.
const (
	ByCreatedDesc OrderBy = "CREATED_AT_DESC"
	ByCreatedAsc  OrderBy = "CREATED_AT_ASC"
)

// Filter says which payments a list shows. Nil fields filter nothing.
type Filter struct {
	UserID        *uid.User
	OrderID       *uid.Order
	Status        []Status   // any of these
	CreatedAfter  *time.Time // at or after
	CreatedBefore *time.Time // before
}

// Store persists payments. It is declared here, where it is used.
type Store interface {
	// Create reads the order under a lock and inserts the payment that create makes of it, unless the order has one or is not
	// PENDING any more: then nothing is created, and created is false.
	Create(ctx context.Context, cl claim.Claim, order uid.Order, create func() *Payment) (created bool, err error)
	// Update loads the payment under a lock, applies fn, and commits the result with its events and attempts. fn may run again
	// after a conflict. PAYMENT_NOT_FOUND if there is none.
	Update(ctx context.Context, id uid.Payment, fn func(*Payment) error) (*Payment, error)
	// UpdateByOrder is Update for the payment of an order, under a claim. If there is none it calls nothing and returns nil.
	UpdateByOrder(ctx context.Context, cl claim.Claim, order uid.Order, fn func(*Payment) error) (*Payment, error)
	// UpdateDue locks up to limit payments that are due, or past their deadline, at the time, the most overdue first, skips those that other
	// nodes have locked, applies fn to each, and commits the results.
	UpdateDue(ctx context.Context, due Due, at time.Time, limit int, fn func(*Payment)) ([]*Payment, error)
	// ByIDs returns the payments that exist.
	ByIDs(ctx context.Context, ids []uid.Payment) (map[uid.Payment]*Payment, error)
	// ByOrders returns the payments of the orders that have one.
	ByOrders(ctx context.Context, ids []uid.Order) (map[uid.Order]*Payment, error)
	// Attempts returns the attempts of the payments that are kept, the oldest first.
	Attempts(ctx context.Context, ids []uid.Payment) (map[uid.Payment][]Attempt, error)
	// List returns a page of the payments that match.
	List(ctx context.Context, f Filter, by OrderBy, args page.Args) (page.Page[*Payment], error)
	// Count returns how many payments match.
	Count(ctx context.Context, f Filter) (int, error)
	Inbox
}

// Inbox keeps the messages of the provider.
type Inbox interface {
	// AddCallback stores a message of the provider, unless there is one with its id.
	AddCallback(ctx context.Context, c Callback, at time.Time) error
	// ApplyCallbacks applies up to limit stored messages to their payments by fn, each in a transaction with the payment, and
	// returns how many. Messages whose payment is not there yet stay, and are looked at again later.
	ApplyCallbacks(ctx context.Context, at time.Time, limit int, fn func(*Payment, Callback)) (int, error)
	// Backlog returns what is open at the time.
	Backlog(ctx context.Context, at time.Time) (Backlog, error)
}

// Due says which payments are due.
type Due int

// What may be due.
const (
	DueCall     Due = iota // a worker is to call the provider
	DueDeadline            // the deadline is over
)

// Backlog is what is open.
type Backlog struct {
	Pending   int           // payments that are PENDING
	Refunding int           // payments that are REFUNDING
	Unsettled int           // payments that failed while their outcome was unknown
	Waiting   time.Duration // how long the most overdue payment has been due
	Oldest    time.Duration // the age of the oldest payment that is PENDING
	Callbacks int           // messages of providers that are not applied
}

// Service is what callers and consumers may do with payments.
type Service struct {
	store    Store
	now      func() time.Time
	deadline time.Duration
	wake     coalesce.Signal // set when a payment became due
}

// NewService returns a Service on the store; now is its clock.
func NewService(store Store, now func() time.Time, cfg Config) *Service {
	return &Service{store, now, cmp.Or(cfg.Deadline, defaultDeadline), coalesce.NewSignal()}
}

// OrderEventTypes are the types of events that HandleOrderEvent handles.
func OrderEventTypes() []event.Type {
	return []event.Type{event.OrderPlaced, event.OrderCancelled, event.PaymentRefundRequested}
}

// HandleOrderEvent is a consumer.Handler: it creates the payment of an order that was placed, ends that of an order
// that was cancelled, and begins a refund that was requested.
func (s *Service) HandleOrderEvent(ctx context.Context, d claim.Delivery, e *event.Event) error {
	order, at := uid.Order(e.SubjectID), s.now()
	var err error
	switch e.Type { //nolint:exhaustive // the types of OrderEventTypes
	case event.OrderPlaced:
		var placed Placed
		if placed, err = placedOf(e); err == nil {
			_, err = s.store.Create(ctx, d, order, func() *Payment { return New(placed, at, s.deadline) })
		}
	case event.OrderCancelled:
		_, err = s.store.UpdateByOrder(ctx, d, order, func(p *Payment) error { p.OrderCancelled(at); return nil })
	case event.PaymentRefundRequested:
		_, err = s.store.UpdateByOrder(ctx, d, order, func(p *Payment) error { p.RequestRefund(at, s.deadline); return nil })
	}
	if err == nil {
		s.wake.Set()
	}
	return err
}

// placedOf reads the data of order.placed.
func placedOf(e *event.Event) (Placed, error) {
	var data struct {
		Number   string   `json:"number"`
		UserID   uid.User `json:"userId"`
		Total    string   `json:"total"`
		Currency string   `json:"currency"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return Placed{}, fmt.Errorf("read the data of %s: %w", e.ID, err)
	}
	total, err := money.Parse(data.Total, data.Currency)
	if err != nil {
		return Placed{}, fmt.Errorf("read the data of %s: %w", e.ID, err)
	}
	return Placed{uid.Order(e.SubjectID), data.Number, data.UserID, total}, nil
}

// ReceiveCallback stores a message of the provider, whose signature the caller has verified, until a worker applies it. A message with the
// same id has no effect. It is stored also when its payment is not known yet.
func (s *Service) ReceiveCallback(ctx context.Context, c Callback) error {
	if c.ID == "" || len(c.ID) > maxReference || !c.Payment.Valid() || len(c.Refund) > maxReference {
		return fault.New(fault.BadInput, "The message needs an id of 1 to %d bytes and the id of a payment.", maxReference)
	}
	if _, outcome := inputOf(c.Answer, false); outcome == OutcomeUnknown {
		return fault.New(fault.BadInput, "%.20q is not a status of an answer.", c.Answer.Status)
	}
	a := &c.Answer
	a.Reference, a.Failure, a.Message, a.Instance = cut(a.Reference, maxReference), cut(a.Failure, maxFailure), cut(a.Message, maxMessage), cut(a.Instance, maxReference)
	if err := s.store.AddCallback(ctx, c, s.now()); err != nil {
		return err
	}
	s.wake.Set()
	return nil
}

// Backlog returns what is open.
func (s *Service) Backlog(ctx context.Context) (Backlog, error) { return s.store.Backlog(ctx, s.now()) }

// ByIDs returns those of the payments that exist and that the caller may see.
func (s *Service) ByIDs(ctx context.Context, ids []uid.Payment) (map[uid.Payment]*Payment, error) {
	caller := auth.From(ctx)
	var ok []uid.Payment
	for _, id := range ids {
		if id.Valid() {
			ok = append(ok, id)
		}
	}
	if !caller.May(auth.OrdersRead) || len(ok) == 0 {
		return nil, nil
	}
	found, err := s.store.ByIDs(ctx, ok)
	return visible(caller, found), err
}

// ByOrders returns the payments of the orders, those that the caller may see.
func (s *Service) ByOrders(ctx context.Context, ids []uid.Order) (map[uid.Order]*Payment, error) {
	caller := auth.From(ctx)
	if !caller.May(auth.OrdersRead) {
		return nil, nil
	}
	found, err := s.store.ByOrders(ctx, ids)
	return visible(caller, found), err
}

func visible[K comparable](caller *auth.Principal, found map[K]*Payment) map[K]*Payment {
	seen := make(map[K]*Payment, len(found))
	for id, p := range found {
		if caller.MaySee(p.UserID, auth.OrdersRead) {
			seen[id] = p
		}
	}
	return seen
}

// Attempts returns the attempts of payments that the caller has been shown. Only STAFF and ADMIN see instances and messages.
func (s *Service) Attempts(ctx context.Context, ids []uid.Payment) (map[uid.Payment][]*Attempt, error) {
	found, err := s.store.Attempts(ctx, ids)
	staff := auth.From(ctx).IsStaff()
	all := make(map[uid.Payment][]*Attempt, len(found))
	for id, attempts := range found {
		for _, a := range attempts {
			if !staff {
				a.Instance, a.Message = "", ""
			}
			all[id] = append(all[id], &a)
		}
	}
	return all, err
}

// List returns a page of the payments that the caller may see: STAFF and ADMIN all, others their own.
func (s *Service) List(ctx context.Context, f Filter, by OrderBy, args page.Args) (page.Page[*Payment], error) {
	f, none, err := narrowToVisible(ctx, f)
	if err != nil || none {
		return page.Page[*Payment]{}, err
	}
	return s.store.List(ctx, f, by, args)
}

// Count returns how many payments List would show on all its pages.
func (s *Service) Count(ctx context.Context, f Filter) (int, error) {
	f, none, err := narrowToVisible(ctx, f)
	if err != nil || none {
		return 0, err
	}
	return s.store.Count(ctx, f)
}

func narrowToVisible(ctx context.Context, f Filter) (_ Filter, none bool, err error) {
	f.UserID, none, err = auth.NarrowOwner(ctx, auth.OrdersRead, f.UserID)
	return f, none, err
}
