package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// transaction is a transaction of the database, in which a tx runs.
type transaction interface {
	entsql.ExecQuerier
	// settle returns once everything is known that the commit depends on.
	settle(ctx context.Context) error
	// commit commits. isOpen reports whether a commit that failed has certainly not taken effect.
	commit(ctx context.Context) error
	isOpen() bool
	rollback()
}

// plainTransaction is a transaction whose statements run one by one.
type plainTransaction struct{ *sql.Tx }

func (s plainTransaction) settle(context.Context) error { return nil }
func (s plainTransaction) commit(context.Context) error { return s.Commit() }
func (s plainTransaction) isOpen() bool                 { return false }     // the driver's error tells
func (s plainTransaction) rollback()                    { _ = s.Rollback() } // also after a failed COMMIT; its error adds nothing

// Bounds of a pipeline.
const (
	maxQueued    = 64 // statements that wait for the next one with a result
	rollbackTime = 5 * time.Second
)

// pipeline is a transaction on PostgreSQL that sends statements together where their order allows it.
// BEGIN and statements without a result wait for the next one with a result, or for COMMIT, and
// are sent with it in one round trip; the server runs them in order, and none after one that fails. So
// an error of a statement that was queued is returned by a later call, or as that of the
// commit.
type pipeline struct {
	pooled      *sql.Conn // for statements of ent
	conn        *pgx.Conn // the same connection
	onStatement func(query string)
	queued      *pgx.Batch
	checks      []func() error // of what queued queries return; called in their order once all have succeeded
	begun       bool           // BEGIN is queued or was sent
	sent        bool           // it was sent
}

var _ transaction = (*pipeline)(nil)

func newPipeline(pooled *sql.Conn, onStatement func(string)) (*pipeline, error) {
	p := &pipeline{pooled: pooled, onStatement: onStatement, queued: &pgx.Batch{}}
	err := pooled.Raw(func(driver any) error {
		c, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the driver's connection is a %T", driver)
		}
		p.conn = c.Conn() // the pool gives it to no one else until pooled is closed
		return nil
	})
	return p, err
}

// add queues a statement.
func (p *pipeline) add(query string, args []any) *pgx.QueuedQuery {
	if p.onStatement != nil {
		p.onStatement(query)
	}
	p.begin()
	return p.queued.Queue(query, args...)
}

func (p *pipeline) begin() {
	if !p.begun {
		p.begun = true
		p.queued.Queue("BEGIN")
	}
}

// queue queues a statement whose result is not needed.
func (p *pipeline) queue(ctx context.Context, query string, args []any) error {
	p.add(query, args)
	if p.queued.Len() >= maxQueued {
		return p.send(ctx)
	}
	return nil
}

// queueQuery queues a query; scan gets the Scan of each row.
func (p *pipeline) queueQuery(query string, args []any, scan func(func(...any) error) error) {
	p.add(query, args).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := scan(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// exec runs a statement and returns how many rows it changed.
func (p *pipeline) exec(ctx context.Context, query string, args []any) (n int64, err error) {
	p.add(query, args).Exec(func(tag pgconn.CommandTag) error { n = tag.RowsAffected(); return nil })
	return n, p.send(ctx)
}

// send sends what is queued and waits for the results.
func (p *pipeline) send(ctx context.Context) error {
	if p.queued.Len() == 0 {
		return nil
	}
	batch, checks := p.queued, p.checks
	p.queued, p.checks = &pgx.Batch{}, nil
	if err := p.conn.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	p.sent = true
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// ExecContext implements entsql.ExecQuerier.
func (p *pipeline) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := p.sendFirst(ctx); err != nil {
		return nil, err
	}
	return p.pooled.ExecContext(ctx, query, args...)
}

// QueryContext implements entsql.ExecQuerier.
func (p *pipeline) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := p.sendFirst(ctx); err != nil {
		return nil, err
	}
	return p.pooled.QueryContext(ctx, query, args...)
}

// sendFirst sends what comes before a statement of ent.
func (p *pipeline) sendFirst(ctx context.Context) error {
	p.begin()
	return p.send(ctx)
}

// settle implements transaction. The first round trip never has the COMMIT: if the connection turns out
// dead in it, the transaction can run again.
func (p *pipeline) settle(ctx context.Context) error {
	if p.sent && len(p.checks) == 0 {
		return nil
	}
	return p.send(ctx)
}

// commit sends COMMIT, behind what is queued.
func (p *pipeline) commit(ctx context.Context) error {
	p.begin()
	p.queued.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() == "ROLLBACK" { // a statement had failed
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	return p.send(ctx)
}

// isOpen implements transaction: the connection is still in the transaction.
func (p *pipeline) isOpen() bool { return !p.conn.IsClosed() && p.conn.PgConn().TxStatus() != 'I' }

// rollback ends the transaction, or else the connection.
func (p *pipeline) rollback() {
	p.queued, p.checks = &pgx.Batch{}, nil
	if !p.begun || !p.isOpen() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTime)
	defer cancel()
	if _, err := p.conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = p.conn.Close(ctx)
	}
}

// queue runs a statement whose result is not needed: on PostgreSQL with the next one that has a result, or the commit.
func (c conn) queue(ctx context.Context, query string, args ...any) error {
	if c.pipeline != nil {
		return c.pipeline.queue(ctx, c.numberParams(query), args)
	}
	_, err := c.exec(ctx, query, args...)
	return err
}

// queueCounted is queue for a statement of which check gets the number of rows that it changed, before any later
// result is used, and before the commit.
func (c conn) queueCounted(ctx context.Context, check func(n int64) error, query string, args ...any) error {
	if c.pipeline == nil {
		n, err := c.exec(ctx, query, args...)
		if err != nil {
			return err
		}
		return check(n)
	}
	var n int64
	c.pipeline.add(c.numberParams(query), args).Exec(func(tag pgconn.CommandTag) error { n = tag.RowsAffected(); return nil })
	c.pipeline.checks = append(c.pipeline.checks, func() error { return check(n) })
	return nil
}

// queueRow is queue for a query that returns at most one row, which is scanned into the values; check gets
// whether there was one, before any later result is used, and before the commit.
func (c conn) queueRow(ctx context.Context, check func(found bool) error, query string, args []any, into ...any) error {
	if c.pipeline == nil {
		found, err := c.queryRow(ctx, query, args, into...)
		if err != nil {
			return err
		}
		return check(found)
	}
	found := false
	c.pipeline.queueQuery(c.numberParams(query), args, func(scan func(...any) error) error {
		found = true
		return scan(into...)
	})
	c.pipeline.checks = append(c.pipeline.checks, func() error { return check(found) })
	return nil
}
