package store

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/dbclock"
)

// sqlTime is a time as part of a statement: by the clock of PostgreSQL, or
// on SQLite by that of DB.Clock.
type sqlTime struct {
	sql  string
	args []any
}

// timeIn returns the time d from now.
func (db *DB) timeIn(d time.Duration) sqlTime {
	if db.isPostgres() {
		return sqlTime{later, []any{d.Microseconds()}}
	}
	return sqlTime{"?", []any{db.clock.Now().Add(d)}}
}

// later is the time of the database, so many microseconds on.
const later = `clock_timestamp() + CAST(? AS bigint) * INTERVAL '1 microsecond'`

// addMillis is the moment so many milliseconds later, given as a column or a product of columns.
func (db *DB) addMillis(moment sqlTime, millis string) string {
	if db.isPostgres() {
		return "(" + moment.sql + " + (" + millis + ") * INTERVAL '1 millisecond')"
	}
	return "(" + moment.sql + " + (" + millis + ") * 1000)" // SQLite keeps microseconds
}

// Clock returns the database's time, as it was measured when the database was opened. The caller
// runs it to keep it right.
func (db *DB) Clock() *dbclock.Clock { return db.clock }

func (db *DB) newClock() *dbclock.Clock {
	switch {
	case db.cfg.Now != nil:
		return dbclock.Fake(db.cfg.Now)
	case db.isPostgres():
		return dbclock.New(db.readClock)
	default:
		return dbclock.New(nil)
	}
}

// readClock returns the time of PostgreSQL.
func (db *DB) readClock(ctx context.Context) (time.Time, error) {
	var at instant
	_, err := db.readConn().queryRow(ctx, `SELECT clock_timestamp()`, nil, &at)
	return at.Time, db.translateError(ctx, err)
}
