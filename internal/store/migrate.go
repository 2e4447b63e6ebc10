package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/fault"
)

// ddlLockTimeout is how long a statement of a migration waits for a table in use. Queries that come later
// wait behind it, so it is short; the migration is tried again.
const ddlLockTimeout = time.Second

// maxLockWait is how long a migration is tried again while tables that it changes are in use.
const maxLockWait = 5 * time.Minute

// lockRetries is the pause before it is tried again.
var lockRetries = backoff.Policy{First: 100 * time.Millisecond, Max: 10 * time.Second}

// Migrate applies the missing migrations. Of several processes that migrate at once, one
// works and the others wait for it. It refuses, with an error that says what to do, a
// database that is too new for this program, one whose applied migrations differ from the
// files, and one in which a migration was interrupted that cannot simply run again.
func (db *DB) Migrate(ctx context.Context) error {
	own, c, err := db.migrationSession(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", db.translateError(ctx, err))
	}
	defer own.Close()
	if err := db.migrateOn(ctx, own, c); err != nil {
		return fmt.Errorf("migrate: %w", db.translateError(ctx, err))
	}
	return nil
}

// Ready reports whether the database answers and has a schema that this program can serve: its own or a
// newer, compatible one. It returns nil, or an Unavailable error whose cause says what to do.
func (db *DB) Ready(ctx context.Context) error {
	past, err := db.pastMigrations(ctx)
	if err != nil {
		return err
	}
	missing, err := missingMigrations(db.known, past)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("the database lacks the migration %s: run backplane migrate, or start with --migrate", missing[0].version)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "The database is not ready for this version.").Because(err)
	}
	return nil
}

// NewerMigration returns the newest migration of the database if this program does not know it, else "".
func (db *DB) NewerMigration(ctx context.Context) (version string, err error) {
	past, err := db.pastMigrations(ctx)
	if err != nil || len(past) <= len(db.known) {
		return "", err
	}
	return past[len(past)-1].version, nil
}

func (db *DB) pastMigrations(ctx context.Context) ([]applied, error) {
	c := db.readConn()
	c.permits = nil // a health check is not the business of its client
	past, err := c.appliedMigrations(ctx)
	return past, db.translateError(ctx, err)
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
		return db.openMigrator(), nil
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

// migrateOn applies one missing migration after the other. One whose tables are in use is tried again.
func (db *DB) migrateOn(ctx context.Context, own pool, c conn) error {
	began := time.Now()
	for try := 1; ; try++ {
		version, err := db.applyNext(ctx, own, c)
		switch {
		case err == nil && version == "":
			return nil
		case err == nil:
			try, began = 0, time.Now()
		case !isLockTimeout(err) || ctx.Err() != nil:
			return err
		case !db.isPostgres(): // another process migrates
			backoff.Sleep(ctx, conflictRetries.Delay(try))
		case time.Since(began) > maxLockWait:
			return fmt.Errorf("other transactions have used tables that %s changes for %v: end them (see pg_stat_activity), then migrate again: %w", version, maxLockWait, err)
		default:
			db.cfg.Log.WarnContext(ctx, "migration waits: its tables are in use", "migration", version, "tries", try, "error", err)
			backoff.Sleep(ctx, lockRetries.Delay(try))
		}
	}
}

// applyNext applies the first missing migration and returns its version; "" if none is missing. On
// SQLite the transaction begins with the write lock, and reads under it which are missing.
func (db *DB) applyNext(ctx context.Context, own pool, c conn) (version string, err error) {
	raw, err := own.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer raw.Rollback() //nolint:errcheck // after a commit it does nothing, else the first error counts
	t := conn{ExecQuerier: raw, dialect: c.dialect}
	if err := t.createMigrationTable(ctx); err != nil {
		return "", err
	}
	past, err := t.appliedMigrations(ctx)
	if err != nil {
		return "", err
	}
	missing, err := missingMigrations(db.known, past)
	if err != nil || len(missing) == 0 {
		return "", errors.Join(err, raw.Commit())
	}
	m := missing[0]
	if m.outsideTx {
		return m.version, applyOutsideTx(ctx, c, raw, m)
	}
	if err := t.applyMigration(ctx, m); err != nil {
		return m.version, fmt.Errorf("%s: %w", m.version, err)
	}
	return m.version, raw.Commit()
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
// end: if it is interrupted in between, the next run repeats it.
func applyOutsideTx(ctx context.Context, c conn, raw *sql.Tx, m migration) error {
	if err := (conn{ExecQuerier: raw, dialect: c.dialect}).markApplied(ctx, m, false); err != nil {
		return err
	}
	if err := raw.Commit(); err != nil {
		return err
	}
	for _, i := range m.indexes {
		if err := c.buildIndex(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", m.version, err)
		}
	}
	_, err := c.exec(ctx, `UPDATE schema_migrations SET finished = TRUE WHERE version = ?`, m.version)
	return err
}

// buildIndex builds an index of PostgreSQL, unless it is there. One whose building failed or was
// interrupted is there, but invalid: it is dropped first. While it is built, the table can be read and changed,
// so the statement may wait for all transactions that use the table.
func (c conn) buildIndex(ctx context.Context, i concurrentIndex) error {
	var valid bool
	found, err := c.queryRow(ctx, `SELECT i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
		WHERE c.relname = ? AND c.relnamespace = current_schema()::regnamespace`, []any{i.name}, &valid)
	if err != nil || valid {
		return err
	}
	statements := []string{`SET lock_timeout = 0`, i.statement, fmt.Sprintf(`SET lock_timeout = %d`, ddlLockTimeout.Milliseconds())}
	if found {
		statements = slices.Insert(statements, 1, `DROP INDEX CONCURRENTLY "`+i.name+`"`)
	}
	for _, statement := range statements {
		if _, err := c.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (c conn) markApplied(ctx context.Context, m migration, finished bool) error {
	_, err := c.exec(ctx, `INSERT INTO schema_migrations (version, checksum, applied_at, finished, compatible_from)
		VALUES (?, ?, CAST(CURRENT_TIMESTAMP AS text), ?, ?) ON CONFLICT (version) DO NOTHING`, m.version, m.checksum, finished, m.compatibleFrom)
	return err
}

// createMigrationTable makes schema_migrations, or adds the column that former versions did not have.
func (c conn) createMigrationTable(ctx context.Context) error {
	columns, err := c.migrationColumns(ctx)
	if err != nil || columns == 2 {
		return err
	}
	statement := `ALTER TABLE schema_migrations ADD COLUMN compatible_from text NOT NULL DEFAULT ''`
	if columns == 0 {
		statement = `CREATE TABLE schema_migrations (version text NOT NULL PRIMARY KEY, checksum text NOT NULL,
			applied_at text NOT NULL, finished boolean NOT NULL, compatible_from text NOT NULL DEFAULT '')`
	}
	_, err = c.exec(ctx, statement)
	return err
}

// migrationColumns returns 0 if there is no table schema_migrations, 1 if it is of a former version,
// and else 2.
func (c conn) migrationColumns(ctx context.Context) (n int, err error) {
	query := `SELECT COUNT(*) FROM pragma_table_info('schema_migrations') WHERE name IN ('version', 'compatible_from')`
	if c.isPostgres() {
		query = `SELECT COUNT(*) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
			WHERE c.relname = 'schema_migrations' AND c.relnamespace = current_schema()::regnamespace AND a.attname IN ('version', 'compatible_from')`
	}
	_, err = c.queryRow(ctx, query, nil, &n)
	return n, err
}

// appliedMigrations returns the recorded migrations in order; none on an empty database.
func (c conn) appliedMigrations(ctx context.Context) ([]applied, error) {
	columns, err := c.migrationColumns(ctx)
	if err != nil || columns == 0 {
		return nil, err
	}
	query := `SELECT version, checksum, finished, compatible_from FROM schema_migrations`
	if columns == 1 {
		query = `SELECT version, checksum, finished, '' FROM schema_migrations`
	}
	var past []applied
	err = c.eachRow(ctx, query, nil, func(scan func(...any) error) error {
		var p applied
		err := scan(&p.version, &p.checksum, &p.finished, &p.compatibleFrom)
		past = append(past, p)
		return err
	})
	slices.SortFunc(past, func(a, b applied) int { return strings.Compare(a.version, b.version) })
	return past, err
}
