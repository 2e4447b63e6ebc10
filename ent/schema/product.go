package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Product holds the schema of products.
type Product struct{ ent.Schema }

// Fields of Product.
func (Product) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.Product("")).Immutable(),
		field.String("sku").Unique(),
		field.String("name"),
		field.String("name_key"), // the sort key of lists by name, see validate.SortKey
		field.String("description"),
		field.Int64("price_minor"),
		field.String("currency"),
		field.Bool("active"),
		field.String("legacy_id").Optional().Nillable().Unique(),
	}, timeFields()...)
}

// Indexes of Product. Callers that are not STAFF or ADMIN list active products only.
func (Product) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("created_at", "id"),
		index.Fields("name_key", "id"),
		index.Fields("price_minor", "id"),
		index.Fields("active", "created_at", "id"),
		index.Fields("active", "name_key", "id"),
		index.Fields("active", "price_minor", "id"),
		index.Fields("currency", "price_minor", "id"),
	}
}

// Annotations of Product.
func (Product) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"products_price_not_negative": "price_minor >= 0",
		"products_currency_is_code":   "length(currency) = 3",
		"products_version_counts":     "version >= 1",
	})
}

// Stock holds the schema of stocks, one row for each product: a sale changes
// the stock and not the product.
type Stock struct{ ent.Schema }

// Fields of Stock. At all times received - quantity is what orders took
// and did not return.
func (Stock) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("product_id").GoType(uid.Product("")).Immutable(),
		field.Int("quantity"),
		field.Int("initial").Immutable(), // what the product started with
		field.Int("received"),            // initial plus all manual adjustments
		field.Int("version"),
		field.Time("updated_at"),
	}
}

// Annotations of Stock.
func (Stock) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"stocks_quantity_not_negative": "quantity >= 0",
		"stocks_quantity_was_received": "quantity <= received",
		"stocks_version_counts":        "version >= 1",
	})
}
