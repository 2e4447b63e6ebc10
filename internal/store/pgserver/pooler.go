package pgserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Bounds of the look for a connection pooler in transaction mode.
const (
	poolerLooks    = 5
	poolerLookTime = 2 * time.Second // a pooler in session mode has the second connection wait when its pool is full
)

// protocolViolation is how PgBouncer in statement mode refuses a transaction.
const protocolViolation = "08P01"

var errTransactionMode = &RefusedError{
	"the database URL leads to a connection pooler in transaction or statement mode, where a session has no connection of its own: " +
		"listening, advisory locks, lock limits and prepared statements do not work there. " +
		"Set pool_mode = session for this database in the pooler, or name the database server itself in BACKPLANE_DATABASE_URL",
}

// RefuseTransactionPooling returns a RefusedError if a pooler gives the connection of a session to others
// between its transactions. Without a pooler it sends nothing.
func (s *Server) RefuseTransactionPooling(ctx context.Context) error {
	if !s.pooled.Load() {
		return nil
	}
	first, err := s.Connect(ctx, nil)
	if err != nil {
		return fmt.Errorf("look for a connection pooler: %w", err)
	}
	defer closeConn(first)
	limited, cancel := context.WithTimeout(ctx, poolerLookTime)
	defer cancel()
	second, err := s.Connect(limited, nil)
	if err != nil {
		return ctx.Err() // the pool is full, and so in session mode: otherwise the connection of the first would have been free
	}
	defer closeConn(second)
	for range poolerLooks {
		shared, err := shareBackend(ctx, first, second)
		if shared || err != nil {
			return err
		}
	}
	return nil
}

// shareBackend reports whether two connections have used one process of the server, or one of them two; the
// error then is errTransactionMode. The first has just become idle when the second takes one for a
// transaction, which is when a pooler in transaction mode hands the same out again.
func shareBackend(ctx context.Context, first, second *pgx.Conn) (shared bool, err error) {
	before, err := backendPID(ctx, first)
	if err != nil {
		return false, err
	}
	tx, err := second.Begin(ctx)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == protocolViolation {
		return true, errTransactionMode
	}
	if err != nil {
		return false, fmt.Errorf("look for a connection pooler: %w", err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // it changed nothing
	inTx, err := backendPID(ctx, second)
	if err != nil {
		return false, err
	}
	after, err := backendPID(ctx, first)
	if err != nil {
		return false, err
	}
	if inTx == before || after != before {
		return true, errTransactionMode
	}
	return false, nil
}

// backendPID returns the process of the server that the next statement of a connection uses.
func backendPID(ctx context.Context, conn *pgx.Conn) (pid string, err error) {
	res, err := conn.PgConn().Exec(ctx, `SELECT pg_backend_pid()`).ReadAll()
	if err != nil {
		return "", fmt.Errorf("look for a connection pooler: %w", err)
	}
	return string(res[0].Rows[0][0]), nil
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
