package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
)

// maxIDs bounds the lists that one statement is given.
const maxIDs = 1000

// keyset is a sort order for keyset pagination: a column, the direction, and how a cursor
// encodes the column's value. The id breaks ties, in the same direction.
type keyset[T any] struct {
	name   string
	column string
	desc   bool
	key    func(T) string
	id     func(T) string
	parse  func(string) (any, error)
}

// pageQuery is a validated request for a page: which rows, in which order, how many.
type pageQuery[T any] struct {
	keyset[T]
	page.Window
	after, before []any // column and id of the row behind and ahead of the page; nil for none
}

// parseArgs validates the order, the limits and the cursors that a client sends.
func (k keyset[T]) parseArgs(args page.Args) (pageQuery[T], error) {
	if k.column == "" {
		return pageQuery[T]{}, fault.New(fault.BadInput, "This list has no such order.").At("orderBy")
	}
	w, err := args.Window(k.name)
	s := pageQuery[T]{keyset: k, Window: w}
	if err != nil {
		return s, err
	}
	if s.after, err = k.parseCursor(w.After, "after"); err != nil {
		return s, err
	}
	s.before, err = k.parseCursor(w.Before, "before")
	return s, err
}

func (k keyset[T]) parseCursor(c *page.Cursor, name string) ([]any, error) {
	if c == nil {
		return nil, nil
	}
	value, err := k.parse(c.Key)
	if err != nil {
		return nil, fault.New(fault.CursorInvalid, "This cursor does not come from a list in this order.").At(name)
	}
	return []any{value, c.ID}, nil
}

// restrictRows restricts a query to the rows between the cursors.
func (s pageQuery[T]) restrictRows(q *entsql.Selector) {
	columns := []string{q.C(s.column), q.C("id")}
	behind, ahead := entsql.CompositeGT, entsql.CompositeLT
	if s.desc {
		behind, ahead = ahead, behind
	}
	if s.after != nil {
		q.Where(behind(columns, s.after...))
	}
	if s.before != nil {
		q.Where(ahead(columns, s.before...))
	}
}

// isDescending reports whether rows are read in descending order: a page before a
// cursor is read from its end.
func (s pageQuery[T]) isDescending() bool { return s.desc != s.Backward }

func (s pageQuery[T]) sortRows(q *entsql.Selector) {
	direction := entsql.Asc
	if s.isDescending() {
		direction = entsql.Desc
	}
	q.OrderBy(direction(q.C(s.column)), direction(q.C("id")))
}

// orderOf returns how rows of an alias are sorted, in SQL.
func (s pageQuery[T]) orderOf(alias string) string {
	direction := "ASC"
	if s.isDescending() {
		direction = "DESC"
	}
	return fmt.Sprintf("%[1]s.%[2]s %[3]s, %[1]s.id %[3]s", alias, s.column, direction)
}

// applyTo restricts and sorts a query, and reads one row more than the page has.
func (s pageQuery[T]) applyTo(q *entsql.Selector) {
	s.restrictRows(q)
	s.sortRows(q)
	q.Limit(s.Limit + 1)
	if s.Skip > 0 {
		q.Offset(s.Skip)
	}
}

// toPage returns the page of the rows read.
func (s pageQuery[T]) toPage(rows []T) page.Page[T] {
	return page.Cut(s.Window, rows, func(row T) page.Cursor { return page.Cursor{Order: s.name, Key: s.key(row), ID: s.id(row)} })
}

// entQuery is a query of ent that returns rows of type R.
type entQuery[Q, R any, P ~func(*entsql.Selector)] interface {
	Where(ps ...P) Q
	All(ctx context.Context) ([]R, error)
	Count(ctx context.Context) (int, error)
}

// listPage returns the page that args asks for of the rows that match the filter f, in
// the order k. It refuses what query refuses, then an unknown order and wrong args.
func listPage[F, T, R any, P ~func(*entsql.Selector), Q entQuery[Q, R, P]](
	ctx context.Context, db *DB, query func(F) (Q, error), f F, k keyset[T], args page.Args, to func(R) T,
) (page.Page[T], error) {
	q, err := query(f)
	if err != nil {
		return page.Page[T]{}, err
	}
	s, err := k.parseArgs(args)
	if err != nil {
		return page.Page[T]{}, err
	}
	rows, err := q.Where(s.applyTo).All(ctx)
	if err != nil {
		return page.Page[T]{}, fmt.Errorf("list by %s of %s: %w", k.column, k.name, db.translateError(ctx, err))
	}
	return s.toPage(mapSlice(rows, to)), nil
}

// countRows returns how many rows match the filter f; page.MaxCount+1 stands for all numbers above page.MaxCount.
func countRows[F any, Q entQuery[Q, R, P], R any, P ~func(*entsql.Selector)](
	ctx context.Context, db *DB, query func(F) (Q, error), f F,
) (int, error) {
	q, err := query(f)
	if err != nil {
		return 0, err
	}
	n, err := q.Where(limitCount).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count: %w", db.translateError(ctx, err))
	}
	return n, nil
}

// limitCount restricts a query that counts to so many of the rows that match what was said before it.
func limitCount(q *entsql.Selector) {
	some := entsql.Dialect(q.Dialect()).Select(q.C("id")).From(q.Table()).SetP(q.P()).Limit(page.MaxCount + 1)
	q.From(some.As("counted")).SetP(nil).As("counted") // also names the column that is counted
}

func timeKey(t time.Time) string { return toMicros(t).Format(time.RFC3339Nano) }

func parseTime(s string) (any, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err == nil && timeKey(t) != s {
		err = strconv.ErrSyntax
	}
	return t.UTC(), err
}

func intKey(n int64) string { return strconv.FormatInt(n, 10) }

func parseInt(s string) (any, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && intKey(n) != s {
		err = strconv.ErrSyntax
	}
	return n, err
}

func parseText(s string) (any, error) {
	if !isStorable(s) {
		return nil, strconv.ErrSyntax
	}
	return s, nil
}

// equalsText restricts a query to rows whose column has that text. Text that no database
// can store matches no row.
func equalsText(column, s string) func(*entsql.Selector) {
	return func(q *entsql.Selector) {
		if !isStorable(s) {
			q.Where(entsql.False())
			return
		}
		q.Where(entsql.EQ(q.C(column), s))
	}
}

func checkList(name string, n int) error {
	if n > maxIDs {
		return fault.New(fault.BadInput, "%s lists at most %d values, not %d.", name, maxIDs, n).At("filter", name)
	}
	return nil
}
