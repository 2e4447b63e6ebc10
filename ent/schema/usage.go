package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// LegacyUsage holds the schema of the number of calls of a legacy REST route by a
// client.
type LegacyUsage struct{ ent.Schema }

// Fields of LegacyUsage.
func (LegacyUsage) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(), // a digest of route and client
		field.String("route").Immutable(),
		field.String("client").Immutable(), // an API key's id, or the user agent
		field.Int64("calls"),
		field.Time("first_seen_at").Immutable(),
		field.Time("last_seen_at"),
	}
}

// Indexes of LegacyUsage.
func (LegacyUsage) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("route", "id"),
		index.Fields("last_seen_at"),
	}
}

// LegacyDay holds the schema of the number of calls of a legacy REST route on a day.
type LegacyDay struct{ ent.Schema }

// Fields of LegacyDay.
func (LegacyDay) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").Immutable(),  // day and route
		field.String("day").Immutable(), // e.g. 2026-11-30, UTC
		field.String("route").Immutable(),
		field.Int64("calls"),
	}
}

// Annotations of LegacyDay.
func (LegacyDay) Annotations() []schema.Annotation {
	return append(checkConstraints(map[string]string{"legacy_days_calls_count": "calls > 0"}), entsql.Annotation{Table: "legacy_days"})
}

// Annotations of LegacyUsage.
func (LegacyUsage) Annotations() []schema.Annotation {
	return append(checkConstraints(map[string]string{"legacy_usage_calls_count": "calls > 0"}), entsql.Annotation{Table: "legacy_usage"})
}
