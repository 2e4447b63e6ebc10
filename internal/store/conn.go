package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
)

// statementObserver calls onStatement with each statement before it runs.
type statementObserver struct {
	entsql.ExecQuerier
	onStatement func(query string) // may be nil
}

func (o statementObserver) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if o.onStatement != nil {
		o.onStatement(query)
	}
	return o.ExecQuerier.ExecContext(ctx, query, args...)
}

func (o statementObserver) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if o.onStatement != nil {
		o.onStatement(query)
	}
	return o.ExecQuerier.QueryContext(ctx, query, args...)
}

// conn runs statements on a pool or in a transaction. Parameters are question marks
// on both dialects.
type conn struct {
	entsql.ExecQuerier
	dialect string
	permits *permits // of a pool; nil in a transaction, which has its own

	pipeline *pipeline // of a transaction on PostgreSQL
}

func (c conn) isPostgres() bool { return c.dialect == dialect.Postgres }

// entDriver returns conn as a driver of ent. A transaction that ent begins runs in the
// transaction that conn is in.
func (c conn) entDriver() dialect.Driver {
	return txDriver{entsql.NewDriver(c.dialect, entsql.Conn{ExecQuerier: c.ExecQuerier}), c.permits}
}

// txDriver is a driver of ent without transactions of its own. Its queries wait for a permit.
type txDriver struct {
	*entsql.Driver

	permits *permits
}

func (j txDriver) Tx(context.Context) (dialect.Tx, error) { return dialect.NopTx(j), nil }

// Query implements dialect.ExecQuerier. The rows, an *entsql.Rows, hold the permit until they
// are closed.
func (j txDriver) Query(ctx context.Context, query string, args, rows any) error {
	permit, err := j.permits.acquire(ctx)
	if err != nil {
		return err
	}
	if err := j.Driver.Query(ctx, query, args, rows); err != nil {
		permit.release()
		return err
	}
	if r, ok := rows.(*entsql.Rows); ok && permit.queue != nil {
		r.ColumnScanner = &permittedRows{r.ColumnScanner, permit}
	}
	return nil
}

// Close does nothing: the DB closes the pool.
func (j txDriver) Close() error { return nil }

// exec runs a statement and returns how many rows it changed.
func (c conn) exec(ctx context.Context, query string, args ...any) (int64, error) {
	permit, err := c.permits.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer permit.release()
	if c.pipeline != nil {
		return c.pipeline.exec(ctx, c.numberParams(query), args)
	}
	res, err := c.ExecContext(ctx, c.numberParams(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// eachRow runs a query and calls fn with the Scan of each row. fn must not run statements.
func (c conn) eachRow(ctx context.Context, query string, args []any, fn func(scan func(...any) error) error) error {
	permit, err := c.permits.acquire(ctx)
	if err != nil {
		return err
	}
	defer permit.release()
	if c.pipeline != nil {
		c.pipeline.queueQuery(c.numberParams(query), args, fn)
		return c.pipeline.send(ctx)
	}
	rows, err := c.QueryContext(ctx, c.numberParams(query), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// queryRow runs a query that returns at most one row; found is false if it returns none.
func (c conn) queryRow(ctx context.Context, query string, args []any, into ...any) (found bool, err error) {
	err = c.eachRow(ctx, query, args, func(scan func(...any) error) error {
		found = true
		return scan(into...)
	})
	return found, err
}

// maxParams is how many parameters a statement may have: PostgreSQL takes
// 65,535, SQLite 32,766. Fewer are no slower.
const maxParams = 10_000

// insertRows inserts rows into a table, in as few statements as maxParams allows. It queues them, see queue.
func (c conn) insertRows(ctx context.Context, table string, columns []string, rows [][]any) error {
	for len(rows) > 0 {
		n := min(len(rows), maxParams/len(columns))
		var args []any
		for _, row := range rows[:n] {
			args = append(args, row...)
		}
		query := fmt.Sprintf("INSERT INTO %s (%s) VALUES %s", table, strings.Join(columns, ", "), paramTuples(n, len(columns)))
		if err := c.queue(ctx, query, args...); err != nil {
			return fmt.Errorf("insert into %s: %w", table, err)
		}
		rows = rows[n:]
	}
	return nil
}

// numberParams replaces question marks by $1, $2, … for PostgreSQL. Statements of this
// package use question marks for parameters only.
func (c conn) numberParams(query string) string {
	if !c.isPostgres() {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 64)
	for n, rest := 1, query; ; n++ {
		before, after, found := strings.Cut(rest, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
		rest = after
	}
}

// lockClause returns the locking clause of a query whose rows stay locked until the commit;
// it is empty on SQLite, where a write transaction locks the whole database.
func (c conn) lockClause(clause string) string {
	if c.isPostgres() {
		return " " + clause
	}
	return ""
}

// forUpdate locks the rows of an ent query until the commit.
func (c conn) forUpdate(s *entsql.Selector) {
	if c.isPostgres() {
		s.ForUpdate()
	}
}

// forShare keeps the rows of an ent query as they are until the commit.
func (c conn) forShare(s *entsql.Selector) {
	if c.isPostgres() {
		s.ForShare()
	}
}

// forChange is forUpdate for rows that foreign keys refer to and whose key does not change:
// other transactions may insert references meanwhile. Inserting a reference takes FOR KEY
// SHARE, which FOR UPDATE blocks, late in a transaction that holds other locks already.
func (c conn) forChange(s *entsql.Selector) {
	if c.isPostgres() {
		s.ForUpdate(entsql.WithLockClause("FOR NO KEY UPDATE"))
	}
}

// anyOf returns the condition that a column has one of the values, and its parameters: on PostgreSQL one, so that there is
// one statement for any number of values.
func (c conn) anyOf(column string, values []string) (condition string, args []any) {
	if c.isPostgres() {
		return column + ` = ANY(?)`, []any{values}
	}
	return column + ` IN (` + paramList(len(values)) + `)`, toAnys(values)
}

// paramTuples returns n tuples of parameters: (?, ?), (?, ?).
func paramTuples(n, width int) string {
	return strings.TrimSuffix(strings.Repeat("("+paramList(width)+"), ", n), ", ")
}

// paramList returns n parameters: ?, ?, ?.
func paramList(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

func toAnys[T any](values []T) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}

// instant scans a time that a statement returns. SQLite loses the type of a time column
// in an expression, and then returns microseconds.
type instant struct{ time.Time }

// Scan implements sql.Scanner.
func (i *instant) Scan(v any) error {
	switch v := v.(type) {
	case time.Time:
		i.Time = v.UTC()
	case int64:
		i.Time = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("a time was stored as %T", v)
	}
	return nil
}

// orNil returns the time, or nil if there was none.
func (i *instant) orNil() *time.Time {
	if i == nil {
		return nil
	}
	return &i.Time
}

// toMicros returns the time as it is stored: UTC, whole microseconds.
func toMicros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func toMicrosOrNil(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	m := toMicros(*t)
	return &m
}

// isStorable reports whether a database accepts the text: valid UTF-8 without NUL. Any
// other text equals no stored value.
func isStorable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
