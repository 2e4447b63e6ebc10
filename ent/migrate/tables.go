package migrate

import (
	"embed"
	"fmt"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/schema/field"
)

// Files are the versioned migrations, in one directory for each dialect. A
// file that was released never changes.
//
//go:embed sqlite/*.sql postgres/*.sql
var Files embed.FS

// reference is a foreign key: column of table names a row of target.
type reference struct{ table, column, target string }

// references are all foreign keys. They stand here and not as edges of the
// schema because edges would only add generated code that is never called, and
// cannot lie on a primary key.
var references = []reference{
	{"credentials", "user_id", "users"},
	{"stocks", "product_id", "products"},
	{"orders", "user_id", "users"},
	{"order_items", "order_id", "orders"},
	{"order_items", "product_id", "products"},
	{"sessions", "user_id", "users"},
	{"api_keys", "user_id", "users"},
}

// For returns the tables as they are on a dialect: what ent generates from the
// schema, with foreign keys, and on PostgreSQL with text that compares byte by
// byte, as it does on SQLite.
func For(name string) ([]*schema.Table, error) {
	tables, err := schema.CopyTables(Tables)
	if err != nil {
		return nil, fmt.Errorf("copy tables: %w", err)
	}
	byName := make(map[string]*schema.Table, len(tables))
	for _, t := range tables {
		byName[t.Name] = t
		if name == dialect.Postgres {
			compareBytes(t)
		}
	}
	for _, r := range references {
		from, to := byName[r.table], byName[r.target]
		column, ok := from.Column(r.column)
		if !ok {
			return nil, fmt.Errorf("table %s has no column %s", r.table, r.column)
		}
		from.AddForeignKey(&schema.ForeignKey{
			Symbol: fmt.Sprintf("%s_%s_fkey", r.table, r.column), Columns: []*schema.Column{column},
			RefTable: to, RefColumns: to.PrimaryKey, OnDelete: schema.NoAction, OnUpdate: schema.NoAction,
		})
	}
	return tables, nil
}

func compareBytes(t *schema.Table) {
	for _, c := range t.Columns {
		if c.Type == field.TypeString {
			c.Collation = "C"
		}
	}
}
