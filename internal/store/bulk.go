package store

import (
	"context"
	"fmt"
	"slices"

	entorder "github.com/backplane-dev/backplane/ent/order"
	entproduct "github.com/backplane-dev/backplane/ent/product"
	entuser "github.com/backplane-dev/backplane/ent/user"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Batch is a set of rows that seeding stores at once. All but Stocks are new.
type Batch struct {
	Users       []*user.User
	Credentials map[*user.User]user.PasswordHash // of those users that have one
	Products    []order.Offer
	Orders      []*order.Order // as order.Place returned them, with their lines, possibly in a later status
	Stocks      []*order.Stock // stored already, changed by Orders
	Events      []event.Event  // of all of them, in the order in which they happened
}

// Bulk stores a batch in one transaction. It relies on the validation of the domains; the
// stocks of a batch must agree with its orders. It is for seeding: events do not list the
// new rows as touched, since no node can have cached them.
func (db *DB) Bulk(ctx context.Context, b Batch) error {
	err := db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		if err := t.insertUsers(ctx, b); err != nil {
			return err
		}
		if err := t.insertProducts(ctx, b.Products); err != nil {
			return err
		}
		if err := t.insertOrders(ctx, b.Orders); err != nil {
			return err
		}
		for _, s := range b.Stocks {
			t.touchRow("stock", string(s.ProductID), s.Version)
			if _, err := t.exec(ctx, `UPDATE stocks SET quantity = ?, version = ?, updated_at = ? WHERE product_id = ?`,
				s.Quantity, s.Version, toMicros(s.UpdatedAt), string(s.ProductID)); err != nil {
				return err
			}
		}
		t.recordEvents(b.Events)
		return nil
	})
	if err != nil {
		return fmt.Errorf("store a batch: %w", err)
	}
	return nil
}

func (t *tx) insertUsers(ctx context.Context, b Batch) error {
	columns := []string{
		entuser.FieldID, entuser.FieldUsername, entuser.FieldUsernameKey, entuser.FieldUsernameSort, entuser.FieldEmail, entuser.FieldEmailKey, entuser.FieldName,
		entuser.FieldRoles, entuser.FieldAdmin, entuser.FieldStatus, entuser.FieldLegacyID,
		entuser.FieldVersion, entuser.FieldCreatedAt, entuser.FieldUpdatedAt,
	}
	rows := mapSlice(b.Users, func(u *user.User) []any {
		return []any{
			string(u.ID), u.Username, user.UsernameKey(u.Username), validate.SortKey(u.Username), u.Email, emailKey(u.Email), u.Name,
			joinRoles(u.Roles), slices.Contains(u.Roles, auth.Admin), string(u.Status), u.LegacyID,
			u.Version, toMicros(u.CreatedAt), toMicros(u.UpdatedAt),
		}
	})
	if err := t.insertRows(ctx, entuser.Table, columns, rows); err != nil {
		return err
	}
	var credentials [][]any
	for _, u := range b.Users {
		if c := b.Credentials[u]; c != "" {
			credentials = append(credentials, []any{string(u.ID), string(c), 1, toMicros(u.CreatedAt)})
		}
	}
	return t.insertRows(ctx, "credentials", []string{"user_id", "hash", "version", "changed_at"}, credentials)
}

func (t *tx) insertProducts(ctx context.Context, offers []order.Offer) error {
	columns := []string{
		entproduct.FieldID, entproduct.FieldSku, entproduct.FieldName, entproduct.FieldNameKey, entproduct.FieldDescription,
		entproduct.FieldPriceMinor, entproduct.FieldCurrency, entproduct.FieldActive, entproduct.FieldLegacyID,
		entproduct.FieldVersion, entproduct.FieldCreatedAt, entproduct.FieldUpdatedAt,
	}
	rows := mapSlice(offers, func(o order.Offer) []any {
		p := o.Product
		return []any{
			string(p.ID), p.SKU, p.Name, validate.SortKey(p.Name), p.Description, p.Price.Minor, p.Price.Currency, p.Active, p.LegacyID,
			p.Version, toMicros(p.CreatedAt), toMicros(p.UpdatedAt),
		}
	})
	if err := t.insertRows(ctx, entproduct.Table, columns, rows); err != nil {
		return err
	}
	stocks := mapSlice(offers, func(o order.Offer) []any {
		s := o.Stock
		return []any{string(s.ProductID), s.Quantity, s.Quantity, s.Quantity, s.Version, toMicros(s.UpdatedAt)}
	})
	return t.insertRows(ctx, "stocks", []string{"product_id", "quantity", "initial", "received", "version", "updated_at"}, stocks)
}

func (t *tx) insertOrders(ctx context.Context, orders []*order.Order) error {
	rows := make([][]any, len(orders))
	var items [][]any
	for i, o := range orders {
		stampOrder(o)
		rows[i] = orderRow(o)
		for _, it := range o.Items() {
			items = append(items, itemRow(it))
		}
	}
	if err := t.insertRows(ctx, entorder.Table, orderColumns, rows); err != nil {
		return err
	}
	return t.insertRows(ctx, "order_items", itemColumns, items)
}

// Empty reports whether the database has no products, no orders, and no users but
// ADMINs, such as the one created at the first start.
func (db *DB) Empty(ctx context.Context) (bool, error) {
	found, err := db.readConn().queryRow(ctx, `SELECT 1 WHERE EXISTS (SELECT 1 FROM products) OR EXISTS (SELECT 1 FROM orders)
		OR EXISTS (SELECT 1 FROM users WHERE NOT admin)`, nil, new(int))
	return !found, db.translateError(ctx, err)
}

// Analyze updates the statistics of the query planner, after a bulk insert.
func (db *DB) Analyze(ctx context.Context) error {
	_, err := conn{ExecQuerier: statementObserver{db.write, db.cfg.OnStatement}, dialect: db.dialect}.exec(ctx, `ANALYZE`)
	return db.translateError(ctx, err)
}
