package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// IdempotencyKey holds the schema of calls with an idempotency key.
type IdempotencyKey struct{ ent.Schema }

// Fields of IdempotencyKey.
func (IdempotencyKey) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id"),
		field.String("scope").Immutable(), // the owner of the key: a user's id, or consumer: and its name
		field.String("key").Immutable(),
		field.Bytes("fingerprint"),
		field.String("object_id"), // of the object that the call created or changed
		field.Int("object_version"),
		field.Time("created_at"),
		field.Time("expires_at"),
		field.Int64("position").Optional().Nillable(), // of the event that a consumer processed
	}
}

// Indexes of IdempotencyKey.
func (IdempotencyKey) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("scope", "key").Unique(),
		index.Fields("expires_at"),
		index.Fields("scope", "position").StorageKey("idempotencykey_consumed").Annotations(entsql.IndexWhere("position IS NOT NULL")),
	}
}

// Setting holds the schema of the installation's few values: counters, locks
// and sealed secrets, by name.
type Setting struct{ ent.Schema }

// Fields of Setting.
func (Setting) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("name").Immutable(),
		field.Int64("number").Default(0),
		field.Bytes("value").Optional().Sensitive(),
	}
}
