// Package schema declares the tables. ent generates its packages from them into
// the sibling folders; only package store uses those.
//
// Every table keeps the same rules on SQLite and PostgreSQL: ids are text, times
// are UTC to the microsecond, states and amounts are guarded by checks, text
// compares byte by byte, and each order and filter of a list has its index.
package schema

import (
	"fmt"
	"strings"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// timeFields are the fields that every entity has in addition to its id.
func timeFields() []ent.Field {
	return []ent.Field{
		field.Int("version"),
		field.Time("created_at").Immutable(),
		field.Time("updated_at"),
	}
}

func appendFields(fields []ent.Field, more ...ent.Field) []ent.Field { return append(fields, more...) }

// checkConstraints are the conditions that every row of a table meets, by name.
func checkConstraints(byName map[string]string) []schema.Annotation {
	return []schema.Annotation{entsql.Checks(byName)}
}

// oneOf is the condition that a column holds one of the values.
func oneOf[T ~string](column string, values ...T) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = "'" + string(v) + "'"
	}
	return fmt.Sprintf("%s IN (%s)", column, strings.Join(quoted, ", "))
}
