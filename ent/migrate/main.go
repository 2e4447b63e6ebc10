//go:build ignore

// Command main writes the next migration of both dialects: what the schema has
// and the migrations so far do not.
//
//	go run -mod=mod ent/migrate/main.go -postgres postgres://user@host/scratch -compatible=yes add_something
//
// It runs in the root of the repository. The PostgreSQL database is a scratch
// one: what is in its schemas drift_have and drift_want is dropped.
//
// -compatible says whether servers of the release before can go on serving the migrated database, as they
// do if it only adds tables, indexes, and columns that are null or have a default. Indexes of existing tables get a
// migration of their own, which PostgreSQL runs while the tables are changed, and so does each existing table.
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
	"regexp"
	"slices"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"entgo.io/ent/dialect"

	"github.com/backplane-dev/backplane/ent/migrate/drift"
)

func main() {
	pg := flag.String("postgres", "", "URL of a scratch PostgreSQL database")
	compatible := flag.String("compatible", "", "yes or no: whether the release before can serve the migrated database")
	flag.Parse()
	if *pg == "" || *compatible != "yes" && *compatible != "no" || flag.NArg() != 1 {
		log.Fatal("usage: go run -mod=mod ent/migrate/main.go -postgres URL -compatible=yes|no name_of_the_change")
	}
	if err := run(context.Background(), *pg, *compatible == "yes", flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, pg string, compatible bool, change string) error {
	for _, d := range []string{dialect.SQLite, dialect.Postgres} {
		name := change
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
		changes, indexes := separateIndexes(statements)
		last := strings.TrimSuffix(filepath.Base(files[len(files)-1]), ".sql")
		for _, part := range separateTables(d, changes) {
			version := fmt.Sprintf("%04d_%s", len(files)+1, strings.TrimSuffix(change+"_"+part.table, "_"))
			if !compatible {
				last = version
			}
			if err := write(dir, version, last, "", part.statements); err != nil {
				return err
			}
			files, last, name = append(files, version), version, change+"_indexes"
		}
		if len(indexes) == 0 {
			continue
		}
		mode := ""
		if d == dialect.Postgres {
			mode = "-- atlas:txmode none\n"
			for i, s := range indexes {
				indexes[i] = strings.Replace(s, "INDEX ", "INDEX CONCURRENTLY ", 1)
			}
		}
		if err := write(dir, fmt.Sprintf("%04d_%s", len(files)+1, name), last, mode, indexes); err != nil {
			return err
		}
	}
	return nil
}

// write writes a migration, which a program can serve from compatible on.
func write(dir, version, compatible, mode string, statements []string) error {
	path := filepath.Join(dir, version+".sql")
	text := mode + "-- backplane:compatible-from " + compatible + "\n" + strings.Join(statements, ";\n") + ";\n"
	fmt.Println("writes", path)
	return os.WriteFile(path, []byte(text), 0o644)
}

var (
	buildsIndex = regexp.MustCompile("^CREATE (UNIQUE )?INDEX [\"`]\\w+[\"`] ON ([\"`]\\w+[\"`]) ")
	altersTable = regexp.MustCompile("^(?:ALTER|DROP) TABLE [\"`](\\w+)[\"`]")
	makesTable  = regexp.MustCompile("^CREATE TABLE ([\"`]\\w+[\"`]) ")
)

// separateIndexes returns the indexes of existing tables apart.
func separateIndexes(statements []string) (changes, indexes []string) {
	made := map[string]bool{}
	for _, s := range statements {
		if t := makesTable.FindStringSubmatch(s); t != nil {
			made[t[1]] = true
		}
	}
	for _, s := range statements {
		if i := buildsIndex.FindStringSubmatch(s); i != nil && !made[i[2]] {
			indexes = append(indexes, s)
			continue
		}
		changes = append(changes, s)
	}
	return changes, indexes
}

// part is what one migration does: the statements of one existing table, or all that make new ones.
type part struct {
	table      string // "" for new tables
	statements []string
}

// separateTables puts the statements of each existing table of PostgreSQL apart: a transaction that locks several
// of them deadlocks with those of running servers.
func separateTables(d string, statements []string) (parts []part) {
	for _, s := range statements {
		table := ""
		if found := altersTable.FindStringSubmatch(s); found != nil && d == dialect.Postgres {
			table = found[1]
		}
		i := slices.IndexFunc(parts, func(p part) bool { return p.table == table })
		if i < 0 {
			i, parts = len(parts), append(parts, part{table: table})
		}
		parts[i].statements = append(parts[i].statements, s)
	}
	return parts
}

func replay(ctx context.Context, db *sql.DB, files []string) error {
	slices.Sort(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		statements := []string{string(b)}
		if strings.Contains(statements[0], "-- atlas:txmode none\n") {
			statements = strings.SplitAfter(strings.TrimSpace(statements[0]), ";\n")
		}
		for _, statement := range statements {
			if _, err := db.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("replay %s: %w", f, err)
			}
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
