package order

import (
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// The types of events.
const (
	EventProductCreated         event.Type = "product.created"
	EventProductUpdated         event.Type = "product.updated"
	EventProductStockChanged    event.Type = "product.stock_changed" // by hand; sales show as order events
	EventOrderPlaced                       = event.OrderPlaced
	EventOrderPaid              event.Type = "order.paid"
	EventOrderShipped           event.Type = "order.shipped"
	EventOrderDelivered         event.Type = "order.delivered"
	EventOrderCancelled                    = event.OrderCancelled
	EventOrderRefunded          event.Type = "order.refunded"
	EventPaymentRefundRequested            = event.PaymentRefundRequested
)

// The codes of errors.
const (
	CodeProductNotFound     fault.Code = "PRODUCT_NOT_FOUND"
	CodeProductNotActive    fault.Code = "PRODUCT_NOT_ACTIVE"
	CodeSKUInvalid          fault.Code = "SKU_INVALID"
	CodeSKUTaken            fault.Code = "SKU_TAKEN"
	CodeStockInsufficient   fault.Code = "STOCK_INSUFFICIENT"
	CodeStockInvalid        fault.Code = "STOCK_INVALID"
	CodeOrderNotFound       fault.Code = "ORDER_NOT_FOUND"
	CodeOrderLinesInvalid   fault.Code = "ORDER_LINES_INVALID"
	CodeQuantityInvalid     fault.Code = "QUANTITY_INVALID"
	CodeCurrencyMixed       fault.Code = "CURRENCY_MIXED"
	CodePriceChanged        fault.Code = "PRICE_CHANGED"
	CodeTotalTooLarge       fault.Code = "TOTAL_TOO_LARGE"
	CodeOrderNotCancellable fault.Code = "ORDER_NOT_CANCELLABLE"
	CodePaymentUnderWay     fault.Code = "PAYMENT_UNDER_WAY"
	CodeOrderNotPayable     fault.Code = "ORDER_NOT_PAYABLE"
	CodeOrderNotShippable   fault.Code = "ORDER_NOT_SHIPPABLE"
	CodeOrderNotDeliverable fault.Code = "ORDER_NOT_DELIVERABLE"
	CodeOrderNotRefundable  fault.Code = "ORDER_NOT_REFUNDABLE"
)

// ProductEntity is the declaration of products.
var ProductEntity = entity.Declare(entity.Declaration{
	Name: "product", Kind: uid.KindProduct,
	Events: []event.Declaration{
		{Type: EventProductCreated, Readers: event.ReadersPublic, Data: productSnapshot{}},
		{Type: EventProductUpdated, Readers: event.ReadersPublic, Data: productSnapshot{}},
		{Type: EventProductStockChanged, Readers: event.ReadersPublic, Data: stockSnapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeProductNotFound, Kind: fault.KindNotFound, Sentence: "There is no such product, or it is hidden from the caller."},
		{Code: CodeProductNotActive, Kind: fault.KindConflict, Sentence: "The product is not for sale; only callers that may see such products get this."},
		{Code: CodeSKUInvalid, Kind: fault.KindInvalid, Sentence: "This cannot be a SKU."},
		{Code: CodeSKUTaken, Kind: fault.KindConflict, Sentence: "Another product has this SKU."},
		{Code: CodeStockInsufficient, Kind: fault.KindConflict, Sentence: "There is not enough left of the product."},
		{Code: CodeStockInvalid, Kind: fault.KindInvalid, Sentence: "A stock, or a change of it, is out of range."},
	},
	Unique: map[string]*fault.Error{
		"products.sku":       fault.New(CodeSKUTaken, "There is another product with this SKU.").At("sku"),
		"products.legacy_id": validate.LegacyIDTaken(),
	},
})

// OrderEntity is the declaration of orders, with the events of their payments.
var OrderEntity = entity.Declare(entity.Declaration{
	Name: "order", Kind: uid.KindOrder,
	Events: []event.Declaration{
		{Type: EventOrderPlaced, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventOrderPaid, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventOrderShipped, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventOrderDelivered, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventOrderCancelled, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventOrderRefunded, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
		{Type: EventPaymentRefundRequested, Readers: event.ReadersStaff, Scope: auth.OrdersRead, Data: snapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeOrderNotFound, Kind: fault.KindNotFound, Sentence: "There is no such order, or it is hidden from the caller."},
		{Code: CodeOrderLinesInvalid, Kind: fault.KindInvalid, Sentence: "An order has 1 to 100 lines, each with another SKU."},
		{Code: CodeQuantityInvalid, Kind: fault.KindInvalid, Sentence: "The quantity of a line is out of range."},
		{Code: CodeCurrencyMixed, Kind: fault.KindInvalid, Sentence: "The lines of an order must be priced in one currency."},
		{Code: CodePriceChanged, Kind: fault.KindConflict, Sentence: "The order does not cost what `expectedTotal` says; the payload carries what it costs."},
		{Code: CodeTotalTooLarge, Kind: fault.KindInvalid, Sentence: "The total of the order is larger than the server can count."},
		{Code: CodeOrderNotCancellable, Kind: fault.KindConflict, Sentence: "Only an order that is PENDING can be cancelled; a paid one is refunded."},
		{Code: CodePaymentUnderWay, Kind: fault.KindConflict, Sentence: "The payment provider may be charging the order: it can be cancelled only if that fails, and be refunded if it succeeds."},
		{Code: CodeOrderNotPayable, Kind: fault.KindConflict, Sentence: "Only an order that is PENDING can be paid."},
		{Code: CodeOrderNotShippable, Kind: fault.KindConflict, Sentence: "Only an order that is PAID, without a requested refund, can be shipped."},
		{Code: CodeOrderNotDeliverable, Kind: fault.KindConflict, Sentence: "Only an order that is SHIPPED can be delivered."},
		{Code: CodeOrderNotRefundable, Kind: fault.KindConflict, Sentence: "Only an order that was paid can be refunded; customers may ask until it ships."},
	},
	Unique: map[string]*fault.Error{
		"orders.legacy_id": validate.LegacyIDTaken(),
	},
})
