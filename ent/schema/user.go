package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// User holds the schema of accounts.
type User struct{ ent.Schema }

// Fields of User.
func (User) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.User("")).Immutable(),
		field.String("username"),
		field.String("username_key").Unique(),     // case-folded
		field.String("username_sort").Default(""), // the sort key of lists by user name, see validate.SortKey
		field.String("email").Optional().Nillable(),
		field.String("email_key").Optional().Nillable().Unique(),
		field.String("name"),
		field.String("roles"), // separated by commas, in the order of auth.Roles
		field.Bool("admin"),   // whether roles holds ADMIN, so that the last one can be counted
		field.String("status").GoType(user.Status("")),
		field.String("legacy_id").Optional().Nillable().Unique(),
	}, timeFields()...)
}

// Indexes of User.
func (User) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("created_at", "id"),
		index.Fields("username_sort", "id"),
		index.Fields("status", "created_at", "id"),
		index.Fields("admin", "status"),
		index.Fields("id").StorageKey("user_other_than_customer").Annotations(entsql.IndexWhere("roles <> 'CUSTOMER'")), // whose names others must not look like
	}
}

// Annotations of User.
func (User) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"users_status_known":    oneOf("status", user.Active, user.Deactivated, user.Deleted),
		"users_version_counts":  "version >= 1",
		"users_deleted_is_bare": "status <> 'DELETED' OR (email IS NULL AND name = '' AND legacy_id IS NULL AND NOT admin)",
	})
}

// Erasure holds the schema of deleted accounts whose personal data is being removed from the log, from
// dead letters and from orders. Readers see none of it from the moment the row exists.
type Erasure struct{ ent.Schema }

// Fields of Erasure.
func (Erasure) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("user_id").GoType(uid.User("")).Immutable(),
		field.Time("requested_at").Immutable(), // by the database's clock
		field.Time("covers_until").Immutable(), // of events: those that occurred later say nothing personal
		field.Int64("position").Default(0),     // events up to here are blanked
		field.Time("due_at"),                   // when it goes on
	}
}

// Credential holds the schema of passwords, one row for each user that has one.
type Credential struct{ ent.Schema }

// Fields of Credential.
func (Credential) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("user_id").GoType(uid.User("")).Immutable(),
		field.String("hash").Sensitive(),
		field.Int("version"),
		field.Time("changed_at"),
	}
}

// Annotations of Credential.
func (Credential) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{"credentials_version_counts": "version >= 1"})
}
