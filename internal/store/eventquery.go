package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
)

// branches returns disjoint conditions, one of which holds for exactly what the filter matches.
// For each there is an index that has its rows in order of position, so that a statement which
// wants n rows reads few more of each branch, however long the log is:
//
//   - with an id (of a subject, user, order, service or actor): the index of the id;
//   - with a time and no id: the index of the time, whose range checkTimed bounds;
//   - of the types that a reader sees all or the public events of: the index of the type;
//   - of the types that it sees its own events of: the index of the user;
//   - with neither types nor an audience: the index of the position.
//
// One condition that holds for all would be an OR, for which a database reads every event of the
// types, or the log from its end.
func (db *DB) branches(f event.Filter) []*condition {
	var types []event.Type
	var audience *event.Audience
	timed := false
	conditions := f.Conditions()
	for _, c := range conditions {
		switch c.Dimension {
		case event.ByType:
			types = c.Types
		case event.ByAudience:
			audience = c.Audience
		case event.BySince, event.ByUntil:
			timed = true
		default:
			return []*condition{db.matching(f)}
		}
	}
	switch {
	case timed:
		return []*condition{db.matching(f)}
	case len(conditions) == 0:
		return []*condition{{}}
	case audience == nil:
		return db.typeBranches(event.Audience{All: types}, types)
	default:
		return db.typeBranches(*audience, types)
	}
}

// typeBranches returns the branches of an audience for the wanted types; all if there are none.
func (db *DB) typeBranches(a event.Audience, wanted []event.Type) (branches []*condition) {
	seen := map[event.Type]bool{}
	isNew := func(t event.Type) bool {
		if seen[t] || len(wanted) > 0 && !slices.Contains(wanted, t) {
			return false
		}
		seen[t] = true
		return true
	}
	for _, t := range a.All {
		if isNew(t) {
			branches = append(branches, &condition{clauses: []string{"e.type = ?"}, args: []any{t}})
		}
	}
	own := slices.DeleteFunc(slices.Clone(a.Own), func(t event.Type) bool { return !isNew(t) })
	if len(own) > 0 && a.User != "" {
		c := &condition{}
		c.equal("e.user_id", string(a.User))
		c.in(db.typeWithoutIndex(), toAnys(own))
		branches = append(branches, c)
	}
	for _, t := range a.Public {
		if isNew(t) {
			branches = append(branches, &condition{clauses: []string{"e.type = ?", db.isActive()}, args: []any{t}})
		}
	}
	return branches
}

// readQuery returns the statement that reads the span of the branches.
func (db *DB) readQuery(branches []*condition, span eventlog.Span) (query string, args []any) {
	if len(branches) == 1 {
		where := branches[0]
		where.between(span)
		return fmt.Sprintf(`SELECT %s FROM events AS e WHERE %s ORDER BY %s %s LIMIT ?`, db.logColumns(), where, where.position(), direction(span)),
			append(where.args, span.Limit)
	}
	union, args := unionOf(branches, span)
	return fmt.Sprintf(`SELECT %s FROM (SELECT u.position FROM (%s) AS u ORDER BY u.position %[3]s LIMIT ?) AS n CROSS JOIN events AS e
		WHERE e.position = n.position ORDER BY n.position %[3]s`, db.logColumns(), union, direction(span)), append(args, span.Limit)
}

// countQuery returns the statement that counts the rows of the branches, up to one more than
// eventlog.MaxCount.
func countQuery(branches []*condition) (query string, args []any) {
	union, args := unionOf(branches, eventlog.Span{Limit: eventlog.MaxCount + 1})
	return fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT 1 FROM (%s) AS u LIMIT %d) AS c`, union, eventlog.MaxCount+1), args
}

// unionOf returns a query for the positions in the span, for each of the branches up to the limit.
func unionOf(branches []*condition, span eventlog.Span) (query string, args []any) {
	queries := make([]string, len(branches))
	for i, where := range branches {
		where.between(span)
		queries[i] = fmt.Sprintf(`SELECT b.position FROM (SELECT e.position FROM events AS e WHERE %s ORDER BY %s %s LIMIT ?) AS b`,
			where, where.position(), direction(span))
		args = append(append(args, where.args...), span.Limit)
	}
	return strings.Join(queries, " UNION ALL "), args
}

// condition is what rows must meet: clauses that all hold, with their arguments.
type condition struct {
	clauses []string
	args    []any
	byTime  *condition // the range of time whose index leads; nil if another leads
}

// position returns the position of an event as a term.
func (c *condition) position() string {
	if c.byTime != nil { // its index must not lead
		return "(e.position + 0)"
	}
	return "e.position"
}

// String returns the condition as SQL.
func (c *condition) String() string { return strings.Join(c.clauses, " AND ") }

func (c *condition) add(clause string, args ...any) {
	c.clauses, c.args = append(c.clauses, clause), append(c.args, args...)
}

func (c *condition) in(column string, values []any) {
	if len(values) == 0 {
		c.add("1 = 0")
		return
	}
	c.add(column+" IN ("+paramList(len(values))+")", values...)
}

// equal keeps what no database can store from reaching one: it equals nothing.
func (c *condition) equal(column, value string) {
	if !isStorable(value) {
		c.add("1 = 0")
		return
	}
	c.add(column+" = ?", value)
}

// between leaves out what has no position yet. The bounds are scalar subqueries, whose values
// PostgreSQL does not know when it plans: it then expects that many rows match, and takes the index
// that leads the branch. By its statistics it may expect none, and take any: after a bulk load
// they say that no event has a position.
func (c *condition) between(s eventlog.Span) {
	c.add(c.position()+" > (SELECT CAST(? AS bigint))", int64(s.After))
	if s.Before > 0 {
		c.add(c.position()+" < (SELECT CAST(? AS bigint))", int64(s.Before))
	}
}

// matching returns a filter's conditions as SQL, true for exactly what Conditions.Match takes. A
// dimension that it does not know matches nothing. It is for filters by an id, whose index leads, or else by
// a time. An id of what events concern leads before the actor, who may have done most of the log.
func (db *DB) matching(f event.Filter) *condition {
	where, led := &condition{}, false
	lead := func(column string) string {
		if led {
			return db.withoutIndex(column)
		}
		return column
	}
	for _, c := range f.Conditions() {
		switch c.Dimension {
		case event.ByType:
			where.in(db.typeWithoutIndex(), toAnys(c.Types))
			continue
		case event.BySubject:
			where.equal("e.subject_id", c.ID)
		case event.ByUser:
			where.equal("e.user_id", c.ID)
		case event.ByOrder:
			where.equal("e.order_id", c.ID)
		case event.ByService:
			where.equal("e.service_id", c.ID)
		case event.ByActor:
			where.equal(lead("e.actor"), c.ID)
		case event.BySince:
			where.within(led, lead("e.occurred_at")+" >= ?", c.At)
			continue
		case event.ByUntil:
			where.within(led, lead("e.occurred_at")+" < ?", c.At)
			continue
		case event.ByAudience:
			db.visible(where, c.Audience)
		default:
			where.add("1 = 0")
		}
		led = true
	}
	return where
}

// within adds an end of a range of time, whose index leads if no other has led.
func (c *condition) within(led bool, clause string, at time.Time) {
	c.add(clause, ceilMicros(at))
	if led {
		return
	}
	if c.byTime == nil {
		c.byTime = &condition{}
	}
	c.byTime.add(clause, ceilMicros(at))
}

// ceilMicros returns the first time not before at that the database can store: what has happened since
// then has happened since at.
func ceilMicros(at time.Time) time.Time {
	t := toMicros(at)
	if t.Before(at) {
		t = t.Add(time.Microsecond)
	}
	return t
}

func (db *DB) visible(c *condition, a *event.Audience) {
	all, own, public := &condition{}, &condition{}, &condition{}
	all.in(db.typeWithoutIndex(), toAnys(a.All))
	own.in(db.typeWithoutIndex(), toAnys(a.Own))
	own.equal("e.user_id", string(a.User))
	public.in(db.typeWithoutIndex(), toAnys(a.Public))
	public.add(db.isActive())
	c.add(fmt.Sprintf("(%s OR %s OR %s)", all, own, public), slices.Concat(all.args, own.args, public.args)...)
}

// isActive is the condition that the snapshot of a product says it was active.
func (db *DB) isActive() string {
	if db.isPostgres() {
		return `e.data->>'active' = 'true'`
	}
	return `json_extract(e.data, '$.active') = 1`
}

// typeWithoutIndex returns the type of an event as a term for which the database uses no index,
// where another column leads the branch.
func (db *DB) typeWithoutIndex() string { return db.withoutIndex("e.type") }

// withoutIndex returns a column of the log as a term for which the database uses no index.
func (db *DB) withoutIndex(column string) string {
	switch {
	case !db.isPostgres():
		return "+" + column
	case column == "e.occurred_at":
		return "(e.occurred_at + INTERVAL '0')"
	default:
		return "(" + column + " || '')"
	}
}
