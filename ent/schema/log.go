package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// Timeline holds the schema of the one row that names the history which the
// positions of the log belong to. A restore begins another.
type Timeline struct{ ent.Schema }

// Fields of Timeline.
func (Timeline) Fields() []ent.Field {
	return []ent.Field{field.String("id")}
}

// Sequencer holds the schema of the one row that says who gives positions, and
// up to which they are given. SQLite does not use it.
type Sequencer struct{ ent.Schema }

// Fields of Sequencer. Who holds the lease, and in which epoch, is void once it
// has expired by the database's clock.
func (Sequencer) Fields() []ent.Field {
	return []ent.Field{
		field.Int("id"),
		field.String("holder"),
		field.Int64("epoch"),
		field.Time("expires_at"),
		field.Int64("head"), // the last position that was given
	}
}

// Annotations of Sequencer.
func (Sequencer) Annotations() []schema.Annotation {
	return append(checks(map[string]string{"sequencer_is_one": "id = 1"}), entsql.Annotation{Table: "sequencer"})
}

// Reader holds the schema of the readers of the log that the server remembers by
// name: consumers and sinks, each owned by one node at a time.
type Reader struct{ ent.Schema }

// Fields of Reader. Who holds the lease, and in which epoch, is void once it has
// expired by the database's clock.
func (Reader) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("name"),
		field.Int64("position"), // it is done with everything up to here
		field.String("holder"),
		field.Int64("epoch"),
		field.Time("expires_at"),
		field.Time("updated_at"),
	}
}

// Annotations of Reader.
func (Reader) Annotations() []schema.Annotation {
	return checks(map[string]string{"readers_position_counts": "position >= 0"})
}
