package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entorder "github.com/backplane-dev/backplane/ent/order"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Orders implements order.Store.
type Orders struct{ db *DB }

var _ order.Store = Orders{}

// Place implements order.Store. It takes ten statements at most, BEGIN and
// COMMIT and the claim of an idempotency key among them, however many lines
// there are; on PostgreSQL in two round trips.
func (s Orders) Place(ctx context.Context, cl claim.Claim, customer uid.User, wants []order.Want,
	place func(map[string]order.Offer) (*order.Order, error),
) (*order.Order, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readOrder, func(t *tx) (*order.Order, error) {
		if err := t.lockCustomer(ctx, customer); err != nil {
			return nil, err
		}
		offers, err := t.lockOffers(ctx, wants)
		if err != nil {
			return nil, err
		}
		o, err := place(offers)
		if err != nil {
			return nil, err
		}
		if err := t.takeStock(ctx, offers, o); err != nil {
			return nil, err
		}
		return o.Loaded(), t.insertOrder(ctx, o)
	})
	if err != nil {
		return nil, fmt.Errorf("place order: %w", err)
	}
	return out, nil
}

// lockCustomer checks that the account may order, and locks it until the commit. On PostgreSQL the
// outcome comes with the next result.
func (t *tx) lockCustomer(ctx context.Context, id uid.User) error {
	var status user.Status
	check := func(found bool) error {
		switch {
		case !found || status == user.Deleted:
			return user.NotFound().At("userId")
		case status != user.Active:
			return fault.New(fault.UserNotActive, "This account may not order at the moment.").At("userId")
		}
		return nil
	}
	return t.queueRow(ctx, check, `SELECT status FROM users WHERE id = ?`+t.lockClause("FOR SHARE"), []any{string(id)}, &status)
}

// lockOffers reads the products of the wants with their stocks, and locks the
// stocks in the order of their products' ids.
func (t *tx) lockOffers(ctx context.Context, wants []order.Want) (map[string]order.Offer, error) {
	sku, skus := t.anyOf("p.sku", mapSlice(wants, func(w order.Want) string { return w.SKU }))
	offers := make(map[string]order.Offer, len(wants))
	err := t.eachRow(ctx, `SELECT p.id, p.sku, p.name, p.description, p.price_minor, p.currency, p.active, p.legacy_id, p.version, p.created_at, p.updated_at,
			s.quantity, s.version, s.updated_at
		FROM products p JOIN stocks s ON s.product_id = p.id WHERE `+sku+`
		ORDER BY s.product_id`+t.lockClause("FOR UPDATE OF s"), skus, func(scan func(...any) error) error {
		p, s := &order.Product{}, &order.Stock{}
		var created, updated, changed instant
		err := scan(&p.ID, &p.SKU, &p.Name, &p.Description, &p.Price.Minor, &p.Price.Currency, &p.Active, &p.LegacyID, &p.Version,
			&created, &updated, &s.Quantity, &s.Version, &changed)
		p.CreatedAt, p.UpdatedAt, s.ProductID, s.UpdatedAt = created.Time, updated.Time, p.ID, changed.Time
		offers[p.SKU] = order.Offer{Product: p, Stock: s}
		return err
	})
	return offers, err
}

// takeStock writes the stocks of an order's lines, all in one statement.
func (t *tx) takeStock(ctx context.Context, offers map[string]order.Offer, o *order.Order) error {
	var ids []string
	var quantities []int64
	var cases []any
	for _, it := range o.Items() {
		s := offers[it.SKU].Stock
		ids, quantities, cases = append(ids, string(s.ProductID)), append(quantities, int64(s.Quantity)), append(cases, string(s.ProductID), s.Quantity)
		t.touchRow("stock", string(s.ProductID), s.Version)
	}
	if t.isPostgres() {
		return t.queue(ctx, `UPDATE stocks SET quantity = taken.quantity, version = version + 1, updated_at = ?
			FROM unnest(CAST(? AS text[]), CAST(? AS bigint[])) AS taken (product_id, quantity) WHERE stocks.product_id = taken.product_id`,
			toMicros(o.PlacedAt), ids, quantities)
	}
	return t.queue(ctx, `UPDATE stocks SET quantity = CASE product_id`+strings.Repeat(` WHEN ? THEN CAST(? AS bigint)`, len(ids))+
		` END, version = version + 1, updated_at = ? WHERE product_id IN (`+paramList(len(ids))+`)`, slices.Concat(cases, []any{toMicros(o.PlacedAt)}, toAnys(ids))...)
}

func (t *tx) insertOrder(ctx context.Context, o *order.Order) error {
	events := o.TakeEvents()
	if err := t.assignLegacyID(ctx, entorder.Table, &o.LegacyID, events); err != nil {
		return err
	}
	stampOrder(o)
	if err := t.insertRows(ctx, entorder.Table, orderColumns, [][]any{orderRow(o)}); err != nil {
		return err
	}
	if err := t.insertRows(ctx, "order_items", itemColumns, mapSlice(o.Items(), itemRow)); err != nil {
		return err
	}
	t.setResultObject(string(o.ID), o.Version)
	t.touchRow(order.OrderEntity.Name, string(o.ID), o.Version)
	t.recordEvents(events)
	return nil
}

var orderColumns = []string{
	entorder.FieldID, entorder.FieldNumber, entorder.FieldUserID, entorder.FieldStatus, entorder.FieldTotalMinor, entorder.FieldCurrency,
	entorder.FieldItemCount, entorder.FieldNote, entorder.FieldLegacyID, entorder.FieldRefundRequestedAt, entorder.FieldStockReturned,
	entorder.FieldPlacedAt, entorder.FieldVersion, entorder.FieldCreatedAt, entorder.FieldUpdatedAt,
}

func orderRow(o *order.Order) []any {
	return []any{
		string(o.ID), o.Number, string(o.UserID), string(o.Status), o.Total.Minor, o.Total.Currency,
		o.ItemCount, o.Note, o.LegacyID, o.RefundRequestedAt, o.ReturnsStock(),
		o.PlacedAt, o.Version, o.CreatedAt, o.UpdatedAt,
	}
}

var itemColumns = []string{"order_id", "line", "product_id", "sku", "name", "quantity", "unit_price_minor", "total_minor", "currency"}

func itemRow(it order.Item) []any {
	return []any{
		string(it.OrderID), it.Line, string(it.ProductID), it.SKU, it.Name, it.Quantity, it.UnitPrice.Minor, it.Total.Minor, it.Total.Currency,
	}
}

// Update implements order.Store. The row stays locked until the commit. With an order it cancels its payment in the
// same transaction, or is refused with PAYMENT_UNDER_WAY.
func (s Orders) Update(ctx context.Context, cl claim.Claim, id uid.Order, fn func(*order.Order) error) (*order.Order, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readOrder, func(t *tx) (*order.Order, error) {
		row, err := t.ent.Order.Query().Where(entorder.ID(id), t.forUpdate).Only(ctx)
		if err != nil {
			return nil, orMissing(err, order.NotFound())
		}
		t.setResultObject(string(id), row.Version)
		o := toOrder(row)
		if err := fn(o); err != nil {
			return nil, err
		}
		events := o.TakeEvents()
		if len(events) == 0 {
			return toOrder(row), nil
		}
		if o.Status == order.Cancelled && row.Status != order.Cancelled {
			if err := t.settlePayment(ctx, o); err != nil {
				return nil, err
			}
		}
		t.recordEvents(events)
		return o, t.saveOrder(ctx, o)
	})
	if err != nil {
		return nil, fmt.Errorf("update order %s: %w", id, err)
	}
	return out.Loaded(), nil
}

func (t *tx) saveOrder(ctx context.Context, o *order.Order) error {
	stampOrder(o)
	q := t.ent.Order.Update().Where(entorder.ID(o.ID)).SetStatus(o.Status).SetNote(o.Note).
		SetVersion(o.Version).SetUpdatedAt(o.UpdatedAt).SetNillableRefundRequestedAt(o.RefundRequestedAt)
	if o.LegacyID == nil {
		q.ClearLegacyID()
	} else {
		q.SetLegacyID(*o.LegacyID)
	}
	if o.ReturnsStock() {
		q.SetStockReturned(true)
		if err := t.returnStock(ctx, o); err != nil {
			return err
		}
	}
	t.setResultObject(string(o.ID), o.Version)
	t.touchRow(order.OrderEntity.Name, string(o.ID), o.Version)
	return q.Exec(ctx)
}

// returnStock gives the units of an order back, under locks taken in the same
// order as when they were taken out.
func (t *tx) returnStock(ctx context.Context, o *order.Order) error {
	const products = `(SELECT product_id FROM order_items WHERE order_id = ?)`
	err := t.eachRow(ctx, `SELECT product_id, version FROM stocks WHERE product_id IN `+products+` ORDER BY product_id`+t.lockClause("FOR UPDATE"),
		[]any{string(o.ID)}, func(scan func(...any) error) error {
			var id string
			var version int
			err := scan(&id, &version)
			t.touchRow("stock", id, version+1)
			return err
		})
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `UPDATE stocks SET version = version + 1, updated_at = ?, quantity = quantity +
			(SELECT SUM(quantity) FROM order_items i WHERE i.order_id = ? AND i.product_id = stocks.product_id)
		WHERE product_id IN `+products, o.UpdatedAt, string(o.ID), string(o.ID))
	return err
}

func toOrder(r *ent.Order) *order.Order {
	return (&order.Order{
		ID: r.ID, Number: r.Number, UserID: r.UserID, Status: r.Status, ItemCount: r.ItemCount,
		Total: money.Money{Minor: r.TotalMinor, Currency: r.Currency}, Note: r.Note, LegacyID: r.LegacyID,
		RefundRequestedAt: toMicrosOrNil(r.RefundRequestedAt), Version: r.Version,
		PlacedAt: toMicros(r.PlacedAt), CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt),
	}).Loaded()
}

// stampOrder gives an order the times that will be read back.
func stampOrder(o *order.Order) {
	for _, t := range []*time.Time{&o.PlacedAt, &o.CreatedAt, &o.UpdatedAt} {
		*t = toMicros(*t)
	}
	o.RefundRequestedAt = toMicrosOrNil(o.RefundRequestedAt)
}
