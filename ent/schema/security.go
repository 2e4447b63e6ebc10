package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/uid"
)

// SecurityEvent holds the schema of security events. Rows are only inserted and, after their
// retention, removed.
type SecurityEvent struct{ ent.Schema }

// Fields of SecurityEvent. A text that does not apply is empty.
func (SecurityEvent) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),
		field.String("type").GoType(security.EventType("")).Immutable(),
		field.Time("occurred_at").Immutable(), // the first of several, by the clock of the node
		field.Time("last_at").Immutable(),     // the last of several
		field.Time("recorded_at").Immutable(), // by the clock of the database
		field.Int("occurrences").Immutable(),
		field.String("user_id").GoType(uid.User("")).Immutable(),
		field.String("actor").Immutable(),
		field.String("session_id").GoType(uid.Session("")).Immutable(),
		field.String("api_key_id").GoType(uid.APIKey("")).Immutable(),
		field.String("address").Immutable(),
		field.String("user_agent").Immutable(),
		field.String("request_id").Immutable(),
		field.String("detail").Immutable(),
	}
}

// Indexes of SecurityEvent: one for each filter of the list, in its order, and one for the
// sign-ins of a user among many other events of the user.
func (SecurityEvent) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("recorded_at", "id"),
		index.Fields("type", "recorded_at", "id"),
		index.Fields("user_id", "recorded_at", "id"),
		index.Fields("user_id", "type", "recorded_at", "id"),
		index.Fields("address", "recorded_at", "id"),
	}
}

// Annotations of SecurityEvent.
func (SecurityEvent) Annotations() []schema.Annotation {
	return append(checkConstraints(map[string]string{"security_events_occurrences_count": "occurrences >= 1"}), entsql.Annotation{Table: "security_events"})
}
