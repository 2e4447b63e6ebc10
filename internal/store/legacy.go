package store

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

// legacyIDBatch is how many candidate numbers one statement looks up.
const legacyIDBatch = 500

// assignLegacyID gives a new object of the table the next free number as its legacy id, if
// it has none and AssignLegacyIDs is set. The lock on the counter is the last that a
// transaction takes, and held until its commit.
func (t *tx) assignLegacyID(ctx context.Context, table string, id **string, events []event.Event) error {
	if !t.db.cfg.AssignLegacyIDs || *id != nil {
		return nil
	}
	n, err := t.nextLegacyID(ctx, table)
	if err != nil {
		return err
	}
	s := strconv.FormatInt(n, 10)
	*id, t.assigned = &s, true
	for i := range events {
		events[i].Data = withLegacyID(events[i].Data, s)
	}
	return nil
}

func (t *tx) nextLegacyID(ctx context.Context, table string) (int64, error) {
	counter := "legacy." + table
	var last int64
	if _, err := t.queryRow(ctx, `INSERT INTO settings (name, number) VALUES (?, 0)
		ON CONFLICT (name) DO UPDATE SET number = settings.number RETURNING number`, []any{counter}, &last); err != nil {
		return 0, err
	}
	next := last + 1
	for {
		free, found, err := t.findFreeLegacyID(ctx, table, next)
		if err != nil {
			return 0, err
		}
		if found {
			_, err := t.exec(ctx, `UPDATE settings SET number = ? WHERE name = ?`, free, counter)
			return free, err
		}
		next += legacyIDBatch
	}
}

// findFreeLegacyID returns the first of the next legacyIDBatch numbers that no object has.
func (t *tx) findFreeLegacyID(ctx context.Context, table string, from int64) (free int64, found bool, err error) {
	candidates := make([]any, legacyIDBatch)
	for i := range candidates {
		candidates[i] = strconv.FormatInt(from+int64(i), 10)
	}
	has := map[string]bool{}
	err = t.eachRow(ctx, `SELECT legacy_id FROM `+table+` WHERE legacy_id IN (`+paramList(legacyIDBatch)+`)`, candidates, func(scan func(...any) error) error {
		var s string
		err := scan(&s)
		has[s] = true
		return err
	})
	for i, s := range candidates {
		if !has[s.(string)] {
			return from + int64(i), err == nil, err
		}
	}
	return 0, false, err
}

// withLegacyID adds the legacy id to a snapshot that was taken before the object had one.
// In JSON an unescaped "legacyId" is always a name, never part of a string.
func withLegacyID(data json.RawMessage, id string) json.RawMessage {
	field := []byte(`"legacyId":` + strconv.Quote(id))
	if empty := []byte(`"legacyId":null`); bytes.Contains(data, empty) {
		return bytes.Replace(data, empty, field, 1)
	}
	return append(append(bytes.TrimSuffix(bytes.Clone(data), []byte("}")), ','), append(field, '}')...)
}

func isLegacyTaken(err error) bool {
	taken := uniqueViolations[violatedIndex(err)]
	return taken != nil && taken.Code == fault.LegacyIDTaken
}
