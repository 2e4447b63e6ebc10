package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Lists of many parents are read in one statement. It runs a query of the list for each parent, which
// is bounded and uses the index in the order of the list: numbering the rows of all parents instead reads all
// of them. The query refers to the parent as u.id.

// eachPerParent runs the query of a list, for each of the users; fn gets the Scan of rows with the columns. order is how
// rows o of the table are sorted.
func (db *DB) eachPerParent(ctx context.Context, table string, columns []string, query *entsql.Selector, order string, users []uid.User, fn func(scan func(...any) error) error) error {
	all := "o." + strings.Join(columns, ", o.")
	if db.isPostgres() {
		text, args := query.Select(query.Columns(columns...)...).Query()
		return db.listConn().eachRow(ctx, fmt.Sprintf(`SELECT %s FROM unnest(CAST($%d AS text[])) AS u (id) CROSS JOIN LATERAL (%s) AS o ORDER BY %s`,
			all, len(args)+1, text, order), append(args, users), fn)
	}
	ids, err := json.Marshal(users)
	if err != nil {
		return err
	}
	text, args := query.Select(query.C("id")).Query()
	return db.readConn().eachRow(ctx, fmt.Sprintf(`SELECT %s FROM (SELECT value AS id FROM json_each(?)) AS u CROSS JOIN %s AS o ON o.id IN (%s) ORDER BY %s`,
		all, table, text, order), append([]any{string(ids)}, args...), fn)
}

// perParent returns a query on a table for the rows whose column names the parent.
func (db *DB) perParent(table, column string) *entsql.Selector {
	b := entsql.Dialect(db.dialect)
	q := b.Select("id").From(b.Table(table))
	return q.Where(entsql.ColumnsEQ(q.C(column), b.Table("u").C("id")))
}

// countPerParent counts the rows of a query for each of the users; fn gets the Scan of rows of id and number.
func (db *DB) countPerParent(ctx context.Context, query *entsql.Selector, users []uid.User, fn func(scan func(...any) error) error) error {
	text, args := query.Query()
	if db.isPostgres() {
		return db.listConn().eachRow(ctx, fmt.Sprintf(`SELECT u.id, (SELECT COUNT(*) FROM (%s) AS c) FROM unnest(CAST($%d AS text[])) AS u (id)`,
			text, len(args)+1), append(args, users), fn)
	}
	ids, err := json.Marshal(users)
	if err != nil {
		return err
	}
	return db.readConn().eachRow(ctx, fmt.Sprintf(`SELECT u.id, (SELECT COUNT(*) FROM (%s) AS c) FROM (SELECT value AS id FROM json_each(?)) AS u`, text),
		append(slices.Clone(args), string(ids)), fn)
}

// listConn is readConn for lists and counts.
func (db *DB) listConn() conn {
	c := db.readConn()
	if db.isPostgres() {
		c.ExecQuerier = unprepared{c.ExecQuerier}
	}
	return c
}

// unprepared runs queries of PostgreSQL with a plan for the values of their parameters. Prepared statements get
// one for any values after five executions: for a status that is rare, or a date that few rows reach, it may
// read all of a table.
type unprepared struct{ entsql.ExecQuerier }

// QueryContext implements entsql.ExecQuerier.
func (u unprepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return u.ExecQuerier.QueryContext(ctx, query, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

// oneOfValues restricts a query to rows whose column has one of the values: on PostgreSQL by one parameter, so that
// there is one statement for any number of them.
func oneOfValues[T ~string](column string, values []T) func(*entsql.Selector) {
	return func(q *entsql.Selector) {
		if q.Dialect() == "postgres" {
			q.Where(entsql.P(func(b *entsql.Builder) { b.Ident(q.C(column)).WriteString(" = ANY(").Arg(values).WriteByte(')') }))
			return
		}
		q.Where(entsql.In(q.C(column), toAnys(values)...))
	}
}
