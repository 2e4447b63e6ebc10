// Package drift tells how a migrated database differs from the schema. The
// generator of migrations writes the difference down; a test asks that there is
// none. Neither is part of the server.
package drift

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	atlas "ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	atlasschema "ariga.io/atlas/sql/schema"
	"ariga.io/atlas/sql/sqlite"
	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"

	"github.com/backplane-dev/backplane/ent/migrate"
)

// Bookkeeping is the table in which the migrator notes what it has applied. It
// is no part of the schema.
const Bookkeeping = "schema_migrations"

// Between returns the statements that bring a migrated database to the schema;
// none if it is there. Scratch is an empty database of the same kind, in which
// the schema is built: only a database knows how it will spell a check.
func Between(ctx context.Context, name string, migrated, scratch *sql.DB) ([]string, error) {
	if err := build(ctx, name, scratch); err != nil {
		return nil, err
	}
	drv, have, err := inspect(ctx, name, migrated)
	if err != nil {
		return nil, err
	}
	_, want, err := inspect(ctx, name, scratch)
	if err != nil {
		return nil, err
	}
	have.Name, want.Name = "", "" // they may be two schemas of one database
	changes, err := drv.SchemaDiff(have, want)
	if err != nil {
		return nil, fmt.Errorf("compare schemas: %w", err)
	}
	return plan(ctx, drv, changes)
}

func build(ctx context.Context, name string, db *sql.DB) error {
	tables, err := migrate.For(name)
	if err != nil {
		return err
	}
	m, err := schema.NewMigrate(entsql.OpenDB(name, db))
	if err != nil {
		return err
	}
	if err := m.Create(ctx, tables...); err != nil {
		return fmt.Errorf("build the schema: %w", err)
	}
	return nil
}

func inspect(ctx context.Context, name string, db *sql.DB) (atlas.Driver, *atlasschema.Schema, error) {
	open := sqlite.Open
	if name == dialect.Postgres {
		open = postgres.Open
	}
	drv, err := open(db)
	if err != nil {
		return nil, nil, fmt.Errorf("open for inspection: %w", err)
	}
	s, err := drv.InspectSchema(ctx, "", &atlasschema.InspectOptions{Exclude: []string{Bookkeeping}})
	if err != nil {
		return nil, nil, fmt.Errorf("inspect: %w", err)
	}
	return drv, s, nil
}

func plan(ctx context.Context, drv atlas.Driver, changes []atlasschema.Change) ([]string, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	unqualified := func(o *atlas.PlanOptions) { o.SchemaQualifier = new(string) }
	p, err := drv.PlanChanges(ctx, "drift", changes, unqualified)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	statements := make([]string, len(p.Changes))
	for i, c := range p.Changes {
		statements[i] = strings.TrimSuffix(c.Cmd, ";")
	}
	return statements, nil
}
