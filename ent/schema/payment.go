package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Payment holds the schema of payments: one for each order.
type Payment struct{ ent.Schema }

// Fields of Payment.
func (Payment) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.Payment("")).Immutable(),
		field.String("order_id").GoType(uid.Order("")).Unique().Immutable(),
		field.String("order_number").Immutable(),
		field.String("user_id").GoType(uid.User("")).Immutable(),
		field.Int64("amount_minor").Immutable(),
		field.String("currency").Immutable(),
		field.String("status").GoType(payment.Status("")),
		field.String("known").GoType(payment.Knowledge("")), // what is known of the provider
		field.String("reference"),                           // the provider's
		field.String("failure"),
		field.Int("attempts"),                       // so far
		field.Int("failures"),                       // in a row
		field.Time("sent_at").Optional().Nillable(), // when a request last may have left
		field.Time("next_at").Optional().Nillable(), // when a worker looks at it; the end of the claim while there is one
		field.Time("deadline_at").Optional().Nillable(),
		field.Int64("claim"),  // the fencing token of workers
		field.Bool("claimed"), // a worker has not reported
		field.Bool("fresh"),   // nothing had been sent before the claim
	}, timeFields()...)
}

// Indexes of Payment.
func (Payment) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("created_at", "id"),
		index.Fields("status", "created_at", "id"),
		index.Fields("user_id", "created_at", "id"),
		index.Fields("next_at").Annotations(entsql.IndexWhere("next_at IS NOT NULL")),
		index.Fields("deadline_at").Annotations(entsql.IndexWhere("deadline_at IS NOT NULL")),
	}
}

// Annotations of Payment.
func (Payment) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"payments_status_known":        oneOf("status", payment.Statuses()...),
		"payments_knowledge_known":     oneOf("known", payment.Knowledges()...),
		"payments_amount_not_negative": "amount_minor >= 0",
		"payments_currency_is_code":    "length(currency) = 3",
		"payments_version_counts":      "version >= 1",
	})
}

// PaymentAttempt holds the schema of the newest attempts of each payment.
type PaymentAttempt struct{ ent.Schema }

// Fields of PaymentAttempt. None ever changes.
func (PaymentAttempt) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id"),
		field.String("payment_id").GoType(uid.Payment("")).Immutable(),
		field.Int("number").Immutable(),
		field.String("step").GoType(payment.Step("")).Immutable(),
		field.String("instance").Immutable(),
		field.String("outcome").GoType(payment.Outcome("")).Immutable(),
		field.String("message").Immutable(),
		field.Time("at").Immutable(),
		field.Int64("duration_micros").Immutable(),
	}
}

// Indexes of PaymentAttempt.
func (PaymentAttempt) Indexes() []ent.Index {
	return []ent.Index{index.Fields("payment_id", "number").Unique()}
}

// PaymentCallback holds the schema of the inbox: messages of payment providers, kept also while their payment is not here yet.
type PaymentCallback struct{ ent.Schema }

// Fields of PaymentCallback.
func (PaymentCallback) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(), // as the provider gave it to the message
		field.String("payment_id").GoType(uid.Payment("")).Immutable(),
		field.String("refund_id").GoType(payment.RefundID("")).Immutable(), // empty for a charge
		field.String("status").GoType(payment.AnswerStatus("")).Immutable(),
		field.String("reference").Immutable(),
		field.String("failure").Immutable(),
		field.String("message").Immutable(),
		field.String("instance").Immutable(),
		field.Time("sent_at").Immutable(),
		field.Time("received_at").Immutable(),
		field.Time("next_at").Optional().Nillable(), // when a worker looks at it; null once it is applied
	}
}

// Indexes of PaymentCallback.
func (PaymentCallback) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("next_at").Annotations(entsql.IndexWhere("next_at IS NOT NULL")),
		index.Fields("received_at"),
	}
}
