package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/backplane-dev/backplane/ent/migrate"
)

// Directives in the comment that a migration begins with.
const (
	// outsideTx says that the migration builds indexes of PostgreSQL concurrently, which no transaction can:
	// changes of the tables go on. Each statement builds one index and ends with a semicolon and a newline.
	outsideTxDirective = "-- atlas:txmode none"

	// compatible names the oldest migration that a program must know to serve a database with this one:
	// the one before, if the release before can go on serving; the migration itself, if it cannot.
	compatibleDirective = "-- backplane:compatible-from "
)

// lastUndecided is the last migration without a compatibleDirective: releases before it refuse
// every newer database.
const lastUndecided = "0010_sort_keys"

// testMigrations is a directory that replaces ent/migrate: tests set it when they link the program, to get
// that of the next release.
var testMigrations string

// migration is one file of ent/migrate.
type migration struct {
	version        string // name of the file without .sql; sorts by date of creation
	sql            string
	checksum       string
	compatibleFrom string // the oldest migration that a program must know to serve the database
	outsideTx      bool
	indexes        []concurrentIndex // of a migration outside of a transaction
}

// concurrentIndex is a statement that builds an index.
type concurrentIndex struct{ name, statement string }

// applied is the record of a migration in schema_migrations.
type applied struct {
	version, checksum string
	finished          bool
	compatibleFrom    string // "" in records of former versions: only a program that knows the migration can serve
}

func migrationFiles() fs.FS {
	if testMigrations != "" {
		return os.DirFS(testMigrations)
	}
	return migrate.Files
}

// readMigrations returns the files of a dialect in their order.
func readMigrations(from fs.FS, name string) ([]migration, error) {
	dir := map[string]string{dialect.SQLite: "sqlite", dialect.Postgres: "postgres"}[name]
	files, err := fs.Glob(from, path.Join(dir, "*.sql"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	all := make([]migration, len(files))
	for i, f := range files {
		b, err := fs.ReadFile(from, f)
		if err != nil {
			return nil, err
		}
		if all[i], err = parseMigration(strings.TrimSuffix(path.Base(f), ".sql"), string(b)); err != nil {
			return nil, fmt.Errorf("the migration %s: %w", f, err)
		}
		if tables := all[i].lockedTables(); name == dialect.Postgres && all[i].compatibleFrom < all[i].version && len(tables) > 1 {
			return nil, fmt.Errorf("the migration %s locks %s in one transaction, which deadlocks with the transactions of running servers: "+
				"put each table in a migration of its own", f, strings.Join(tables, " and "))
		}
	}
	return all, nil
}

func parseMigration(version, text string) (migration, error) {
	sum := sha256.Sum256([]byte(text))
	m := migration{version: version, sql: text, checksum: hex.EncodeToString(sum[:]), compatibleFrom: version}
	decided, rest := version <= lastUndecided, text
	for strings.HasPrefix(rest, "--") {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		m.outsideTx = m.outsideTx || line == outsideTxDirective
		if from, ok := strings.CutPrefix(line, compatibleDirective); ok {
			m.compatibleFrom, decided = from, true
		}
	}
	if !decided || m.compatibleFrom > version {
		return m, fmt.Errorf("it must begin with a line %q and the oldest migration that a program must know to serve on: "+
			"the one before, or itself if the release before cannot", compatibleDirective)
	}
	if !m.outsideTx {
		return m, nil
	}
	var err error
	m.indexes, err = parseIndexes(rest)
	return m, err
}

var (
	createsTable = regexp.MustCompile(`CREATE TABLE "?(\w+)`)
	locksTable   = regexp.MustCompile(`(?:ALTER TABLE|DROP TABLE|REFERENCES) "?(\w+)`)
)

// lockedTables returns the existing tables that the migration locks until its end, in order of name.
func (m migration) lockedTables() []string {
	var tables, created []string
	for _, found := range createsTable.FindAllStringSubmatch(m.sql, -1) {
		created = append(created, found[1])
	}
	for _, found := range locksTable.FindAllStringSubmatch(m.sql, -1) {
		if !slices.Contains(created, found[1]) {
			tables = append(tables, found[1])
		}
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

var buildsIndex = regexp.MustCompile(`(?s)^CREATE (?:UNIQUE )?INDEX CONCURRENTLY "(\w+)" ON .+$`)

// parseIndexes returns the statements of a migration outside of a transaction.
func parseIndexes(text string) (all []concurrentIndex, err error) {
	for statement := range strings.SplitSeq(text, ";\n") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		found := buildsIndex.FindStringSubmatch(statement)
		if found == nil {
			return nil, fmt.Errorf(`outside of a transaction only CREATE INDEX CONCURRENTLY "name" ON can be repeated, not %.60q`, statement)
		}
		all = append(all, concurrentIndex{found[1], statement})
	}
	return all, nil
}

// missingMigrations returns the migrations that the database lacks, or an error that says
// why this program can neither serve nor migrate it. Migrations that this program does not know are no hindrance
// if they are compatible with it.
func missingMigrations(known []migration, past []applied) (missing []migration, err error) {
	newest := known[len(known)-1].version
	for i, p := range past {
		switch {
		case i < len(known) && p.version == known[i].version && !p.finished && known[i].outsideTx:
			return known[i:], nil
		case p.version > newest && i >= len(known) && p.compatibleFrom != "" && p.compatibleFrom <= newest:
			continue
		case p.version > newest:
			return nil, fmt.Errorf("the database is newer than this program: it has the migration %s, which programs that know no migration after %s cannot serve; "+
				"start the newer version", p.version, newest)
		case i >= len(known) || p.version != known[i].version:
			return nil, fmt.Errorf("the database has the migration %s where this program has %s: it belongs to another build; use that one",
				p.version, known[min(i, len(known)-1)].version)
		case !p.finished:
			return nil, fmt.Errorf("the migration %s was cut off half way: compare the tables with the file, finish or undo it by hand, "+
				"then set finished in its row of schema_migrations or delete the row", p.version)
		case p.checksum != known[i].checksum:
			return nil, fmt.Errorf("the migration %s was changed after it was applied: restore the file as it was released, and put the change in a new one", p.version)
		}
	}
	return known[min(len(past), len(known)):], nil
}
