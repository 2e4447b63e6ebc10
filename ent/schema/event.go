package schema

import (
	"encoding/json"

	"entgo.io/ent"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// asWritten is the type of a JSON column that keeps its text.
var asWritten = map[string]string{dialect.Postgres: "json"}

// Event holds the schema of the log.
type Event struct{ ent.Schema }

// Fields of Event. The database's own identity, seq, follows the order of
// inserts; position is the dense order of the committed events, which readers follow.
func (Event) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("id").StorageKey("seq"),
		field.Int64("position").Optional().Nillable().Unique(),
		field.String("uid").StorageKey("id").GoType(uid.Event("")).Unique().Immutable(),
		field.String("type").GoType(event.Type("")).Immutable(),
		field.Time("occurred_at").Immutable(),
		field.String("actor").Immutable(), // empty for the system itself
		field.String("subject_id").Immutable(),
		field.Int("subject_version").Immutable(),
		field.String("user_id").GoType(uid.User("")).Optional().Nillable().Immutable(),       // the user it concerns
		field.String("order_id").GoType(uid.Order("")).Optional().Nillable().Immutable(),     // the order it concerns
		field.String("service_id").GoType(uid.Service("")).Optional().Nillable().Immutable(), // the service it concerns
		field.JSON("data", json.RawMessage{}).SchemaType(asWritten),
		field.JSON("touched", json.RawMessage{}).Optional().SchemaType(asWritten), // on the first event of a transaction: the rows that it changed
	}
}

// Indexes of Event.
func (Event) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("subject_id", "position"),
		index.Fields("user_id", "position"),
		index.Fields("order_id", "position"),
		index.Fields("service_id", "position"),
		index.Fields("type", "position"),
		index.Fields("actor", "position"),
		index.Fields("occurred_at"),
		index.Fields("position", "id").StorageKey("event_waiting").Annotations(entsql.IndexWhere("position IS NULL")), // what the sequencer scans
	}
}

// Annotations of Event.
func (Event) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{"events_position_counts": "position >= 1"})
}
