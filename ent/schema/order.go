package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Order holds the schema of orders.
type Order struct{ ent.Schema }

// Fields of Order.
func (Order) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.Order("")).Immutable(),
		field.String("number").Unique().Immutable(),
		field.String("user_id").GoType(uid.User("")).Immutable(),
		field.String("status").GoType(order.Status("")),
		field.Int64("total_minor").Immutable(),
		field.String("currency").Immutable(),
		field.Int("item_count").Immutable(),
		field.String("note"),
		field.String("legacy_id").Optional().Nillable().Unique(),
		field.Time("refund_requested_at").Optional().Nillable(),
		field.Bool("stock_returned"), // whether its units are back in their stocks
		field.Time("placed_at").Immutable(),
	}, timeFields()...)
}

// Indexes of Order.
func (Order) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("placed_at", "id"),
		index.Fields("total_minor", "id"),
		index.Fields("user_id").StorageKey("order_noted").Annotations(entsql.IndexWhere("note <> ''")), // what is blanked when a user is deleted
		index.Fields("user_id", "placed_at", "id"),
		index.Fields("user_id", "total_minor", "id"),
		index.Fields("status", "placed_at", "id"),
	}
}

// Annotations of Order.
func (Order) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"orders_status_known":         oneOf("status", order.Statuses()...),
		"orders_total_not_negative":   "total_minor >= 0",
		"orders_currency_is_code":     "length(currency) = 3",
		"orders_item_count_in_bounds": "item_count BETWEEN 1 AND 100",
		"orders_version_counts":       "version >= 1",
		"orders_stock_follows_status": "CASE status WHEN 'CANCELLED' THEN stock_returned WHEN 'REFUNDED' THEN TRUE ELSE NOT stock_returned END",
	})
}

// OrderItem holds the schema of the lines of orders.
type OrderItem struct{ ent.Schema }

// Fields of OrderItem. None ever changes.
func (OrderItem) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id"),
		field.String("order_id").GoType(uid.Order("")).Immutable(),
		field.Int("line").Immutable(),
		field.String("product_id").GoType(uid.Product("")).Immutable(),
		field.String("sku").Immutable(),
		field.String("name").Immutable(),
		field.Int("quantity").Immutable(),
		field.Int64("unit_price_minor").Immutable(),
		field.Int64("total_minor").Immutable(),
		field.String("currency").Immutable(),
	}
}

// Indexes of OrderItem.
func (OrderItem) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("order_id", "line").Unique(),
		index.Fields("product_id"),
	}
}

// Annotations of OrderItem.
func (OrderItem) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"order_items_quantity_positive":  "quantity >= 1",
		"order_items_total_not_negative": "total_minor >= 0 AND unit_price_minor >= 0",
		"order_items_line_in_bounds":     "line BETWEEN 1 AND 100",
	})
}
