package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Session holds the schema of sessions.
type Session struct{ ent.Schema }

// Fields of Session.
func (Session) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.Session("")).Immutable(),
		field.String("user_id").GoType(uid.User("")).Immutable(),
		field.String("address"),
		field.String("user_agent"),
		field.Int("generation"),
		field.Bytes("nonce").Sensitive(),
		field.Time("last_used_at"),
		field.Time("expires_at"),
		field.Time("revoked_at").Optional().Nillable(),
	}, timeFields()...)
}

// Indexes of Session.
func (Session) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("user_id", "last_used_at", "id"),
		index.Fields("expires_at"),
		index.Fields("revoked_at"),
	}
}

// Annotations of Session.
func (Session) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"sessions_generation_counts": "generation >= 1",
		"sessions_version_counts":    "version >= 1",
	})
}

// APIKey holds the schema of API keys.
type APIKey struct{ ent.Schema }

// Fields of APIKey.
func (APIKey) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.APIKey("")).Immutable(),
		field.String("user_id").GoType(uid.User("")).Immutable(),
		field.String("name"),
		field.String("scopes"), // separated by commas, in the order of auth.Scopes
		field.Bytes("hash").Sensitive(),
		field.Time("expires_at"),
		field.Time("last_used_at").Optional().Nillable(),
		field.Time("revoked_at").Optional().Nillable(),
		field.Time("expiry_announced_at").Optional().Nillable(), // when api_key.expiring was recorded
	}, timeFields()...)
}

// Indexes of APIKey.
func (APIKey) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("user_id", "created_at", "id"),
		index.Fields("expires_at"),
		index.Fields("revoked_at"),
	}
}

// Annotations of APIKey.
func (APIKey) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{"api_keys_version_counts": "version >= 1"})
}

// SigningKey holds the schema of the keys that sign access tokens.
type SigningKey struct{ ent.Schema }

// Fields of SigningKey.
func (SigningKey) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.Bytes("sealed").Sensitive().Immutable(),
		field.Time("created_at").Immutable(),
		field.Time("signs_at").Immutable(),
	}
}

// Throttle holds the schema of counters of attempts.
type Throttle struct{ ent.Schema }

// Fields of Throttle.
func (Throttle) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("name").Immutable(),
		field.Int("tries"),
		field.Time("ends_at"), // when the window ends and the count starts anew
	}
}

// Indexes of Throttle.
func (Throttle) Indexes() []ent.Index { return []ent.Index{index.Fields("ends_at")} }

// Annotations of Throttle.
func (Throttle) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{"throttles_tries_not_negative": "tries >= 0"})
}
