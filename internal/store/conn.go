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

// statementObserver tells of each statement before it runs.
type statementObserver struct {
	entsql.ExecQuerier
	note func(query string)
}

func (o statementObserver) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if o.note != nil {
		o.note(query)
	}
	return o.ExecQuerier.ExecContext(ctx, query, args...)
}

func (o statementObserver) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if o.note != nil {
		o.note(query)
	}
	return o.ExecQuerier.QueryContext(ctx, query, args...)
}

// conn runs statements on a pool or in a transaction. Parameters are written
// as question marks on both dialects.
type conn struct {
	entsql.ExecQuerier
	dialect string
}

func (c conn) isPostgres() bool { return c.dialect == dialect.Postgres }

// entDriver is conn as ent wants it. What ent would begin as a transaction of its
// own runs in the one that there is.
func (c conn) entDriver() dialect.Driver {
	return txDriver{entsql.NewDriver(c.dialect, entsql.Conn{ExecQuerier: c.ExecQuerier})}
}

type txDriver struct{ *entsql.Driver }

func (j txDriver) Tx(context.Context) (dialect.Tx, error) { return dialect.NopTx(j), nil }

// Close does nothing: the pool has an owner.
func (j txDriver) Close() error { return nil }

// exec runs a statement and returns how many rows it changed.
func (c conn) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := c.ExecContext(ctx, c.numberParams(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// eachRow runs a query and calls fn for each row with its Scan.
func (c conn) eachRow(ctx context.Context, query string, args []any, fn func(scan func(...any) error) error) error {
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

// queryRow runs a query for one row; found is false if there is none.
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

// insertRows adds rows to a table, in as few statements as their parameters allow.
func (c conn) insertRows(ctx context.Context, table string, columns []string, rows [][]any) error {
	for len(rows) > 0 {
		n := min(len(rows), maxParams/len(columns))
		var args []any
		for _, row := range rows[:n] {
			args = append(args, row...)
		}
		query := fmt.Sprintf("INSERT INTO %s (%s) VALUES %s", table, strings.Join(columns, ", "), paramTuples(n, len(columns)))
		if _, err := c.exec(ctx, query, args...); err != nil {
			return fmt.Errorf("insert into %s: %w", table, err)
		}
		rows = rows[n:]
	}
	return nil
}

// numberParams replaces question marks by what PostgreSQL wants. Statements of this
// package hold none but parameters.
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

// lockClause is what ends a query whose rows stay locked until the commit; nothing on
// SQLite, where the transaction has the whole database.
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

// forChange is forUpdate for rows that others refer to and whose key stays: new
// rows may refer to them meanwhile. To insert a reference takes a lock that FOR
// UPDATE shuts out, late in a transaction that has others already.
func (c conn) forChange(s *entsql.Selector) {
	if c.isPostgres() {
		s.ForUpdate(entsql.WithLockClause("FOR NO KEY UPDATE"))
	}
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

// instant reads a time that a statement returns. SQLite forgets that a column
// is a time once it passes an expression, and then gives its microseconds.
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

// toMicros is the time as it is stored: UTC, whole microseconds.
func toMicros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func toMicrosOrNil(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	m := toMicros(*t)
	return &m
}

// isStorable reports whether a database takes the text. What it does not take
// equals nothing that is stored.
func isStorable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
