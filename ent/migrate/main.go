//go:build ignore

// Command main writes the next migration of both dialects: what the schema has
// and the migrations so far do not.
//
//	go run -mod=mod ent/migrate/main.go -postgres postgres://user@host/scratch add_something
//
// It runs in the root of the repository. The PostgreSQL database is a scratch
// one: what is in its schemas drift_have and drift_want is dropped.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"entgo.io/ent/dialect"

	"github.com/backplane-dev/backplane/ent/migrate/drift"
)

func main() {
	pg := flag.String("postgres", "", "URL of a scratch PostgreSQL database")
	flag.Parse()
	if *pg == "" || flag.NArg() != 1 {
		log.Fatal("usage: go run -mod=mod ent/migrate/main.go -postgres URL name_of_the_change")
	}
	if err := run(context.Background(), *pg, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, pg, name string) error {
	for _, d := range []string{dialect.SQLite, dialect.Postgres} {
		dir := filepath.Join("ent", "migrate", map[string]string{dialect.SQLite: "sqlite", dialect.Postgres: "postgres"}[d])
		files, err := filepath.Glob(filepath.Join(dir, "*.sql"))
		if err != nil {
			return err
		}
		have, want, err := scratch(ctx, d, pg)
		if err != nil {
			return err
		}
		if err := replay(ctx, have, files); err != nil {
			return err
		}
		statements, err := drift.Between(ctx, d, have, want)
		if err != nil {
			return err
		}
		if len(statements) == 0 {
			fmt.Println(d, "is up to date")
			continue
		}
		path := filepath.Join(dir, fmt.Sprintf("%04d_%s.sql", len(files)+1, name))
		if err := os.WriteFile(path, []byte(strings.Join(statements, ";\n")+";\n"), 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", path)
	}
	return nil
}

func replay(ctx context.Context, db *sql.DB, files []string) error {
	slices.Sort(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, string(b)); err != nil {
			return fmt.Errorf("replay %s: %w", f, err)
		}
	}
	return nil
}

// scratch opens two empty databases of the dialect.
func scratch(ctx context.Context, d, pg string) (have, want *sql.DB, err error) {
	if d == dialect.SQLite {
		dir, err := os.MkdirTemp("", "drift")
		if err != nil {
			return nil, nil, err
		}
		if have, err = sql.Open("sqlite", "file:"+filepath.Join(dir, "have.db")+"?_pragma=foreign_keys(1)"); err != nil {
			return nil, nil, err
		}
		want, err = sql.Open("sqlite", "file:"+filepath.Join(dir, "want.db")+"?_pragma=foreign_keys(1)")
		return have, want, err
	}
	if have, err = pgSchema(ctx, pg, "drift_have"); err != nil {
		return nil, nil, err
	}
	want, err = pgSchema(ctx, pg, "drift_want")
	return have, want, err
}

func pgSchema(ctx context.Context, pg, name string) (*sql.DB, error) {
	u, err := url.Parse(pg)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+name+" CASCADE; CREATE SCHEMA "+name)
	return db, err
}
