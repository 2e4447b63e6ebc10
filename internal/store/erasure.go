package store

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/user"
)

// What an account's deletion removes besides its row, its credentials and its keys may be hundreds of thousands of
// rows: what the log and dead letters say of the person, and the notes of its orders. The deletion only
// records an erasure, from when on every read of these tables shows the data blanked (visibleData), and EraseNext
// blanks the rows, in transactions of a few hundred. An erasure is a row, so it survives a crash of any node, and its lock
// is the lease of the node that works on it.

// eraseBatch bounds how many rows of a table one transaction blanks.
const eraseBatch = 500

// erasureMargin is how much later than the deletion an event may have occurred, by the time of its node, that was
// recorded before.
const erasureMargin = time.Second

// erasurePause is the time between the two rounds of an erasure. The second finds what
// transactions stored that were under way at the deletion, none of which lasts so long.
const erasurePause = 2 * time.Minute

// erasePersonalData removes how the person signed in, and records the erasure of the rest. The events of this
// transaction say nothing personal.
func (t *tx) erasePersonalData(ctx context.Context, u *user.User) error {
	for _, statement := range []string{
		`DELETE FROM credentials WHERE user_id = ?`, `DELETE FROM sessions WHERE user_id = ?`, `DELETE FROM api_keys WHERE user_id = ?`,
	} {
		if _, err := t.exec(ctx, statement, string(u.ID)); err != nil {
			return fmt.Errorf("forget: %w", err)
		}
	}
	now := t.db.clock.Now()
	_, err := t.exec(ctx, `INSERT INTO erasures (user_id, requested_at, covers_until, position, due_at) VALUES (?, ?, ?, 0, ?) ON CONFLICT (user_id) DO NOTHING`,
		string(u.ID), now, toMicros(u.UpdatedAt.Add(erasureMargin)), now)
	return err
}

// visibleData is the data of a row of events or dead_letters as readers see it: blanked while the erasure of
// its user goes on. Without any erasure a database looks at nothing else.
func (c conn) visibleData(row string) string {
	return fmt.Sprintf(`CASE WHEN EXISTS (SELECT 1 FROM erasures) AND %[1]s.type <> '%[2]s'
		AND %[1]s.occurred_at <= (SELECT x.covers_until FROM erasures AS x WHERE x.user_id = %[1]s.user_id) THEN %[3]s ELSE %[1]s.data END`,
		row, event.UserDeleted, c.blankedData(row))
}

// blankedData is the data of a row of events or dead_letters without what is personal of its user: nothing
// of the user's own, and that of orders but for what was written in them.
func (c conn) blankedData(row string) string {
	text, order := `'`+redacted+`'`, `json_remove(`+row+`.data, '$.reason')`
	if c.isPostgres() {
		text, order = text+`::json`, `(`+row+`.data::jsonb - 'reason')::json`
	}
	return fmt.Sprintf(`CASE WHEN %s.order_id IS NULL THEN %s ELSE %s END`, row, text, order)
}

// isPersonal is the condition that blankedData differs from the data of the row. It has a parameter: until when the event
// occurred.
func (c conn) isPersonal(row string) string {
	reason := `json_type(` + row + `.data, '$.reason') IS NOT NULL`
	if c.isPostgres() {
		reason = row + `.data->'reason' IS NOT NULL`
	}
	return fmt.Sprintf(`%[1]s.type <> '%[2]s' AND %[1]s.occurred_at <= ? AND (%[1]s.order_id IS NULL AND CAST(%[1]s.data AS text) <> '%[3]s' OR %[1]s.order_id IS NOT NULL AND %[4]s)`,
		row, event.UserDeleted, redacted, reason)
}

// erasure is a row of erasures.
type erasure struct {
	user                     string
	requestedAt, coversUntil instant
	position                 event.Position
}

// Erased is what a call of EraseNext did.
type Erased struct {
	Rows int  // that it blanked
	More bool // another call now may find work
}

// EraseNext does the next piece of the erasure that is due and that no other node works on, in one
// transaction.
func (db *DB) EraseNext(ctx context.Context) (done Erased, err error) {
	var one int
	found, err := db.readConn().queryRow(ctx, `SELECT 1 FROM erasures WHERE due_at <= ? LIMIT 1`, []any{db.clock.Now()}, &one)
	if err == nil && found {
		err = db.inTx(ctx, claim.None, func(t *tx) (err error) {
			done, err = t.eraseNext(ctx)
			return err
		})
	}
	if err != nil {
		return Erased{}, fmt.Errorf("erase personal data: %w", db.translateError(ctx, err))
	}
	return done, nil
}

func (t *tx) eraseNext(ctx context.Context) (done Erased, err error) {
	var x erasure
	now := t.db.clock.Now()
	found, err := t.queryRow(ctx, `SELECT user_id, requested_at, covers_until, position FROM erasures WHERE due_at <= ? ORDER BY due_at LIMIT 1`+
		t.lockClause("FOR UPDATE SKIP LOCKED"), []any{now}, &x.user, &x.requestedAt, &x.coversUntil, &x.position)
	if err != nil || !found {
		return done, err
	}
	t.dirty = true
	before := x.position
	for _, erase := range []func(context.Context, *erasure) (int, error){t.eraseNotes, t.eraseDeadLetters, t.eraseEvents} {
		if done.Rows, err = erase(ctx, &x); err != nil || done.Rows > 0 || x.position > before {
			break
		}
	}
	done.More = true
	switch {
	case err != nil:
		return done, err
	case done.Rows > 0 || x.position > before:
		_, err = t.exec(ctx, `UPDATE erasures SET position = ? WHERE user_id = ?`, int64(x.position), x.user)
	case now.Before(x.requestedAt.Add(erasurePause)):
		_, err = t.exec(ctx, `UPDATE erasures SET due_at = ? WHERE user_id = ?`, toMicros(x.requestedAt.Add(erasurePause)), x.user)
	default:
		err = t.endErasure(ctx, x, now)
	}
	return done, err
}

// endErasure ends the erasure, unless an event of the user has no position yet.
func (t *tx) endErasure(ctx context.Context, x erasure, now time.Time) error {
	n, err := t.exec(ctx, `DELETE FROM erasures WHERE user_id = ? AND NOT EXISTS (SELECT 1 FROM events WHERE user_id = ? AND position IS NULL)`, x.user, x.user)
	if err != nil || n > 0 {
		return err
	}
	_, err = t.exec(ctx, `UPDATE erasures SET due_at = ? WHERE user_id = ?`, now.Add(erasurePause), x.user)
	return err
}

// eraseNotes blanks notes of orders. It makes no new version of an order: what may be cached elsewhere is
// hidden by those who show notes.
func (t *tx) eraseNotes(ctx context.Context, x *erasure) (int, error) {
	n, err := t.exec(ctx, `UPDATE orders SET note = '' WHERE id IN (SELECT o.id FROM orders AS o WHERE o.user_id = ? AND o.note <> '' LIMIT ?`+
		t.lockClause("FOR UPDATE OF o")+`)`, x.user, eraseBatch)
	return int(n), err
}

func (t *tx) eraseDeadLetters(ctx context.Context, x *erasure) (int, error) {
	n, err := t.exec(ctx, `UPDATE dead_letters AS d SET data = `+t.blankedData("d")+` WHERE d.id IN (SELECT l.id FROM dead_letters AS l WHERE l.user_id = ? AND `+
		t.isPersonal("l")+` LIMIT ?)`, x.user, x.coversUntil.Time, eraseBatch)
	return int(n), err
}

// eraseEvents blanks the next events by position, and advances x. Those without a position are left to a
// later call: the sequencer would wait for their rows.
func (t *tx) eraseEvents(ctx context.Context, x *erasure) (int, error) {
	var last event.Position
	_, err := t.queryRow(ctx, `SELECT COALESCE(MAX(position), 0) FROM (SELECT position FROM events WHERE user_id = ? AND position > ? ORDER BY position LIMIT ?) AS batch`,
		[]any{x.user, int64(x.position), eraseBatch}, &last)
	if err != nil || last == 0 {
		return 0, err
	}
	n, err := t.exec(ctx, `UPDATE events AS e SET data = `+t.blankedData("e")+` WHERE e.user_id = ? AND e.position > ? AND e.position <= ? AND `+t.isPersonal("e"),
		x.user, int64(x.position), int64(last), x.coversUntil.Time)
	x.position = last
	return int(n), err
}

// Erasures are the deleted accounts whose data is being removed.
type Erasures struct {
	Accounts int       // also those that only wait for the second round
	Overdue  int       // accounts whose data should have been blanked for some time
	Oldest   time.Time // when the first of them was deleted
}

// Erasures returns the erasures that have not ended; overdue are those that should have gone on before the time.
func (db *DB) Erasures(ctx context.Context, overdue time.Time) (e Erasures, err error) {
	var oldest *instant
	_, err = db.readConn().queryRow(ctx, `SELECT COUNT(*), COUNT(CASE WHEN due_at < ? THEN 1 END), MIN(requested_at) FROM erasures`,
		[]any{toMicros(overdue)}, &e.Accounts, &e.Overdue, &oldest)
	if err != nil {
		return e, fmt.Errorf("read erasures: %w", db.translateError(ctx, err))
	}
	if first := oldest.orNil(); first != nil {
		e.Oldest = *first
	}
	return e, nil
}
