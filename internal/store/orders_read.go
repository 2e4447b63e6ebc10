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
		rows, err := s.db.client.Order.Query().Where(entorder.IDIn(some...)).All(ctx)
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
		rows, err := s.db.client.OrderItem.Query().Where(entitem.OrderIDIn(some...)).
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

// ListByUsers implements order.Store. Each user's orders are numbered in the
// order of the list, and as many of them read as the page has, plus one.
func (s Orders) ListByUsers(ctx context.Context, users []uid.User, f order.Filter, by order.OrderBy, args page.Args,
) (map[uid.User]page.Page[*order.Order], error) {
	slice, err := orderOrders[by].parseArgs(args)
	if err != nil {
		return nil, err
	}
	f.UserID = nil
	found := make(map[uid.User][]*order.Order, len(users))
	for some := range slices.Chunk(users, maxIDs) {
		rows, err := s.db.client.Order.Query().Where(firstOfEach(some, f, slice), slice.sortRows).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("list orders of users: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.UserID] = append(found[row.UserID], toOrder(row))
		}
	}
	pages := make(map[uid.User]page.Page[*order.Order], len(users))
	for _, id := range users {
		pages[id] = slice.toPage(found[id])
	}
	return pages, nil
}

// firstOfEach restricts a query to the first orders of each user within the
// slice, one more than its page has.
func firstOfEach(users []uid.User, f order.Filter, s pageQuery[*order.Order]) func(*entsql.Selector) {
	return func(q *entsql.Selector) {
		b := entsql.Dialect(q.Dialect())
		direction := "ASC"
		if s.isDescending() {
			direction = "DESC"
		}
		place := fmt.Sprintf("ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY %s %s, id %s)", s.column, direction, direction)
		inner := b.Select("id").AppendSelectExprAs(entsql.Raw(place), "place").From(b.Table(entorder.Table))
		inner.Where(entsql.In(inner.C(entorder.FieldUserID), toAnys(users)...))
		matchingOrders(f)(inner)
		s.restrictRows(inner)
		numbered := b.Select("id").From(inner.As("numbered"))
		numbered.Where(entsql.And(entsql.GT("place", s.Skip), entsql.LTE("place", s.Skip+s.Limit+1)))
		q.Where(entsql.In(q.C(entorder.FieldID), numbered))
	}
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
		var rows []struct {
			UserID uid.User `json:"user_id"` //nolint:tagliatelle // the name of the column
			Count  int      `json:"count"`
		}
		err := s.db.client.Order.Query().Where(entorder.UserIDIn(some...), matchingOrders(f)).
			GroupBy(entorder.FieldUserID).Aggregate(ent.Count()).Scan(ctx, &rows)
		if err != nil {
			return nil, fmt.Errorf("count orders of users: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			counts[row.UserID] = min(row.Count, page.MaxCount+1)
		}
	}
	return counts, nil
}

func (s Orders) queryMatching(f order.Filter) (*ent.OrderQuery, error) {
	return s.db.client.Order.Query().Where(matchingOrders(f)), nil
}

// matchingOrders restricts a query on orders. It takes a selector, not a query
// of ent, as ListByUsers numbers its rows in a query of its own.
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
