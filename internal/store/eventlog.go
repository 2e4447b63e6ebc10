package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Events implements eventlog.Store: the log as its readers see it.
type Events struct{ db *DB }

var _ eventlog.Store = Events{}

// Events returns the store of the log.
func (db *DB) Events() Events { return Events{db} }

// LogReader is Events for the node's one reader of the log, on a connection of its own: it
// waits behind no request.
func (db *DB) LogReader() Events { return Events{db.withReads(db.logReader)} }

// State implements eventlog.Store. The oldest event is looked for behind what the
// cleaner has removed: what it left in the index may still be there.
func (s Events) State(ctx context.Context) (eventlog.State, error) {
	var st eventlog.State
	var behind int64 // in microseconds
	query := `SELECT t.id, h.head, COALESCE((SELECT MIN(position) FROM events WHERE position > COALESCE(
			(SELECT position FROM readers WHERE name = '` + eventlog.CleanerLease + `'), 0)), h.head + 1), ` + s.behind() + ` FROM timelines AS t, ` + s.head()
	found, err := s.db.readConn().queryRow(ctx, query, nil, &st.Timeline, &st.Head, &st.Oldest, &behind)
	if err != nil || !found {
		return st, fmt.Errorf("read the state of the log: %w", s.db.translateError(ctx, orNoRow(found, err)))
	}
	st.Behind = time.Duration(behind) * time.Microsecond
	return st, nil
}

// behind is for how many microseconds something may have been waiting for a
// position. It is sorted so that only the index of what waits will do, see
// Sequence.Number.
func (s Events) behind() string {
	if !s.db.isPostgres() {
		return `0`
	}
	return `CASE WHEN (SELECT 1 FROM events WHERE position IS NULL AND seq >= (SELECT low_seq FROM sequencer) ORDER BY position, seq LIMIT 1) IS NULL THEN 0
		ELSE CAST(GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - COALESCE(h.numbered_at, 'epoch')) * 1000000) AS bigint) END`
}

// head is a table of one row: the last position that was given.
func (s Events) head() string {
	if s.db.isPostgres() {
		return `sequencer AS h`
	}
	return `(SELECT COALESCE(MAX(seq), 0) AS head FROM sqlite_sequence WHERE name = 'events') AS h`
}

// Pending implements eventlog.Store by the index of what waits for a position.
func (s Events) Pending(ctx context.Context, limit int) (found []*event.Event, err error) {
	if !s.db.isPostgres() {
		return nil, nil
	}
	err = s.db.readConn().eachRow(ctx, `SELECT id, type, subject_id FROM events WHERE position IS NULL AND seq >= (SELECT low_seq FROM sequencer)
		ORDER BY position, seq LIMIT ?`, []any{limit}, func(scan func(...any) error) error {
		var e event.Event
		found = append(found, &e)
		return scan(&e.ID, &e.Type, &e.SubjectID)
	})
	if err != nil {
		return nil, fmt.Errorf("read the events without a position: %w", s.db.translateError(ctx, err))
	}
	return found, nil
}

func orNoRow(found bool, err error) error {
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

// logColumns are what scanEvent reads.
func (db *DB) logColumns() string {
	return `e.position, e.id, e.type, e.occurred_at, e.actor, e.subject_id, e.subject_version, e.user_id, e.order_id, e.service_id, ` +
		db.readConn().visibleData("e") + `, e.touched, (SELECT id FROM timelines)`
}

// Read implements eventlog.Store.
func (s Events) Read(ctx context.Context, f event.Filter, span eventlog.Span) ([]*event.Event, error) {
	branches := s.db.branches(f)
	if len(branches) == 0 {
		return nil, nil
	}
	if err := s.checkTimed(ctx, branches); err != nil {
		return nil, err
	}
	query, args := s.db.readQuery(branches, span)
	var found []*event.Event
	err := s.each(ctx, query, args, func(e *event.Event) { found = append(found, e) })
	return found, err
}

// checkTimed refuses a range of time with more than eventlog.MaxTimed events, where its index leads: in the order of the
// log they are all read for each page.
func (s Events) checkTimed(ctx context.Context, branches []*condition) error {
	within := branches[0].byTime
	if within == nil {
		return nil
	}
	var n int
	if _, err := s.db.readConn().queryRow(ctx, fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT 1 FROM events AS e WHERE %s LIMIT %d) AS c`, within, eventlog.MaxTimed+1),
		within.args, &n); err != nil {
		return fmt.Errorf("count events by time: %w", s.db.translateError(ctx, err))
	}
	if n > eventlog.MaxTimed {
		return eventlog.TooManyTimed()
	}
	return nil
}

// ReadOrders implements eventlog.Store. Each order's events are numbered, and as
// many of them read as the span has.
func (s Events) ReadOrders(ctx context.Context, orders []uid.Order, f event.Filter, span eventlog.Span) (map[uid.Order][]*event.Event, error) {
	found := make(map[uid.Order][]*event.Event, len(orders))
	for some := range slices.Chunk(orders, maxIDs) {
		where := s.db.matching(f)
		where.between(span)
		where.in("e.order_id", toAnys(some))
		query := fmt.Sprintf(`SELECT %s FROM events AS e JOIN (SELECT e.seq, ROW_NUMBER() OVER (PARTITION BY e.order_id ORDER BY e.position %[3]s) AS place
			FROM events AS e WHERE %[2]s) AS n ON n.seq = e.seq WHERE n.place <= ? ORDER BY e.position %[3]s`, s.db.logColumns(), where, direction(span))
		err := s.each(ctx, query, append(where.args, span.Limit), func(e *event.Event) {
			id := orderOf(e)
			found[id] = append(found[id], e)
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Count implements eventlog.Store.
func (s Events) Count(ctx context.Context, f event.Filter) (n int, err error) {
	branches := s.db.branches(f)
	if len(branches) == 0 {
		return 0, nil
	}
	if err := s.checkTimed(ctx, branches); err != nil {
		return 0, err
	}
	query, args := countQuery(branches)
	if _, err = s.db.readConn().queryRow(ctx, query, args, &n); err != nil {
		return 0, fmt.Errorf("count events: %w", s.db.translateError(ctx, err))
	}
	return n, nil
}

// CountOrders implements eventlog.Store.
func (s Events) CountOrders(ctx context.Context, orders []uid.Order, f event.Filter) (map[uid.Order]int, error) {
	counts := make(map[uid.Order]int, len(orders))
	for some := range slices.Chunk(orders, maxIDs) {
		where, ids := s.db.matching(f), &condition{}
		where.between(eventlog.Span{})
		ids.in("o.id", toAnys(some))
		query := fmt.Sprintf(`SELECT o.id, (SELECT COUNT(*) FROM (SELECT 1 FROM events AS e WHERE e.order_id = o.id AND %s LIMIT %d) AS c)
			FROM orders AS o WHERE %s`, where, eventlog.MaxCount+1, ids)
		if err := s.db.readConn().eachRow(ctx, query, slices.Concat(where.args, ids.args), countsInto(counts)); err != nil {
			return nil, fmt.Errorf("count events of orders: %w", s.db.translateError(ctx, err))
		}
	}
	return counts, nil
}

// countsInto reads rows of an id and a number.
func countsInto[ID ~string](counts map[ID]int) func(scan func(...any) error) error {
	return func(scan func(...any) error) error {
		var id ID
		var n int
		err := scan(&id, &n)
		counts[id] = n
		return err
	}
}

// ByIDs implements eventlog.Store.
func (s Events) ByIDs(ctx context.Context, ids []uid.Event) (map[uid.Event]*event.Event, error) {
	found := make(map[uid.Event]*event.Event, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		where := &condition{}
		where.between(eventlog.Span{})
		where.in("e.id", toAnys(some))
		err := s.each(ctx, fmt.Sprintf(`SELECT %s FROM events AS e WHERE %s`, s.db.logColumns(), where), where.args,
			func(e *event.Event) { found[e.ID] = e })
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (s Events) each(ctx context.Context, query string, args []any, fn func(*event.Event)) error {
	var timeline string // one text for all
	err := s.db.readConn().eachRow(ctx, query, args, func(scan func(...any) error) error {
		e, err := scanEvent(scan, &timeline)
		if err != nil {
			return err
		}
		fn(e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the log: %w", s.db.translateError(ctx, err))
	}
	return nil
}

func scanEvent(scan func(...any) error, timeline *string) (*event.Event, error) {
	var (
		e             event.Event
		at            instant
		user, order   sql.NullString
		service       sql.NullString
		data, touched sql.RawBytes
		line          sql.RawBytes
	)
	if err := scan(&e.Cursor.Position, &e.ID, &e.Type, &at, &e.Actor, &e.SubjectID, &e.SubjectVersion, &user, &order, &service, &data, &touched, &line); err != nil {
		return nil, err
	}
	if string(line) != *timeline {
		*timeline = string(line)
	}
	e.Cursor.Timeline, e.OccurredAt, e.Data = *timeline, at.Time, slices.Clone(json.RawMessage(data))
	e.Public = event.IsPublic(e.Type, e.Data)
	for _, id := range []sql.NullString{user, order, service} {
		if id.Valid && id.String != e.SubjectID {
			e.Related = append(e.Related, id.String)
		}
	}
	if len(touched) > 0 {
		if err := json.Unmarshal(touched, &e.Touched); err != nil {
			return nil, fmt.Errorf("decode the touched rows of %s: %w", e.ID, err)
		}
	}
	return &e, nil
}

func orderOf(e *event.Event) uid.Order {
	_, order, _ := concerns(*e)
	id, _ := order.(string)
	return uid.Order(id)
}

func direction(s eventlog.Span) string {
	if s.Backward {
		return "DESC"
	}
	return "ASC"
}
