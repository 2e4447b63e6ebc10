package store

import (
	"context"
	"fmt"
	"slices"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	entorder "github.com/backplane-dev/backplane/ent/order"
	entitem "github.com/backplane-dev/backplane/ent/orderitem"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ByIDs implements order.Store.
func (s Orders) ByIDs(ctx context.Context, ids []uid.Order) (map[uid.Order]*order.Order, error) {
	found := make(map[uid.Order]*order.Order, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.Order.Query().Where(oneOfValues(entorder.FieldID, some)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read orders: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toOrder(row)
		}
	}
	return found, nil
}

func (s Orders) readOrder(ctx context.Context, id uid.Order) (*order.Order, error) {
	found, err := s.ByIDs(ctx, []uid.Order{id})
	if err == nil && found[id] == nil {
		err = order.NotFound()
	}
	return found[id], err
}

// Items implements order.Store.
func (s Orders) Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]order.Item, error) {
	found := make(map[uid.Order][]order.Item, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.OrderItem.Query().Where(oneOfValues(entitem.FieldOrderID, some)).
			Order(ent.Asc(entitem.FieldOrderID, entitem.FieldLine)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read order items: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.OrderID] = append(found[row.OrderID], toItem(row))
		}
	}
	return found, nil
}

func toItem(r *ent.OrderItem) order.Item {
	return order.Item{
		OrderID: r.OrderID, Line: r.Line, ProductID: r.ProductID, SKU: r.Sku, Name: r.Name, Quantity: r.Quantity,
		UnitPrice: money.Money{Minor: r.UnitPriceMinor, Currency: r.Currency}, Total: money.Money{Minor: r.TotalMinor, Currency: r.Currency},
	}
}

var orderOrders = map[order.OrderBy]keyset[*order.Order]{
	order.ByPlacedDesc: ordersByPlaced(order.ByPlacedDesc, true),
	order.ByPlacedAsc:  ordersByPlaced(order.ByPlacedAsc, false),
	order.ByTotalDesc:  ordersByTotal(order.ByTotalDesc, true),
	order.ByTotalAsc:   ordersByTotal(order.ByTotalAsc, false),
}

func ordersByPlaced(name order.OrderBy, desc bool) keyset[*order.Order] {
	key := func(o *order.Order) string { return timeKey(o.PlacedAt) }
	return keyset[*order.Order]{string(name), entorder.FieldPlacedAt, desc, key, orderID, parseTime}
}

func ordersByTotal(name order.OrderBy, desc bool) keyset[*order.Order] {
	key := func(o *order.Order) string { return intKey(o.Total.Minor) }
	return keyset[*order.Order]{string(name), entorder.FieldTotalMinor, desc, key, orderID, parseInt}
}

func orderID(o *order.Order) string { return string(o.ID) }

// List implements order.Store.
func (s Orders) List(ctx context.Context, f order.Filter, by order.OrderBy, args page.Args) (page.Page[*order.Order], error) {
	return listPage(ctx, s.db, s.queryMatching, f, orderOrders[by], args, toOrder)
}

// ListByUsers implements order.Store. For each user the index in the order of the list is read, as far as the
// page goes, plus one.
func (s Orders) ListByUsers(ctx context.Context, users []uid.User, f order.Filter, by order.OrderBy, args page.Args,
) (map[uid.User]page.Page[*order.Order], error) {
	slice, err := orderOrders[by].parseArgs(args)
	if err != nil {
		return nil, err
	}
	f.UserID = nil
	found := make(map[uid.User][]*order.Order, len(users))
	for some := range slices.Chunk(users, maxIDs) {
		inner := s.db.perParent(entorder.Table, entorder.FieldUserID)
		matchingOrders(f)(inner)
		slice.applyTo(inner)
		err := s.db.eachPerParent(ctx, entorder.Table, readColumns, inner, slice.orderOf("o"), some, func(scan func(...any) error) error {
			o, err := scanOrder(scan)
			if err == nil {
				found[o.UserID] = append(found[o.UserID], o)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list orders of users: %w", s.db.translateError(ctx, err))
		}
	}
	pages := make(map[uid.User]page.Page[*order.Order], len(users))
	for _, id := range users {
		pages[id] = slice.toPage(found[id])
	}
	return pages, nil
}

// readColumns are the columns of scanOrder.
var readColumns = []string{
	entorder.FieldID, entorder.FieldNumber, entorder.FieldUserID, entorder.FieldStatus, entorder.FieldTotalMinor, entorder.FieldCurrency,
	entorder.FieldItemCount, entorder.FieldNote, entorder.FieldLegacyID, entorder.FieldRefundRequestedAt,
	entorder.FieldPlacedAt, entorder.FieldVersion, entorder.FieldCreatedAt, entorder.FieldUpdatedAt,
}

func scanOrder(scan func(...any) error) (*order.Order, error) {
	o := &order.Order{}
	var placed, created, updated instant
	var refund *instant
	err := scan(&o.ID, &o.Number, &o.UserID, &o.Status, &o.Total.Minor, &o.Total.Currency, &o.ItemCount, &o.Note, &o.LegacyID, &refund,
		&placed, &o.Version, &created, &updated)
	o.RefundRequestedAt, o.PlacedAt, o.CreatedAt, o.UpdatedAt = refund.orNil(), placed.Time, created.Time, updated.Time
	return o.Loaded(), err
}

// Count implements order.Store.
func (s Orders) Count(ctx context.Context, f order.Filter) (int, error) {
	return countRows(ctx, s.db, s.queryMatching, f)
}

// CountByUsers implements order.Store.
func (s Orders) CountByUsers(ctx context.Context, users []uid.User, f order.Filter) (map[uid.User]int, error) {
	f.UserID = nil
	counts := make(map[uid.User]int, len(users))
	for some := range slices.Chunk(users, maxIDs) {
		inner := s.db.perParent(entorder.Table, entorder.FieldUserID).Limit(page.MaxCount + 1)
		matchingOrders(f)(inner)
		if err := s.db.countPerParent(ctx, inner, some, countsInto(counts)); err != nil {
			return nil, fmt.Errorf("count orders of users: %w", s.db.translateError(ctx, err))
		}
	}
	return counts, nil
}

func (s Orders) queryMatching(f order.Filter) (*ent.OrderQuery, error) {
	return s.db.lists.Order.Query().Where(matchingOrders(f)), nil
}

// matchingOrders restricts a query on orders. It takes a selector, not a query
// of ent, for the queries of ListByUsers and CountByUsers.
func matchingOrders(f order.Filter) func(*entsql.Selector) {
	return func(q *entsql.Selector) {
		if f.UserID != nil {
			equalsText(entorder.FieldUserID, string(*f.UserID))(q)
		}
		if f.Status != nil {
			q.Where(entsql.In(q.C(entorder.FieldStatus), toAnys(f.Status)...))
		}
		if f.Number != nil {
			equalsText(entorder.FieldNumber, order.ParseNumber(*f.Number))(q)
		}
		if f.LegacyID != nil {
			equalsText(entorder.FieldLegacyID, *f.LegacyID)(q)
		}
		if f.PlacedAfter != nil {
			q.Where(entsql.GTE(q.C(entorder.FieldPlacedAt), toMicros(*f.PlacedAfter)))
		}
		if f.PlacedBefore != nil {
			q.Where(entsql.LT(q.C(entorder.FieldPlacedAt), toMicros(*f.PlacedBefore)))
		}
	}
}
