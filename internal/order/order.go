// Package order owns what can be ordered and the life of an order: products
// with price and stock, and orders from placement to delivery or refund.
//
// The rules are methods on Product, Stock and Order and need neither a database
// nor a context. Service adds what no caller may bypass: permissions, the clock,
// persistence. Every change of state records an event; the Store commits both
// together. Stock plus what unshipped orders hold changes only by shipping and
// by hand. More than a third of the exported names are types of events and codes of
// errors.
package order

import (
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Limits of orders.
const (
	MaxLines    = 100
	maxQuantity = 1_000_000 // units of one line
	maxNote     = 1000      // characters
	maxReason   = 500       // characters
)

// Status is a state in the life cycle of an order.
type Status string

// The states of an order.
const (
	Pending   Status = "PENDING"   // placed, not paid; holds stock
	Paid      Status = "PAID"      // paid, not shipped; holds stock
	Shipped   Status = "SHIPPED"   // on its way
	Delivered Status = "DELIVERED" // arrived
	Cancelled Status = "CANCELLED" // ended before payment; stock returned
	Refunded  Status = "REFUNDED"  // paid back; stock returned if it had not shipped
)

// transitions is the state table.
var transitions = map[Status][]Status{
	Pending:   {Paid, Cancelled},
	Paid:      {Shipped, Refunded},
	Shipped:   {Delivered, Refunded},
	Delivered: {Refunded},
}

// Statuses returns every state.
func Statuses() []Status {
	return []Status{Pending, Paid, Shipped, Delivered, Cancelled, Refunded}
}

// Order is a customer's request to buy.
type Order struct {
	ID                uid.Order
	Number            string // for people: ten characters in two groups, unique, not guessable
	UserID            uid.User
	Status            Status
	ItemCount         int // lines, not units
	Total             money.Money
	Note              string // the customer's message to the shop; may be empty
	LegacyID          *string
	RefundRequestedAt *time.Time // when a refund was asked for; nil if never
	Version           int        // raised by each change
	PlacedAt          time.Time
	CreatedAt         time.Time
	UpdatedAt         time.Time

	items  []Item // of a new order, to be stored with it
	held   bool   // whether it held stock when it was loaded
	events event.Recorder
}

// Item is one line of an order. It is a copy of what the product was when the
// order was placed, and never changes.
type Item struct {
	OrderID   uid.Order
	Line      int // from 1, in the order of the request
	ProductID uid.Product
	SKU       string
	Name      string
	Quantity  int
	UnitPrice money.Money
	Total     money.Money
}

// Want is one line of a request to buy.
type Want struct {
	SKU      string
	Quantity int
}

// Offer is a product with its stock, locked while an order is placed.
type Offer struct {
	Product *Product
	Stock   *Stock
}

// Details is what else is known of a new order.
type Details struct {
	UserID        uid.User
	Note          string
	LegacyID      *string
	ByStaff       bool         // the caller may see products that are not for sale
	ExpectedTotal *money.Money // what the customer agreed to; nil for whatever the products cost
	Invalid       error        // mistakes that reading the input has found; reported with those of the rules
}

// check checks the details and the lines of a request before anything is read: 1 to MaxLines,
// each of a positive quantity, no SKU twice. Its error joins all mistakes.
func (d Details) check(wants []Want) error {
	_, err := validate.Text("note", d.Note, maxNote)
	return errors.Join(checkWants(wants), err, d.Invalid, validate.OptionalLegacyID(d.LegacyID))
}

// Place makes an order of the wants from the offers, one for each SKU that
// exists, takes the units out of their stocks and records order.placed. It
// refuses what is unknown, inactive, sold out or priced in another currency, and
// points to each line, and another total than the expected one; stocks are only changed if it succeeds.
func Place(d Details, wants []Want, offers map[string]Offer, at time.Time) (*Order, error) {
	if err := d.check(wants); err != nil {
		return nil, err
	}
	o := &Order{
		ID: uid.NewOrder(at), Number: NewNumber(), UserID: d.UserID, Status: Pending, Note: d.Note, LegacyID: d.LegacyID,
		Version: 1, PlacedAt: at, CreatedAt: at, UpdatedAt: at,
	}
	var errs []error
	for i, w := range wants {
		errs = append(errs, o.addLine(i, w, offers[w.SKU], d.ByStaff))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if d.ExpectedTotal != nil && *d.ExpectedTotal != o.Total {
		return nil, errPriceChanged(o.Total)
	}
	o.ItemCount = len(o.items)
	for _, w := range wants {
		s := offers[w.SKU].Stock
		s.Quantity, s.Version, s.UpdatedAt = s.Quantity-w.Quantity, s.Version+1, at
	}
	o.recordEvent(EventOrderPlaced, at, "")
	return o, nil
}

// errPriceChanged carries the total as it is.
func errPriceChanged(total money.Money) error {
	e := fault.New(CodePriceChanged, "The prices have changed: the order costs %s %s now.", total.Amount(), total.Currency).At("expectedTotal")
	e.Current = &total
	return e
}

func checkWants(wants []Want) error {
	if len(wants) == 0 || len(wants) > MaxLines {
		return fault.New(CodeOrderLinesInvalid, "An order has 1 to %d lines, not %d.", MaxLines, len(wants)).At("items")
	}
	var errs []error
	seen := make(map[string]bool, len(wants))
	for i, w := range wants {
		switch {
		case checkSKU(w.SKU) != nil:
			errs = append(errs, errLine(CodeProductNotFound, i, "sku", "There is no product with this SKU."))
		case seen[w.SKU]:
			errs = append(errs, errLine(CodeOrderLinesInvalid, i, "sku", "%s stands in two lines; make it one.", w.SKU))
		}
		if w.Quantity < 1 || w.Quantity > maxQuantity {
			errs = append(errs, errLine(CodeQuantityInvalid, i, "quantity", "Order 1 to 1000000 units."))
		}
		seen[w.SKU] = true
	}
	return errors.Join(errs...)
}

// addLine adds a line of the offer. To callers that may not see a product it says what it says of an
// absent one.
func (o *Order) addLine(i int, w Want, offer Offer, byStaff bool) error {
	p := offer.Product
	switch {
	case p == nil, !p.Active && !byStaff:
		return errLine(CodeProductNotFound, i, "sku", "There is no product with the SKU %s.", w.SKU)
	case !p.Active:
		return errLine(CodeProductNotActive, i, "sku", "%s is not for sale at the moment.", w.SKU)
	case offer.Stock.Quantity < w.Quantity:
		return errSoldOut(i, w.SKU)
	case o.Total.Currency != "" && o.Total.Currency != p.Price.Currency:
		return errLine(CodeCurrencyMixed, i, "sku", "%s is priced in %s, the lines before it in %s; an order has one currency.",
			w.SKU, p.Price.Currency, o.Total.Currency)
	}
	o.Total.Currency = p.Price.Currency
	line, ok := p.Price.Times(w.Quantity)
	if ok {
		o.Total, ok = o.Total.Plus(line)
	}
	if !ok || o.Total.Minor > money.Max {
		return errLine(CodeTotalTooLarge, i, "quantity", "The total of this order is too large.")
	}
	o.items = append(o.items, Item{o.ID, i + 1, p.ID, p.SKU, p.Name, w.Quantity, p.Price, line})
	return nil
}

// NextStatuses returns the states that the order may move to from here.
func (o *Order) NextStatuses() []Status {
	if o.RefundRequestedAt != nil && o.Status == Paid {
		return []Status{Refunded}
	}
	return slices.Clone(transitions[o.Status])
}

// Holds reports whether the order holds stock that a customer may still get.
func (o *Order) Holds() bool { return o.Status == Pending || o.Status == Paid }

// Cancel ends a pending order and gives its stock back; on a cancelled order it
// does nothing. It returns a Conflict, ORDER_NOT_CANCELLABLE, once it is paid.
func (o *Order) Cancel(reason string, at time.Time) error {
	reason, err := validate.Text("reason", reason, maxReason)
	if err != nil {
		return err
	}
	return o.moveTo(Cancelled, EventOrderCancelled, CodeOrderNotCancellable, "cancelled", reason, at)
}

// Pay marks a pending order as paid; on a paid order it does nothing. Only the
// payment domain calls it.
func (o *Order) Pay(at time.Time) error {
	return o.moveTo(Paid, EventOrderPaid, CodeOrderNotPayable, "paid", "", at)
}

// Ship sends a paid order on its way; on a shipped order it does nothing. An
// order whose refund was asked for stays.
func (o *Order) Ship(at time.Time) error {
	return o.moveTo(Shipped, EventOrderShipped, CodeOrderNotShippable, "shipped", "", at)
}

// Deliver marks a shipped order as arrived; on a delivered order it does nothing.
func (o *Order) Deliver(at time.Time) error {
	return o.moveTo(Delivered, EventOrderDelivered, CodeOrderNotDeliverable, "delivered", "", at)
}

// RequestRefund asks for the money back; asking again does nothing. The order
// turns REFUNDED when the payment provider confirms, see Refund.
func (o *Order) RequestRefund(reason string, at time.Time) error {
	reason, err := validate.Text("reason", reason, maxReason)
	switch {
	case err != nil:
		return err
	case o.RefundRequestedAt != nil:
		return nil
	case !slices.Contains(transitions[o.Status], Refunded):
		return fault.New(CodeOrderNotRefundable, "An order that is %s cannot be refunded.", o.Status)
	}
	o.RefundRequestedAt = &at
	o.bumpVersion(at)
	o.recordEvent(EventPaymentRefundRequested, at, reason)
	return nil
}

// Refund marks the order as paid back and gives its stock back if it never
// shipped; on a refunded order it does nothing. Only the payment domain calls it.
func (o *Order) Refund(at time.Time) error {
	return o.moveTo(Refunded, EventOrderRefunded, CodeOrderNotRefundable, "refunded", "", at)
}

// confirmPayment pays the order. The money of an order that was cancelled meanwhile is asked back.
func (o *Order) confirmPayment(at time.Time) error {
	switch {
	case o.Status == Pending:
		return o.Pay(at)
	case o.Status == Cancelled && o.RefundRequestedAt == nil:
		o.RefundRequestedAt = &at
		o.bumpVersion(at)
		o.recordEvent(EventPaymentRefundRequested, at, "The order was cancelled before its payment succeeded.")
	}
	return nil
}

// failPayment cancels an order that cannot be paid.
func (o *Order) failPayment(at time.Time) error {
	if o.Status != Pending {
		return nil
	}
	return o.Cancel("The payment failed.", at)
}

// confirmRefund marks an order as paid back; one that was cancelled before it was paid stays cancelled.
func (o *Order) confirmRefund(at time.Time) error {
	if !slices.Contains(transitions[o.Status], Refunded) {
		return nil
	}
	return o.Refund(at)
}

func (o *Order) moveTo(to Status, t event.Type, refusal fault.Code, done, reason string, at time.Time) error {
	if o.Status == to {
		return nil
	}
	if !slices.Contains(o.NextStatuses(), to) {
		why := ""
		if o.RefundRequestedAt != nil && o.Status == Paid {
			why = " and waits for its refund"
		}
		return fault.New(refusal, "An order that is %s%s cannot be %s.", o.Status, why, done)
	}
	o.Status = to
	o.bumpVersion(at)
	o.recordEvent(t, at, reason)
	return nil
}

// Loaded marks the order as loaded from a store: ReturnsStock compares the stock
// that it holds later with the stock that it holds now.
func (o *Order) Loaded() *Order {
	o.held = o.Holds()
	return o
}

// ReturnsStock reports whether the changes since Loaded give the order's units
// back to their stocks.
func (o *Order) ReturnsStock() bool {
	return o.held && (o.Status == Cancelled || o.Status == Refunded)
}

// Items returns the lines of an order that Place has just made, for its store.
func (o *Order) Items() []Item { return o.items }

// TakeEvents returns the events recorded since the last call.
func (o *Order) TakeEvents() []event.Event { return o.events.Take() }

// NotFound is the error for an order that is absent or hidden: one error, so
// that ids cannot be probed.
func NotFound() *fault.Error {
	return fault.New(CodeOrderNotFound, "There is no such order.").At("id")
}

// PaymentUnderWay is the error of a store for an order that cannot be cancelled, since its payment provider may be
// charging it, or has.
func PaymentUnderWay() *fault.Error {
	return fault.New(CodePaymentUnderWay, "A payment of this order is under way. Wait for its outcome: if it succeeds, ask for a refund.").At("id")
}

// NewNumber returns an order number: 50 random bits, such as K7M2P-Q9X4T. It does
// not reveal how many orders there are. A store generates another one if it is taken.
func NewNumber() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return NumberFrom(b)
}

// NumberFrom returns the order number that belongs to ten bytes.
func NumberFrom(b [10]byte) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base 32: nothing to mistake
	for i, c := range b {
		b[i] = alphabet[c&31]
	}
	return string(b[:5]) + "-" + string(b[5:])
}

// ParseNumber returns the spelling of an order number as it is stored, whatever its case, dashes
// and spaces, and whether people wrote I or L for 1 and O for 0. What is no order number is
// returned as it is.
func ParseNumber(s string) string {
	const parts = 5
	bare := strings.NewReplacer("-", "", " ", "", "I", "1", "L", "1", "O", "0").Replace(strings.ToUpper(s))
	if len(bare) != 2*parts {
		return s
	}
	return bare[:parts] + "-" + bare[parts:]
}

func (o *Order) bumpVersion(at time.Time) { o.Version, o.UpdatedAt = o.Version+1, at }

// snapshot is the order as its events show it. The note is the customer's
// private matter and stays out.
type snapshot struct {
	Number    string         `json:"number"`
	UserID    uid.User       `json:"userId"`
	Status    Status         `json:"status"`
	ItemCount int            `json:"itemCount"`
	Total     string         `json:"total"`
	Currency  string         `json:"currency"`
	LegacyID  *string        `json:"legacyId,omitempty"`
	Items     []itemSnapshot `doc:"of order.placed"                         json:"items,omitempty"`
	Reason    string         `doc:"as stated with a cancellation or refund" json:"reason,omitempty"`
}

type itemSnapshot struct {
	SKU       string `json:"sku"`
	Quantity  int    `json:"quantity"`
	UnitPrice string `json:"unitPrice"`
}

func (o *Order) recordEvent(t event.Type, at time.Time, reason string) {
	s := snapshot{o.Number, o.UserID, o.Status, o.ItemCount, o.Total.Amount(), o.Total.Currency, o.LegacyID, nil, reason}
	for _, it := range o.items {
		s.Items = append(s.Items, itemSnapshot{it.SKU, it.Quantity, it.UnitPrice.Amount()})
	}
	o.events.Record(t, string(o.ID), o.Version, s, at, string(o.UserID))
}

func errSoldOut(i int, sku string) error {
	return errLine(CodeStockInsufficient, i, "quantity", "There is not enough of %s left.", sku)
}

func errLine(c fault.Code, line int, field, format string, args ...any) error {
	return fault.New(c, format, args...).At("items", strconv.Itoa(line), field)
}
