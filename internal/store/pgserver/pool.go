package pgserver

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backplane-dev/backplane/internal/backoff"
)

// Times and bounds of a Pool.
const (
	maxIdleTime  = 5 * time.Minute  // how long PostgreSQL keeps a process for a connection that is not used
	maxTries     = 4                // of a statement whose connections turn out dead
	slotTime     = 10 * time.Second // how long a call without a deadline waits while the server has no slot for another connection
	shortageTime = 5 * time.Second  // how long a pool makes do with the connections it has before it tries to open more
)

// slotRetries is the pause before a call tries again for which the server had no slot.
var slotRetries = backoff.Policy{First: 20 * time.Millisecond, Max: 500 * time.Millisecond}

// PoolConfig says how to open a Pool. Only Conns is needed.
type PoolConfig struct {
	Conns    int               // at most so many connections
	Settings map[string]string // of its sessions, besides those of the Server
	MaxAge   time.Duration     // of a connection, with jitter; default 30 min
	Wary     bool              // looks at the role of the server before each use, also of a connection that was just read from
}

// Pool is connections to the server. It is safe for concurrent use.
//
// Where the server has no slot for another connection (SQLSTATE 53300), calls wait for those that the
// pool has, as they do when all that it may have are taken.
type Pool struct {
	db     *sql.DB
	server *Server
	conns  int

	mu       sync.Mutex
	limit    int       // at present; less than conns during a shortage
	recovers time.Time // when the pool tries to have all its connections again
}

// OpenPool returns a pool, which connects when it is used. Pools of one Server share what it detects: a dead
// connection of one replaces those of all. The caller closes it.
func (s *Server) OpenPool(cfg PoolConfig) *Pool {
	trust := trustTime
	if cfg.Wary {
		trust = 0
	}
	db := stdlib.OpenDB(*s.config(cfg), stdlib.OptionResetSession(func(ctx context.Context, conn *pgx.Conn) error { return s.checkConn(ctx, conn, trust) }),
		stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })) // checkConn asks, with a limit
	p := &Pool{db: db, server: s, conns: cfg.Conns}
	db.SetConnMaxIdleTime(maxIdleTime)
	p.setLimit(cfg.Conns)
	return p
}

// setLimit bounds the connections. The caller holds the lock, or is the only one.
func (p *Pool) setLimit(n int) {
	p.limit = n
	p.db.SetMaxOpenConns(n)
	p.db.SetMaxIdleConns(n)
}

// Close ends the connections, after running queries.
func (p *Pool) Close() error { return p.db.Close() }

// Stats returns how many connections are open and used.
func (p *Pool) Stats() sql.DBStats { return p.db.Stats() }

// PingContext reports whether a server that can write answers.
func (p *Pool) PingContext(ctx context.Context) error {
	return p.retry(ctx, true, func() error { return p.db.PingContext(ctx) })
}

// ExecContext runs a statement.
func (p *Pool) ExecContext(ctx context.Context, query string, args ...any) (res sql.Result, err error) {
	err = p.retry(ctx, reads(query), func() error {
		res, err = p.db.ExecContext(ctx, query, args...)
		return err
	})
	return res, err
}

// QueryContext runs a query. The caller closes the rows.
func (p *Pool) QueryContext(ctx context.Context, query string, args ...any) (rows *sql.Rows, err error) {
	err = p.retry(ctx, reads(query), func() error {
		rows, err = p.db.QueryContext(ctx, query, args...) //nolint:rowserrcheck,sqlclosecheck // the caller does
		return err
	})
	return rows, err
}

// BeginTx begins a transaction, on whose connection nothing has been done yet.
func (p *Pool) BeginTx(ctx context.Context, opts *sql.TxOptions) (tx *sql.Tx, err error) {
	err = p.retry(ctx, true, func() error {
		tx, err = p.db.BeginTx(ctx, opts)
		return err
	})
	return tx, err
}

// Conn returns one connection, which the caller closes.
func (p *Pool) Conn(ctx context.Context) (conn *sql.Conn, err error) {
	err = p.retry(ctx, true, func() error {
		conn, err = p.db.Conn(ctx)
		return err
	})
	return conn, err
}

// reads reports whether a statement changes nothing, so that it may run twice.
func reads(query string) bool { return strings.HasPrefix(query, "SELECT ") }

// retry calls fn again while its connections turn out dead, if it was not executed or only reads, and
// while the server has no slot for another connection, until ctx ends.
func (p *Pool) retry(ctx context.Context, readOnly bool, fn func() error) error {
	began, shortages := time.Now(), 0
	p.endShortage(began)
	for try := 1; ; try++ {
		err := fn()
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case isSlotShortage(err):
			shortages, try = shortages+1, 0
			p.beginShortage()
			if !waitForSlot(ctx, began, shortages) {
				return err
			}
		case try < maxTries && (wasNotExecuted(err) || readOnly && IsStale(err)):
			p.server.ReplaceIdle()
		default:
			return err
		}
	}
}

// waitForSlot pauses before the next attempt; it reports false if the call has waited long enough.
func waitForSlot(ctx context.Context, began time.Time, shortages int) bool {
	if _, bound := ctx.Deadline(); !bound && time.Since(began) > slotTime {
		return false
	}
	backoff.Sleep(ctx, slotRetries.Delay(shortages))
	return ctx.Err() == nil
}

// beginShortage has calls wait for the connections that are open.
func (p *Pool) beginShortage() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recovers = time.Now().Add(backoff.Jitter(shortageTime))
	if open := max(1, p.db.Stats().OpenConnections); open < p.limit {
		p.setLimit(open)
	}
}

// endShortage lets the pool open all its connections again, some time after the last failure.
func (p *Pool) endShortage(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit < p.conns && now.After(p.recovers) {
		p.setLimit(p.conns)
	}
}
