package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	entletter "github.com/backplane-dev/backplane/ent/deadletter"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// DeadLetters implements consumer.DeadLetterQueue and consumer.DeadLetterReader.
type DeadLetters struct{ db *DB }

var (
	_ consumer.DeadLetterQueue  = DeadLetters{}
	_ consumer.DeadLetterReader = DeadLetters{}
)

// DeadLetters returns the store of dead letters.
func (db *DB) DeadLetters() DeadLetters { return DeadLetters{db} }

// Park implements consumer.DeadLetterQueue. It claims the event, so that no other owner
// handles it meanwhile, and deletes the claim with the commit, because the event is not handled.
func (s DeadLetters) Park(ctx context.Context, l lease.Lease, e *event.Event, f consumer.Failure) error {
	d := claim.Delivery{Lease: l, Event: e.ID, Position: e.Cursor.Position}
	err := s.db.inTx(ctx, d, func(t *tx) error {
		at := s.db.clock.Now()
		who, order, _ := concerns(*e)
		data, gone, err := t.readCurrentData(ctx, e, who)
		if err != nil {
			return err
		}
		_, err = t.exec(ctx, `INSERT INTO dead_letters (id, consumer, position, event_id, type, occurred_at, actor, subject_id, subject_version,
				user_id, order_id, data, attempts, code, message, detail, failed_at, requested_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
				(SELECT MAX(requested_at) FROM dead_letters WHERE consumer = ? AND subject_id = ? AND replayed_at IS NULL))
			ON CONFLICT (event_id, consumer) DO NOTHING`,
			string(uid.NewDeadLetter(at)), l.Name, int64(d.Position), string(e.ID), string(e.Type), toMicros(e.OccurredAt), e.Actor, e.SubjectID,
			e.SubjectVersion, who, order, data, f.Attempts, string(f.Code), f.Message, f.Detail, at, l.Name, e.SubjectID)
		if err != nil {
			return err
		}
		if gone {
			if err := t.blankDeadLetters(ctx, who, e.ID); err != nil {
				return err
			}
		}
		_, err = t.exec(ctx, `DELETE FROM idempotency_keys WHERE scope = ? AND key = ?`, t.claimed.scope, t.claimed.key)
		return err
	})
	if err != nil {
		return fmt.Errorf("make %s a dead letter of %s: %w", e.ID, l.Name, err)
	}
	return nil
}

// readCurrentData returns the event's data in the log, which is redacted if its user was
// deleted since the consumer read it, and locks the user until the commit.
// gone means that the log has no such event any more, and the user is deleted.
func (t *tx) readCurrentData(ctx context.Context, e *event.Event, who any) (data string, gone bool, err error) {
	var status user.Status
	if _, err := t.queryRow(ctx, `SELECT status FROM users WHERE id = ?`+t.lockClause("FOR SHARE"), []any{who}, &status); err != nil {
		return "", false, err
	}
	var stored []byte
	found, err := t.queryRow(ctx, `SELECT `+t.visibleData("e")+` FROM events AS e WHERE e.id = ?`, []any{string(e.ID)}, &stored)
	if err != nil || found {
		return string(stored), false, err
	}
	return string(e.Data), e.Type != event.UserDeleted && status == user.Deleted, nil
}

// blankDeadLetters removes the personal data of a user from the dead letters of an event.
func (t *tx) blankDeadLetters(ctx context.Context, who any, e uid.Event) error {
	_, err := t.exec(ctx, `UPDATE dead_letters AS d SET data = `+t.blankedData("d")+` WHERE d.user_id = ? AND d.event_id = ?`, who, string(e))
	return err
}

// HasPending implements consumer.DeadLetterQueue.
func (s DeadLetters) HasPending(ctx context.Context, consumer, subject string) (bool, error) {
	query, args := `SELECT 1 FROM dead_letters WHERE consumer = ? AND replayed_at IS NULL`, []any{consumer}
	if subject != "" {
		query, args = query+` AND subject_id = ?`, append(args, subject)
	}
	var one int
	found, err := s.db.readConn().queryRow(ctx, query+` LIMIT 1`, args, &one)
	if err != nil {
		return false, fmt.Errorf("look for dead letters: %w", s.db.translateError(ctx, err))
	}
	return found, nil
}

// ListRequested implements consumer.DeadLetterQueue.
func (s DeadLetters) ListRequested(ctx context.Context, consumer string, limit int) ([]*consumer.DeadLetter, error) {
	rows, err := s.db.client.DeadLetter.Query().
		Where(entletter.Consumer(consumer), entletter.RequestedAtNotNil(), entletter.ReplayedAtIsNil()).
		Order(ent.Asc(entletter.FieldRequestedAt, entletter.FieldPosition)).Limit(limit).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read requested dead letters: %w", s.db.translateError(ctx, err))
	}
	return s.toDeadLetters(ctx, rows)
}

// IsNext implements consumer.DeadLetterQueue.
func (s DeadLetters) IsNext(ctx context.Context, l *consumer.DeadLetter) (bool, error) {
	var one int
	due, err := s.db.readConn().queryRow(ctx, `SELECT 1 FROM dead_letters AS l WHERE l.id = ? AND l.requested_at IS NOT NULL AND l.replayed_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM dead_letters AS a WHERE a.consumer = l.consumer AND a.subject_id = l.subject_id
			AND a.replayed_at IS NULL AND a.position < l.position)`, []any{string(l.ID)}, &one)
	if err != nil {
		return false, fmt.Errorf("check whether %s is next: %w", l.ID, s.db.translateError(ctx, err))
	}
	return due, nil
}

// CompleteReplay implements consumer.DeadLetterQueue. It also requests the replay of the
// pending rest of the subject, including events parked after the request.
func (s DeadLetters) CompleteReplay(ctx context.Context, l *consumer.DeadLetter) error {
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		at := s.db.clock.Now()
		if _, err := t.exec(ctx, `UPDATE dead_letters SET replayed_at = ? WHERE id = ? AND replayed_at IS NULL`, at, string(l.ID)); err != nil {
			return err
		}
		_, err := t.exec(ctx, `UPDATE dead_letters SET requested_at = ? WHERE consumer = ? AND subject_id = ? AND replayed_at IS NULL AND requested_at IS NULL`,
			at, l.Consumer, l.Event.SubjectID)
		return err
	})
	if err != nil {
		return fmt.Errorf("complete the replay of %s: %w", l.ID, err)
	}
	return nil
}

// FailReplay implements consumer.DeadLetterQueue.
func (s DeadLetters) FailReplay(ctx context.Context, held lease.Lease, l *consumer.DeadLetter, f consumer.Failure) error {
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		if err := t.checkLease(ctx, held); err != nil {
			return err
		}
		if _, err := t.exec(ctx, `UPDATE dead_letters SET attempts = ?, code = ?, message = ?, detail = ?, failed_at = ? WHERE id = ? AND replayed_at IS NULL`,
			f.Attempts, string(f.Code), f.Message, f.Detail, s.db.clock.Now(), string(l.ID)); err != nil {
			return err
		}
		_, err := t.exec(ctx, `UPDATE dead_letters SET requested_at = NULL WHERE consumer = ? AND subject_id = ? AND replayed_at IS NULL`,
			l.Consumer, l.Event.SubjectID)
		return err
	})
	if err != nil {
		return fmt.Errorf("fail the replay of %s: %w", l.ID, err)
	}
	return nil
}

// DropExpired removes dead letters that have neither failed nor been requested within the age, at most limit of
// them in one transaction, and returns them. One that waits behind a younger one of its subject stays with it.
func (s DeadLetters) DropExpired(ctx context.Context, age time.Duration, limit int) (dropped []consumer.DroppedDeadLetter, err error) {
	before := s.db.clock.Now().Add(-age)
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		return t.eachRow(ctx, `DELETE FROM dead_letters WHERE id IN (SELECT x.id FROM dead_letters AS x
				WHERE x.replayed_at IS NULL AND x.failed_at < ? AND (x.requested_at IS NULL OR x.requested_at < ?)
				AND NOT EXISTS (SELECT 1 FROM dead_letters AS a WHERE a.consumer = x.consumer AND a.subject_id = x.subject_id
					AND a.replayed_at IS NULL AND a.position < x.position AND (a.failed_at >= ? OR a.requested_at >= ?))
				ORDER BY x.failed_at LIMIT ?`+t.lockClause("FOR UPDATE OF x SKIP LOCKED")+`)
			RETURNING id, consumer, event_id, type, subject_id, position, failed_at, code`,
			[]any{before, before, before, before, limit}, func(scan func(...any) error) error {
				var d consumer.DroppedDeadLetter
				err := scan(&d.ID, &d.Consumer, &d.EventID, &d.Type, &d.SubjectID, &d.Position, &d.FailedAt, &d.Code)
				dropped = append(dropped, d)
				return err
			})
	})
	if err != nil {
		return nil, fmt.Errorf("drop expired dead letters: %w", err)
	}
	slices.SortFunc(dropped, func(a, b consumer.DroppedDeadLetter) int { return cmp.Compare(a.Position, b.Position) })
	return dropped, nil
}

// RequestReplay implements consumer.DeadLetterReader. A duplicate call counts the replays that
// are still pending.
func (s DeadLetters) RequestReplay(ctx context.Context, cl claim.Claim, which consumer.ReplayRequest) (int, error) {
	about, where, args := which.Consumer, `consumer = ?`, []any{which.Consumer}
	if which.Consumer == "" {
		about, args = string(which.IDs[0]), toAnys(which.IDs)
		where = `(consumer, subject_id) IN (SELECT consumer, subject_id FROM dead_letters WHERE id IN (` + paramList(len(which.IDs)) + `))`
	}
	var n int64
	err := s.db.inTx(ctx, cl, func(t *tx) (err error) {
		t.dirty = true
		t.setResultObject(about, 0)
		n, err = t.exec(ctx, `UPDATE dead_letters SET requested_at = ? WHERE replayed_at IS NULL AND `+where,
			append([]any{s.db.clock.Now()}, args...)...)
		return err
	})
	if _, again := errors.AsType[*replay](err); again {
		_, err = s.db.readConn().queryRow(ctx, `SELECT COUNT(*) FROM dead_letters WHERE replayed_at IS NULL AND requested_at IS NOT NULL AND `+where, args, &n)
		err = s.db.translateError(ctx, err)
	}
	if err != nil {
		return 0, fmt.Errorf("request replays: %w", err)
	}
	return int(n), nil
}

// ByIDs implements consumer.DeadLetterReader.
func (s DeadLetters) ByIDs(ctx context.Context, ids []uid.DeadLetter) (map[uid.DeadLetter]*consumer.DeadLetter, error) {
	found := make(map[uid.DeadLetter]*consumer.DeadLetter, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.DeadLetter.Query().Where(entletter.IDIn(some...)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read dead letters: %w", s.db.translateError(ctx, err))
		}
		letters, err := s.toDeadLetters(ctx, rows)
		if err != nil {
			return nil, err
		}
		for _, l := range letters {
			found[l.ID] = l
		}
	}
	return found, nil
}

var deadLettersByPosition = keyset[*consumer.DeadLetter]{
	name: "POSITION_ASC", column: entletter.FieldPosition,
	key: func(l *consumer.DeadLetter) string { return intKey(int64(l.Event.Cursor.Position)) },
	id:  func(l *consumer.DeadLetter) string { return string(l.ID) }, parse: parseInt,
}

// List implements consumer.DeadLetterReader.
func (s DeadLetters) List(ctx context.Context, f consumer.DeadLetterFilter, args page.Args) (page.Page[*consumer.DeadLetter], error) {
	none := page.Page[*consumer.DeadLetter]{}
	slice, err := deadLettersByPosition.parseArgs(args)
	if err != nil {
		return none, err
	}
	rows, err := s.queryMatching(f).Where(slice.applyTo).All(ctx)
	if err != nil {
		return none, fmt.Errorf("list dead letters: %w", s.db.translateError(ctx, err))
	}
	letters, err := s.toDeadLetters(ctx, rows)
	if err != nil {
		return none, err
	}
	return slice.toPage(letters), nil
}

// Count implements consumer.DeadLetterReader.
func (s DeadLetters) Count(ctx context.Context, f consumer.DeadLetterFilter) (int, error) {
	n, err := s.queryMatching(f).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", s.db.translateError(ctx, err))
	}
	return n, nil
}

// CountPending implements consumer.DeadLetterReader.
func (s DeadLetters) CountPending(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	err := s.db.readConn().eachRow(ctx, `SELECT consumer, COUNT(*) FROM dead_letters WHERE replayed_at IS NULL GROUP BY consumer`, nil,
		func(scan func(...any) error) error {
			var name string
			var n int
			err := scan(&name, &n)
			counts[name] = n
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", s.db.translateError(ctx, err))
	}
	return counts, nil
}

func (s DeadLetters) queryMatching(f consumer.DeadLetterFilter) *ent.DeadLetterQuery {
	q := s.db.lists.DeadLetter.Query()
	if f.Consumer != nil {
		q.Where(equalsText(entletter.FieldConsumer, *f.Consumer))
	}
	if f.SubjectID != nil {
		q.Where(equalsText(entletter.FieldSubjectID, *f.SubjectID))
	}
	if !f.Replayed {
		q.Where(func(s *entsql.Selector) { s.Where(entsql.IsNull(s.C(entletter.FieldReplayedAt))) })
	}
	return q
}

// toDeadLetters maps rows, whose positions are of the current timeline.
func (s DeadLetters) toDeadLetters(ctx context.Context, rows []*ent.DeadLetter) ([]*consumer.DeadLetter, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var timeline string
	if _, err := s.db.readConn().queryRow(ctx, `SELECT id FROM timelines`, nil, &timeline); err != nil {
		return nil, fmt.Errorf("read the timeline: %w", s.db.translateError(ctx, err))
	}
	if err := s.blankErased(ctx, rows); err != nil {
		return nil, err
	}
	return mapSlice(rows, func(r *ent.DeadLetter) *consumer.DeadLetter { return toDeadLetter(r, timeline) }), nil
}

// blankErased gives rows whose users are being erased the data that readers may see.
func (s DeadLetters) blankErased(ctx context.Context, rows []*ent.DeadLetter) error {
	byID := make(map[uid.DeadLetter]*ent.DeadLetter, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	for some := range slices.Chunk(rows, maxIDs) {
		ids := &condition{}
		ids.in("d.id", mapSlice(some, func(r *ent.DeadLetter) any { return string(r.ID) }))
		err := s.db.readConn().eachRow(ctx, fmt.Sprintf(`SELECT d.id, %s FROM dead_letters AS d WHERE d.user_id IN (SELECT user_id FROM erasures) AND %s`,
			s.db.readConn().visibleData("d"), ids), ids.args, func(scan func(...any) error) error {
			var id uid.DeadLetter
			var data []byte
			err := scan(&id, &data)
			if r := byID[id]; r != nil {
				r.Data = data
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("look for erasures: %w", s.db.translateError(ctx, err))
		}
	}
	return nil
}

func toDeadLetter(r *ent.DeadLetter, timeline string) *consumer.DeadLetter {
	e := &event.Event{
		ID: r.EventID, Type: r.Type, OccurredAt: toMicros(r.OccurredAt), Actor: r.Actor, SubjectID: r.SubjectID, SubjectVersion: r.SubjectVersion,
		Data: r.Data, Cursor: event.Cursor{Timeline: timeline, Position: event.Position(r.Position)},
	}
	if r.UserID != nil && string(*r.UserID) != r.SubjectID {
		e.Related = append(e.Related, string(*r.UserID))
	}
	if r.OrderID != nil && string(*r.OrderID) != r.SubjectID {
		e.Related = append(e.Related, string(*r.OrderID))
	}
	e.Public = event.IsPublic(e.Type, e.Data)
	return &consumer.DeadLetter{
		ID: r.ID, Consumer: r.Consumer, Event: e, FailedAt: toMicros(r.FailedAt),
		Failure:     consumer.Failure{Attempts: r.Attempts, Code: fault.Code(r.Code), Message: r.Message, Detail: r.Detail},
		RequestedAt: toMicrosOrNil(r.RequestedAt), ReplayedAt: toMicrosOrNil(r.ReplayedAt),
	}
}
