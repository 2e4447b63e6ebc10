package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store/pgserver"
)

// SQLSTATEs, see appendix A of the PostgreSQL manual.
const (
	featureNotSupported  = "0A000" // cached plan must not change result type
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	uniqueViolation      = "23505"
	lockNotAvailable     = "55P03"
	queryCancelled       = "57014"
	readOnlyTransaction  = "25006"
	idleInTransaction    = "25P03"
	diskFull             = "53100"
	notInEncoding        = "22021" // text holds a NUL
)

// uniqueViolations maps a unique index to the error of its violation: by table and column on
// SQLite, and by the name that ent gives the index on PostgreSQL.
var uniqueViolations = func() map[string]*fault.Error {
	byIndex := map[string]*fault.Error{}
	for column, taken := range entity.UniqueColumns() {
		byIndex[column] = taken
		byIndex[strings.ReplaceAll(column, ".", "_")+"_key"] = taken
	}
	return byIndex
}()

var (
	unavailable    = fault.New(fault.Unavailable, "The database cannot be reached at the moment; try again later.")
	cannotStore    = fault.New(fault.Unavailable, "The database cannot store anything at the moment; try again later.")
	outcomeUnknown = fault.New(fault.Unavailable,
		"The database went away while the change was being stored: look whether it was made before you try again.")
	waitedTooLong = fault.New(fault.Unavailable, "Another call has been changing the same object for too long; try again.")
	inFlight      = fault.New(fault.IdempotencyInFlight, "The first call with this idempotency key has not ended yet; try again later.")
	keyReused     = fault.New(fault.IdempotencyKeyReused, "This idempotency key was used for another call.").At("idempotencyKey")
	notText       = fault.New(fault.BadInput, "A text holds characters that cannot be stored.")
)

// translateError maps an error of the driver or of ent to a fault.Error for the caller. It
// returns unknown errors unchanged; those are Internal.
func (db *DB) translateError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err) // not every driver wraps the error of ctx
	}
	if name := violatedIndex(err); name != "" {
		if f := uniqueViolations[name]; f != nil {
			return f.Because(err)
		}
		return err
	}
	switch {
	case isLockTimeout(err):
		return waitedTooLong.Because(err)
	case isStatementTimeout(err):
		return fault.New(fault.Timeout, "The request took too long and was stopped.").Because(err)
	case isCode(err, notInEncoding):
		return notText.Because(err)
	case isCannotStore(err):
		return cannotStore.Because(err)
	case db.closed.Load() || isUnavailable(err):
		return unavailable.Because(err)
	}
	return err
}

// violatedIndex returns the name of the unique index that err is about, or "". On
// SQLite only the error text names it, by table and column.
func violatedIndex(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == uniqueViolation {
		return pg.ConstraintName
	}
	lite, ok := errors.AsType[*sqlite.Error](err)
	if !ok || lite.Code() != sqlite3.SQLITE_CONSTRAINT_UNIQUE {
		return ""
	}
	_, after, _ := strings.Cut(lite.Error(), "UNIQUE constraint failed: ")
	column, _, _ := strings.Cut(after, " ")
	return strings.TrimSuffix(column, ",")
}

// isRepeatable reports whether the database refused a transaction for a transient reason,
// so that it may succeed when it runs again.
func isRepeatable(err error) bool {
	return isCode(err, serializationFailure, deadlockDetected) || isSQLite(err, sqlite3.SQLITE_BUSY) || pgserver.IsStale(err) || isStalePlan(err) ||
		slices.Contains(repeatableIndexes, violatedIndex(err))
}

// isStalePlan reports whether a prepared statement is older than a change of its tables: its next use
// prepares it anew.
func isStalePlan(err error) bool { return isCode(err, featureNotSupported) }

// repeatableIndexes are the unique indexes that concurrent transactions may violate because
// one does not see the uncommitted row of the other; the second run sees it.
var repeatableIndexes = []string{
	"orders_number_key", "orders.number", // random numbers
	"services_name_key", "services.name", "instance_service_id_instance_id", "instances.service_id", // upserts
}

// isRefused reports whether err is the database's own answer that a COMMIT did not
// happen. A lost connection leaves the outcome unknown.
func isRefused(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Severity == "ERROR"
	}
	_, lite := errors.AsType[*sqlite.Error](err)
	return lite || errors.Is(err, pgx.ErrTxCommitRollback)
}

func isLockTimeout(err error) bool {
	return isCode(err, lockNotAvailable, serializationFailure, deadlockDetected) || isSQLite(err, sqlite3.SQLITE_BUSY)
}

func isStatementTimeout(err error) bool {
	return isCode(err, queryCancelled) || isSQLite(err, sqlite3.SQLITE_INTERRUPT)
}

// isCannotStore covers full disks, and servers and files that are read-only.
func isCannotStore(err error) bool {
	return isCode(err, diskFull, readOnlyTransaction) || errors.Is(err, pgserver.ErrCannotWrite) || isSQLite(err, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
}

// isOutOfSpace covers what stays so until room is made, or a file can be written again.
func isOutOfSpace(err error) bool {
	return isCode(err, diskFull) || isSQLite(err, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
}

// isUnavailable covers connections refused, lost and closed, servers that start
// or stop, and files that cannot be opened, read or written.
func isUnavailable(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// Connection, resources, intervention, system; and a wrong password and a
		// missing database, which the caller cannot repair.
		classes := []string{"08", "53", "57", "58", "28", "3D"}
		return slices.Contains(classes, pg.Code[:min(2, len(pg.Code))]) || isCode(err, idleInTransaction)
	}
	if isSQLite(err, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) {
		return true
	}
	return pgserver.IsUnavailable(err)
}

func isCode(err error, codes ...string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, pg.Code)
}

func isSQLite(err error, codes ...int) bool {
	lite, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains(codes, lite.Code()&0xff)
}
