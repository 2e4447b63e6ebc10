package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// redacted is what the log keeps of a snapshot whose subject was deleted.
const redacted = `{"redacted":true}`

// eventColumns are the columns of an event but seq and position.
var eventColumns = []string{
	"id", "type", "occurred_at", "actor", "subject_id", "subject_version", "user_id", "order_id", "service_id", "data", "touched",
}

// insertEvents stores what the transaction recorded: at its end, when the rows
// of all subjects are locked, so that the events of one subject get their
// places in the order of its changes.
func (t *tx) insertEvents(ctx context.Context) error {
	if len(t.events) == 0 {
		return nil
	}
	actor := auth.From(ctx).Actor()
	rows := make([][]any, len(t.events))
	for i, e := range t.events {
		rows[i] = eventRow(e, actor)
	}
	if len(t.touched) > 0 {
		list, err := json.Marshal(t.touched)
		if err != nil {
			return fmt.Errorf("encode the list of touched rows: %w", err)
		}
		rows[0][len(eventColumns)-1] = string(list)
	}
	return t.appendLog(ctx, rows)
}

// appendLog adds rows to the log. PostgreSQL leaves the position to the
// sequencer. SQLite has one writer, so the place in the log is the position:
// it is the same number, and dense, as a rollback gives it back.
func (c conn) appendLog(ctx context.Context, rows [][]any) error {
	if c.isPostgres() {
		return c.insertRows(ctx, "events", eventColumns, rows)
	}
	for i, row := range rows {
		rows[i] = append([]any{i%logBatch + 1}, row...)
	}
	for batch := range slices.Chunk(rows, logBatch) {
		query := fmt.Sprintf(`INSERT INTO events (seq, position, %s) SELECT head.seq + column1, head.seq + %s FROM (VALUES %s),
			(SELECT COALESCE(MAX(seq), 0) AS seq FROM sqlite_sequence WHERE name = 'events') AS head`,
			strings.Join(eventColumns, ", "), valueColumns(len(eventColumns)+1), paramTuples(len(batch), len(eventColumns)+1))
		if _, err := c.exec(ctx, query, slices.Concat(batch...)...); err != nil {
			return fmt.Errorf("append to the log: %w", err)
		}
	}
	return nil
}

// logBatch is how many events one statement adds on SQLite.
const logBatch = 500

// valueColumns returns the names that SQLite gives to the columns of VALUES.
func valueColumns(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("column%d", i+1)
	}
	return strings.Join(names, ", ")
}

func eventRow(e event.Event, actor string) []any {
	if e.ID == "" {
		e.ID = uid.NewEvent(e.OccurredAt)
	}
	if e.Actor == "" {
		e.Actor = actor
	}
	user, order, service := concerns(e)
	return []any{
		string(e.ID), string(e.Type), toMicros(e.OccurredAt), e.Actor, e.SubjectID, e.SubjectVersion, user, order, service, string(e.Data), nil,
	}
}

// concerns returns the user, the order and the service that an event is about,
// subject or related; nil for none.
func concerns(e event.Event) (user, order, service any) {
	for _, id := range append([]string{e.SubjectID}, e.Related...) {
		if uid.Is(uid.KindUser, id) {
			user = id
		}
		if uid.Is(uid.KindOrder, id) {
			order = id
		}
		if uid.Is(uid.KindService, id) {
			service = id
		}
	}
	return user, order, service
}
