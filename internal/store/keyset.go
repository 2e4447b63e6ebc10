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

// keyset is an order of a list: a column, the direction, and how the column's
// value stands in a cursor. The id breaks ties, in the same direction.
type keyset[T any] struct {
	name   string
	column string
	desc   bool
	key    func(T) string
	id     func(T) string
	parse  func(string) (any, error)
}

// slice is a checked request for a page: which rows, in which order, how many.
type slice[T any] struct {
	keyset[T]
	page.Window
	after, before []any // column and id of the row behind and ahead of the page; nil for none
}

// slice checks what a client asks for.
func (k keyset[T]) slice(args page.Args) (slice[T], error) {
	if k.column == "" {
		return slice[T]{}, fault.New(fault.BadInput, "This list has no such order.").At("orderBy")
	}
	w, err := args.Window(k.name)
	s := slice[T]{keyset: k, Window: w}
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

// within restricts a query to the rows between the cursors.
func (s slice[T]) within(q *entsql.Selector) {
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

// descends reports whether rows are read from large to small: a page before a
// cursor is read from its end.
func (s slice[T]) descends() bool { return s.desc != s.Backward }

func (s slice[T]) sort(q *entsql.Selector) {
	direction := entsql.Asc
	if s.descends() {
		direction = entsql.Desc
	}
	q.OrderBy(direction(q.C(s.column)), direction(q.C("id")))
}

// query restricts and sorts a query, and reads one row more than the page has.
func (s slice[T]) query(q *entsql.Selector) {
	s.within(q)
	s.sort(q)
	q.Limit(s.Limit + 1)
}

// toPage makes the page of the rows read.
func (s slice[T]) toPage(rows []T) page.Page[T] {
	return page.Cut(s.Window, rows, func(row T) page.Cursor { return page.Cursor{Order: s.name, Key: s.key(row), ID: s.id(row)} })
}

// query is a query of ent on rows R.
type query[Q, R any, P ~func(*entsql.Selector)] interface {
	Where(ps ...P) Q
	All(ctx context.Context) ([]R, error)
	Count(ctx context.Context) (int, error)
}

// list returns the page of what the query matches that a client asks for.
func list[T, R any, P ~func(*entsql.Selector), Q query[Q, R, P]](
	ctx context.Context, db *DB, matching Q, k keyset[T], args page.Args, to func(R) T,
) (page.Page[T], error) {
	slice, err := k.slice(args)
	if err != nil {
		return page.Page[T]{}, err
	}
	rows, err := matching.Where(slice.query).All(ctx)
	if err != nil {
		return page.Page[T]{}, fmt.Errorf("list by %s of %s: %w", k.column, k.name, db.translate(ctx, err))
	}
	return slice.toPage(mapped(rows, to)), nil
}

// count returns how many rows the query matches.
func count[Q query[Q, R, P], R any, P ~func(*entsql.Selector)](ctx context.Context, db *DB, matching Q) (int, error) {
	n, err := matching.Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count: %w", db.translate(ctx, err))
	}
	return n, nil
}

func timeKey(t time.Time) string { return micro(t).Format(time.RFC3339Nano) }

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
	if !storable(s) {
		return nil, strconv.ErrSyntax
	}
	return s, nil
}

// equal restricts a query to rows with that text. What no database can store
// equals nothing.
func equal(column, s string) func(*entsql.Selector) {
	return func(q *entsql.Selector) {
		if !storable(s) {
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
