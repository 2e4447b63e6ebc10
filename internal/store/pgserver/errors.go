package pgserver

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs, see appendix A of the PostgreSQL manual.
const (
	readOnlyTransaction = "25006"
	unknownStatement    = "26000"
	tooManyConnections  = "53300"
	adminShutdown       = "57P01"
	crashShutdown       = "57P02"
	idleSessionTimeout  = "57P05"
)

// IsStale reports whether a statement failed because of the connection that it had, an open one until
// then, which has been replaced: on another connection it may succeed. Whether it was executed is
// unknown, unless it was in a transaction that did not commit.
func IsStale(err error) bool {
	if _, connecting := errors.AsType[*pgconn.ConnectError](err); connecting || errors.Is(err, errNoResponse) {
		return false
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.Contains([]string{readOnlyTransaction, unknownStatement, adminShutdown, crashShutdown, idleSessionTimeout}, pg.Code)
	}
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() {
		return false
	}
	return isBroken(err)
}

// IsUnavailable reports whether an error is about the connection or its server, and not about the
// statement.
func IsUnavailable(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connecting || network || IsStale(err) || isBroken(err) || errors.Is(err, errNoResponse) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone)
}

// isBroken reports whether a connection was lost.
func isBroken(err error) bool {
	_, network := errors.AsType[*net.OpError](err)
	return network || slices.ContainsFunc([]error{
		pgconn.ErrConnClosed, driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	}, func(lost error) bool { return errors.Is(err, lost) })
}

// wasNotExecuted reports whether the server cannot have executed the statement.
func wasNotExecuted(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == readOnlyTransaction || pg.Code == unknownStatement) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, errReplaced) || errors.Is(err, pgconn.ErrConnClosed) && pgconn.SafeToRetry(err)
}

// isSlotShortage reports whether a server, or a database or user of it, has as many connections as it may.
func isSlotShortage(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == tooManyConnections
}
