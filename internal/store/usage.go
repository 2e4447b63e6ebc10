package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entusage "github.com/backplane-dev/backplane/ent/legacyusage"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/page"
)

// LegacyUsage implements legacy.Store.
type LegacyUsage struct{ db *DB }

var _ legacy.Store = LegacyUsage{}

// LegacyUsage returns the store of the usage of legacy REST routes.
func (db *DB) LegacyUsage() LegacyUsage { return LegacyUsage{db} }

// usageColumns are the columns of the table.
var usageColumns = []string{"id", "route", "client", "calls", "first_seen_at", "last_seen_at"}

// Add implements legacy.Store. Rows are written in the order of their ids, so that
// nodes that store at once wait for one another and do not deadlock.
func (s LegacyUsage) Add(ctx context.Context, usage []legacy.Usage, b legacy.Bounds) error {
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		kept, err := t.fitToBounds(ctx, usage, b)
		if err != nil {
			return err
		}
		for batch := range slices.Chunk(kept, maxIDs) {
			if err := t.addUsage(ctx, batch); err != nil {
				return err
			}
		}
		return t.addDays(ctx, legacy.ByDay(usage), b)
	})
	if err != nil {
		return fmt.Errorf("add legacy usage: %w", err)
	}
	return nil
}

func (t *tx) addUsage(ctx context.Context, usage []legacy.Usage) error {
	var args []any
	for _, u := range usage {
		args = append(args, u.ID(), u.Route, u.Client, u.Calls, toMicros(u.FirstSeenAt), toMicros(u.LastSeenAt))
	}
	_, err := t.exec(ctx, `INSERT INTO legacy_usage (`+strings.Join(usageColumns, ", ")+`) VALUES `+paramTuples(len(usage), len(usageColumns))+`
		ON CONFLICT (id) DO UPDATE SET calls = legacy_usage.calls + excluded.calls,
		last_seen_at = CASE WHEN excluded.last_seen_at > legacy_usage.last_seen_at THEN excluded.last_seen_at ELSE legacy_usage.last_seen_at END`, args...)
	return err
}

// addDays adds the calls of days, sorted by id.
func (t *tx) addDays(ctx context.Context, days []legacy.DayUsage, b legacy.Bounds) error {
	if !b.Stale.IsZero() {
		if _, err := t.exec(ctx, `DELETE FROM legacy_days WHERE id < ?`, b.Stale.UTC().Format(time.DateOnly)); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(days, maxIDs) {
		var args []any
		for _, d := range batch {
			args = append(args, d.ID(), d.Day, d.Route, d.Calls)
		}
		if _, err := t.exec(ctx, `INSERT INTO legacy_days (id, day, route, calls) VALUES `+paramTuples(len(batch), 4)+`
			ON CONFLICT (id) DO UPDATE SET calls = legacy_days.calls + excluded.calls`, args...); err != nil {
			return err
		}
	}
	return nil
}

// Days returns the calls of the routes on each day from the given one on, the oldest first.
func (s LegacyUsage) Days(ctx context.Context, from time.Time) (days []legacy.DayUsage, err error) {
	err = s.db.readConn().eachRow(ctx, `SELECT day, route, calls FROM legacy_days WHERE id >= ? ORDER BY id LIMIT ?`,
		[]any{from.UTC().Format(time.DateOnly), legacy.MaxDays}, func(scan func(...any) error) error {
			var d legacy.DayUsage
			err := scan(&d.Day, &d.Route, &d.Calls)
			days = append(days, d)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read legacy usage by day: %w", s.db.translateError(ctx, err))
	}
	return days, nil
}

// fitToBounds returns the usage to store, sorted by id: it deletes stale rows if the table
// is full, and then counts new clients without room as legacy.Others. Two nodes may each
// find the last room: the table exceeds its bound by at most a flush of each.
func (t *tx) fitToBounds(ctx context.Context, usage []legacy.Usage, b legacy.Bounds) ([]legacy.Usage, error) {
	var rows int
	if _, err := t.queryRow(ctx, `SELECT COUNT(*) FROM legacy_usage`, nil, &rows); err != nil {
		return nil, err
	}
	if rows+len(usage) > b.Rows {
		gone, err := t.exec(ctx, `DELETE FROM legacy_usage WHERE last_seen_at < ?`, toMicros(b.Stale))
		if err != nil {
			return nil, err
		}
		rows -= int(gone)
	}
	if rows+len(usage) > b.Rows {
		known, err := t.knownUsage(ctx, usage)
		if err != nil {
			return nil, err
		}
		usage = foldIntoOthers(usage, known, b.Rows-rows)
	}
	return slices.SortedFunc(slices.Values(usage), func(a, b legacy.Usage) int { return strings.Compare(a.ID(), b.ID()) }), nil
}

func (t *tx) knownUsage(ctx context.Context, usage []legacy.Usage) (map[string]bool, error) {
	known := map[string]bool{}
	for batch := range slices.Chunk(usage, maxIDs) {
		ids := mapSlice(batch, func(u legacy.Usage) any { return u.ID() })
		err := t.eachRow(ctx, `SELECT id FROM legacy_usage WHERE id IN (`+paramList(len(ids))+`)`, ids, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			known[id] = true
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return known, nil
}

// foldIntoOthers adds the calls of unknown clients to legacy.Others of their route once no
// room is left. Known clients have a row already.
func foldIntoOthers(usage []legacy.Usage, known map[string]bool, room int) []legacy.Usage {
	others := map[string]legacy.Usage{} // by route
	var kept []legacy.Usage
	for _, u := range usage {
		switch {
		case u.Client == legacy.Others:
		case known[u.ID()]:
			kept = append(kept, u)
			continue
		case room > 0:
			room--
			kept = append(kept, u)
			continue
		}
		u.Route = legacy.PlainRoute(u.Route)
		all, there := others[u.Route]
		if !there {
			all = legacy.Usage{Route: u.Route, Client: legacy.Others, FirstSeenAt: u.FirstSeenAt, LastSeenAt: u.LastSeenAt}
		}
		all.Calls += u.Calls
		if u.LastSeenAt.After(all.LastSeenAt) {
			all.LastSeenAt = u.LastSeenAt
		}
		others[u.Route] = all
	}
	for _, u := range others {
		kept = append(kept, u)
	}
	return kept
}

// usageByRoute is the order of the list.
var usageByRoute = keyset[*legacy.Usage]{
	"ROUTE_ASC", entusage.FieldRoute, false,
	func(u *legacy.Usage) string { return u.Route }, (*legacy.Usage).ID, parseText,
}

// List implements legacy.Store.
func (s LegacyUsage) List(ctx context.Context, args page.Args) (page.Page[*legacy.Usage], error) {
	return listPage(ctx, s.db, s.queryAll, struct{}{}, usageByRoute, args, toUsage)
}

// Count implements legacy.Store.
func (s LegacyUsage) Count(ctx context.Context) (int, error) {
	return countRows(ctx, s.db, s.queryAll, struct{}{})
}

// queryAll takes no filter: a list of usage has none.
func (s LegacyUsage) queryAll(struct{}) (*ent.LegacyUsageQuery, error) {
	return s.db.lists.LegacyUsage.Query(), nil
}

func toUsage(row *ent.LegacyUsage) *legacy.Usage {
	return &legacy.Usage{
		Route: row.Route, Client: row.Client, Calls: row.Calls, FirstSeenAt: row.FirstSeenAt.UTC(), LastSeenAt: row.LastSeenAt.UTC(),
	}
}
