package schema

import (
	"encoding/json"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Timeline holds the schema of the one row that names the history which the
// positions of the log belong to. A restore begins another.
type Timeline struct{ ent.Schema }

// Fields of Timeline.
func (Timeline) Fields() []ent.Field {
	return []ent.Field{
		field.String("id"),
		field.String("place").Default(""),       // where PostgreSQL had the log when a node last looked: system identifier, database and table
		field.Int("server_timeline").Default(0), // of PostgreSQL, as it was then: a promotion begins another
	}
}

// Sequencer holds the schema of the one row with the lease of the sequencer and
// the head of the log. SQLite does not use it.
type Sequencer struct{ ent.Schema }

// Fields of Sequencer. Owner and epoch are invalid once the lease has expired by
// the database's clock.
func (Sequencer) Fields() []ent.Field {
	return []ent.Field{
		field.Int("id"),
		field.String("holder"),
		field.Int64("epoch"),
		field.Time("expires_at"),
		field.Int64("head"),                             // the newest position
		field.Time("numbered_at").Optional().Nillable(), // every event committed before has a position
		field.Int64("low_seq").Default(0),               // the low watermark: every event with a lower seq has a position, or will never be committed
	}
}

// Annotations of Sequencer.
func (Sequencer) Annotations() []schema.Annotation {
	return append(checkConstraints(map[string]string{"sequencer_is_one": "id = 1"}), entsql.Annotation{Table: "sequencer"})
}

// Reader holds the schema of the readers of the log that the server remembers by
// name: consumers and sinks, each owned by one node at a time.
type Reader struct{ ent.Schema }

// Fields of Reader. Owner and epoch are invalid once the lease has expired by the
// database's clock.
func (Reader) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("name"),
		field.Int64("position"), // the offset: events up to here are processed
		field.String("holder"),
		field.Int64("epoch"),
		field.Time("expires_at"),
		field.Time("updated_at"),
	}
}

// Annotations of Reader.
func (Reader) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{"readers_position_counts": "position >= 0"})
}

// DeadLetter holds the schema of events that a consumer failed to process, and of
// later events of the same subjects. It has all of the event, since retention may
// remove the event from the log.
type DeadLetter struct{ ent.Schema }

// Fields of DeadLetter.
func (DeadLetter) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").GoType(uid.DeadLetter("")).Immutable(),
		field.String("consumer").Immutable(),
		field.Int64("position").Immutable(),
		field.String("event_id").GoType(uid.Event("")).Immutable(),
		field.String("type").GoType(event.Type("")).Immutable(),
		field.Time("occurred_at").Immutable(),
		field.String("actor").Immutable(),
		field.String("subject_id").Immutable(),
		field.Int("subject_version").Immutable(),
		field.String("user_id").GoType(uid.User("")).Optional().Nillable().Immutable(),
		field.String("order_id").GoType(uid.Order("")).Optional().Nillable().Immutable(),
		field.JSON("data", json.RawMessage{}).SchemaType(asWritten),
		field.Int("attempts"), // 0 if it is queued behind another dead letter of its subject
		field.String("code"),  // of the last attempt's error, shown to ADMIN
		field.String("message"),
		field.String("detail"), // all of that error, for the operator
		field.Time("failed_at"),
		field.Time("requested_at").Optional().Nillable(), // to be replayed
		field.Time("replayed_at").Optional().Nillable(),  // when the replay succeeded
	}
}

// Indexes of DeadLetter.
func (DeadLetter) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("event_id", "consumer").Unique(),
		index.Fields("position", "id"),
		index.Fields("consumer", "position", "id"),
		index.Fields("user_id"),
		index.Fields("replayed_at"),
		index.Fields("failed_at").StorageKey("deadletter_expiring").Annotations(entsql.IndexWhere("replayed_at IS NULL")),
		index.Fields("consumer", "subject_id", "position").StorageKey("deadletter_waiting").Annotations(entsql.IndexWhere("replayed_at IS NULL")),
		index.Fields("consumer", "requested_at", "position").StorageKey("deadletter_requested").
			Annotations(entsql.IndexWhere("requested_at IS NOT NULL AND replayed_at IS NULL")),
	}
}

// Annotations of DeadLetter.
func (DeadLetter) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{"dead_letters_attempts_not_negative": "attempts >= 0"})
}
