package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"entgo.io/ent/dialect"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/backplane-dev/backplane/ent/migrate"
	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/fault"
)

// noTxDirective begins a migration that cannot run in a transaction, such as one that builds
// an index concurrently. Its statements end with a semicolon and a newline.
const noTxDirective = "-- atlas:txmode none"

// migration is one file of ent/migrate.
type migration struct {
	version  string // name of the file without .sql; sorts by date of creation
	sql      string
	checksum string
}

// applied is the record of a migration in schema_migrations.
type applied struct {
	version, checksum string
	finished          bool
}

// Migrate applies the missing migrations. Of several processes that migrate at once, one
// works and the others wait for it. It refuses, with an error that says what to do, a
// database that is newer than this program, one whose applied migrations differ from the
// files, and one in which a migration was interrupted.
func (db *DB) Migrate(ctx context.Context) error {
	known, err := readMigrations(db.dialect)
	if err != nil {
		return err
	}
	own, c, err := db.migrationSession(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", db.translateError(ctx, err))
	}
	defer own.Close()
	if err := migrateOn(ctx, own, c, known); err != nil {
		return fmt.Errorf("migrate: %w", db.translateError(ctx, err))
	}
	return nil
}

// Ready reports whether the database answers and is up to date: nil, or an
// Unavailable error whose cause says what to do.
func (db *DB) Ready(ctx context.Context) error {
	known, err := readMigrations(db.dialect)
	if err != nil {
		return err
	}
	c := db.readConn()
	c.permits = nil // a health check is not the business of its client
	past, err := c.appliedMigrations(ctx)
	if err != nil {
		return db.translateError(ctx, err)
	}
	missing, err := missingMigrations(known, past)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("the database lacks the migration %s: run backplane migrate, or start with --migrate", missing[0].version)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "The database is not ready for this version.").Because(err)
	}
	return nil
}

// readMigrations returns the files of a dialect in their order.
func readMigrations(name string) ([]migration, error) {
	dir := map[string]string{dialect.SQLite: "sqlite", dialect.Postgres: "postgres"}[name]
	files, err := fs.Glob(migrate.Files, path.Join(dir, "*.sql"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	all := make([]migration, len(files))
	for i, f := range files {
		b, err := fs.ReadFile(migrate.Files, f)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		all[i] = migration{strings.TrimSuffix(path.Base(f), ".sql"), string(b), hex.EncodeToString(sum[:])}
	}
	return all, nil
}

// missingMigrations returns the migrations that the database lacks, or an error that says
// why this program cannot migrate it.
func missingMigrations(known []migration, past []applied) (missing []migration, err error) {
	for i, p := range past {
		switch {
		case !p.finished:
			return nil, fmt.Errorf("the migration %s was cut off half way: compare the tables with the file, finish or undo it by hand, "+
				"then set finished in its row of schema_migrations or delete the row", p.version)
		case i >= len(known) || p.version > known[len(known)-1].version:
			return nil, fmt.Errorf("the database is newer than this program: it has the migration %s; start the newer version", p.version)
		case p.version != known[i].version:
			return nil, fmt.Errorf("the database has the migration %s where this program has %s: it belongs to another build; use that one",
				p.version, known[i].version)
		case p.checksum != known[i].checksum:
			return nil, fmt.Errorf("the migration %s was changed after it was applied: restore the file as it was released, and put the change in a new one", p.version)
		}
	}
	return known[len(past):], nil
}

// migrationSession opens a separate connection: on PostgreSQL it holds the migration lock
// and waits until ctx ends; on SQLite it checks foreign keys only at the end, since
// rebuilding a table drops the old one first.
func (db *DB) migrationSession(ctx context.Context) (pool, conn, error) {
	own, err := db.openMigration()
	if err != nil {
		return nil, conn{}, err
	}
	c := conn{ExecQuerier: own, dialect: db.dialect}
	if err := c.lockMigrations(ctx); err != nil {
		return nil, conn{}, errors.Join(err, own.Close())
	}
	return own, c, nil
}

func (db *DB) openMigration() (pool, error) {
	if db.isPostgres() {
		return db.openWithoutLimits(lockLimit, statementLimit, idleLimit), nil
	}
	own, err := sql.Open("sqlite", sqliteDSN(db.cfg, db.path, "immediate", "foreign_keys(0)"))
	if err != nil {
		return nil, err
	}
	own.SetMaxOpenConns(1)
	return own, nil
}

// lockMigrations waits until no other session migrates. It polls with backoff and does not
// wait inside the database: a waiting statement would block CREATE INDEX CONCURRENTLY. The
// lock ends with the connection, so a node that dies releases it. On SQLite each step
// takes the write lock.
func (c conn) lockMigrations(ctx context.Context) error {
	if !c.isPostgres() {
		return nil
	}
	for try := 1; ; try++ {
		var got bool
		_, err := c.queryRow(ctx, `SELECT pg_try_advisory_lock(hashtextextended('backplane migrate ' || current_schema(), 0))`, nil, &got)
		if got || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		backoff.Sleep(ctx, conflictRetries.Delay(try))
	}
}

func migrateOn(ctx context.Context, own pool, c conn, known []migration) error {
	for try := 1; ; try++ {
		done, err := applyNext(ctx, own, c, known)
		if isSQLite(err, sqlite3.SQLITE_BUSY) && ctx.Err() == nil { // another process migrates
			backoff.Sleep(ctx, conflictRetries.Delay(try))
			continue
		}
		if done || err != nil {
			return err
		}
	}
}

// applyNext applies the first missing migration. On SQLite the transaction begins with the
// write lock, and reads under it which are missing.
func applyNext(ctx context.Context, own pool, c conn, known []migration) (done bool, err error) {
	raw, err := own.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer raw.Rollback() //nolint:errcheck // after a commit it does nothing, else the first error counts
	t := conn{ExecQuerier: raw, dialect: c.dialect}
	if _, err := t.exec(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (version text NOT NULL PRIMARY KEY, checksum text NOT NULL,
		applied_at text NOT NULL, finished boolean NOT NULL)`); err != nil {
		return false, err
	}
	past, err := t.appliedMigrations(ctx)
	if err != nil {
		return false, err
	}
	missing, err := missingMigrations(known, past)
	if err != nil || len(missing) == 0 {
		return true, errors.Join(err, raw.Commit())
	}
	m := missing[0]
	if strings.HasPrefix(m.sql, noTxDirective) {
		return false, applyOutsideTx(ctx, c, raw, m)
	}
	if err := t.applyMigration(ctx, m); err != nil {
		return false, fmt.Errorf("%s: %w", m.version, err)
	}
	return false, raw.Commit()
}

func (c conn) applyMigration(ctx context.Context, m migration) error {
	if _, err := c.ExecContext(ctx, m.sql); err != nil {
		return err
	}
	if !c.isPostgres() {
		if broken, err := c.queryRow(ctx, `PRAGMA foreign_key_check`, nil, new(any), new(any), new(any), new(any)); err != nil || broken {
			return errors.Join(err, errors.New("it leaves rows whose foreign keys name nothing"))
		}
	}
	if after := afterMigration[m.version]; after != nil {
		if err := after(ctx, c); err != nil {
			return err
		}
	}
	return c.markApplied(ctx, m, true)
}

// applyOutsideTx records the migration as begun before it starts, and as finished at its
// end: if it is interrupted in between, the next start refuses the database.
func applyOutsideTx(ctx context.Context, c conn, raw *sql.Tx, m migration) error {
	if err := (conn{ExecQuerier: raw, dialect: c.dialect}).markApplied(ctx, m, false); err != nil {
		return err
	}
	if err := raw.Commit(); err != nil {
		return err
	}
	for statement := range strings.SplitSeq(m.sql, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := c.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", m.version, err)
		}
	}
	_, err := c.exec(ctx, `UPDATE schema_migrations SET finished = TRUE WHERE version = ?`, m.version)
	return err
}

func (c conn) markApplied(ctx context.Context, m migration, finished bool) error {
	_, err := c.exec(ctx, `INSERT INTO schema_migrations (version, checksum, applied_at, finished) VALUES (?, ?, CAST(CURRENT_TIMESTAMP AS text), ?)`,
		m.version, m.checksum, finished)
	return err
}

// appliedMigrations returns the recorded migrations in order; none on an empty database.
func (c conn) appliedMigrations(ctx context.Context) ([]applied, error) {
	exists := `SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'`
	if c.isPostgres() {
		exists = `SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_migrations'`
	}
	if found, err := c.queryRow(ctx, exists, nil, new(int)); err != nil || !found {
		return nil, err
	}
	var past []applied
	err := c.eachRow(ctx, `SELECT version, checksum, finished FROM schema_migrations`, nil, func(scan func(...any) error) error {
		var p applied
		err := scan(&p.version, &p.checksum, &p.finished)
		past = append(past, p)
		return err
	})
	slices.SortFunc(past, func(a, b applied) int { return strings.Compare(a.version, b.version) })
	return past, err
}
