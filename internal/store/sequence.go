package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/store/pgserver"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Sequence implements eventlog.PositionStore on a connection of its own, so that it
// waits for no other transaction.
type Sequence struct {
	db   *DB
	pool *pgserver.Pool // of one connection
	low  lowWatermark
	self atomic.Pointer[string] // owner of the lease that was acquired last
}

var _ eventlog.PositionStore = (*Sequence)(nil)

// Sequence returns what numbers events on PostgreSQL; the caller closes it. On
// SQLite it returns nil: there the writer gives the positions.
func (db *DB) Sequence() (*Sequence, error) {
	if !db.isPostgres() {
		return nil, nil
	}
	// A plan made while the log is short would read all of it once it is long.
	settings := map[string]string{"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
	return &Sequence{db: db, pool: db.server.OpenPool(pgserver.PoolConfig{Conns: 1, Settings: settings})}, nil
}

// Close ends the connection.
func (s *Sequence) Close() error { return s.pool.Close() }

func (s *Sequence) conn() conn {
	return conn{ExecQuerier: statementObserver{s.pool, s.db.cfg.OnStatement}, dialect: dialect.Postgres}
}

// Acquire implements eventlog.PositionStore. A lease with more than ttl left was written by a clock
// that was ahead, and is void.
func (s *Sequence) Acquire(ctx context.Context, holder string, ttl time.Duration) (lease.Lease, bool, error) {
	l := lease.Lease{Owner: holder}
	s.self.Store(&holder)
	taken, err := s.conn().queryRow(ctx, `UPDATE sequencer SET holder = ?, epoch = epoch + 1, expires_at = `+later+`
		WHERE id = 1 AND (holder = ? OR expires_at <= clock_timestamp() OR expires_at > `+later+`) RETURNING epoch, head`,
		[]any{holder, ttl.Microseconds(), holder, ttl.Microseconds()}, &l.Epoch, &l.Position)
	if err != nil {
		return l, false, fmt.Errorf("take the sequencer's lease: %w", s.db.translateError(ctx, err))
	}
	return l, taken, nil
}

// AssignPositions implements eventlog.PositionStore. Locking the row of the lease makes takers
// wait for the end of the statement. A statement that itself had to wait for the
// lock sees the row as it is then: if the head has moved, it does nothing, as
// what it sees of the events is older. The batch is sorted by the position that
// it does not have so that only the index of waiting events will do: by seq alone
// the primary key would, and that begins with all that is numbered. Unless the
// batch is full, whatever was committed when the statement began has a position. The scan begins at the
// low watermark: while another session has an old snapshot, the index keeps an entry of every event that has got its
// position since.
func (s *Sequence) AssignPositions(ctx context.Context, l lease.Lease, ttl time.Duration, limit int) (int, lease.Lease, error) {
	next := l
	if err := s.low.advance(ctx, s); err != nil {
		return 0, l, fmt.Errorf("advance the low watermark: %w", s.db.translateError(ctx, err))
	}
	held, err := s.conn().queryRow(ctx, `WITH lease AS (
			SELECT head FROM sequencer WHERE id = 1 AND holder = ? AND epoch = ? AND head = ? AND expires_at > clock_timestamp() FOR UPDATE
		), batch AS (
			SELECT seq, ROW_NUMBER() OVER (ORDER BY seq) AS place FROM (SELECT seq FROM events
				WHERE position IS NULL AND seq >= (SELECT low_seq FROM sequencer WHERE id = 1) ORDER BY position, seq LIMIT ?) AS waiting
		), numbered AS (
			UPDATE events SET position = lease.head + batch.place FROM lease, batch WHERE events.seq = batch.seq RETURNING 1
		)
		UPDATE sequencer SET head = lease.head + (SELECT COUNT(*) FROM numbered), expires_at = `+later+`, low_seq = CASE WHEN `+startOfServer+` = ? THEN GREATEST(low_seq, ?) ELSE low_seq END,
			numbered_at = CASE WHEN (SELECT COUNT(*) FROM numbered) < ? THEN statement_timestamp() ELSE numbered_at END
		FROM lease WHERE id = 1 RETURNING sequencer.head`,
		[]any{l.Owner, l.Epoch, int64(l.Position), limit, ttl.Microseconds(), s.low.server, s.low.low, limit}, &next.Position)
	switch {
	case err != nil:
		return 0, l, fmt.Errorf("number events: %w", s.db.translateError(ctx, err))
	case !held:
		return 0, l, lease.ErrLost
	}
	n := int(next.Position - l.Position)
	s.low.noteAssigned(n, limit)
	return n, next, nil
}

// Release implements eventlog.PositionStore.
func (s *Sequence) Release(ctx context.Context, l lease.Lease) error {
	_, err := s.conn().exec(ctx, `UPDATE sequencer SET expires_at = clock_timestamp() WHERE id = 1 AND holder = ? AND epoch = ?`, l.Owner, l.Epoch)
	return s.db.translateError(ctx, err)
}

// RenewTimeline begins another timeline, after the database was restored: no
// cursor of before is good any more. It also ends the leases of sequencers that assigned positions
// events, or was a named reader of them, in the database that was saved.
func (db *DB) RenewTimeline(ctx context.Context) error { return db.renewTimeline(ctx, "1 = 1") }

// ServingNode returns the node that assigns positions to events now; empty if no node serves the database, or it
// is an SQLite file, where LockFile tells. A node that was killed is named for some seconds.
func (db *DB) ServingNode(ctx context.Context) (owner string, err error) {
	if !db.isPostgres() {
		return "", nil
	}
	if _, err := db.readConn().queryRow(ctx, `SELECT holder FROM sequencer WHERE id = 1 AND expires_at > clock_timestamp()`, nil, &owner); err != nil {
		return "", fmt.Errorf("look for nodes that serve: %w", db.translateError(ctx, err))
	}
	return owner, nil
}

// AbandonTimeline implements eventlog.PositionStore.
func (s *Sequence) AbandonTimeline(ctx context.Context, timeline string) error {
	return s.db.renewTimeline(ctx, "id = ?", timeline)
}

// EventAt implements eventlog.PositionStore. It reads from the connections for readers, as the sequencer's may wait for
// a lock.
func (s *Sequence) EventAt(ctx context.Context, p event.Position) (id uid.Event, err error) {
	if _, err := s.db.readConn().queryRow(ctx, `SELECT id FROM events WHERE position = ?`, []any{int64(p)}, &id); err != nil {
		return "", fmt.Errorf("read the event at %d: %w", p, s.db.translateError(ctx, err))
	}
	return id, nil
}

// renewTimeline begins another timeline if the condition holds for the present one.
func (db *DB) renewTimeline(ctx context.Context, where string, args ...any) error {
	return db.renewTimelineAt(ctx, logPlace{}, where, args...)
}

// renewTimelineAt is renewTimeline, and stores where the log is, unless the place is empty.
func (db *DB) renewTimelineAt(ctx context.Context, at logPlace, where string, args ...any) error {
	err := db.inTx(ctx, claim.None, func(t *tx) error {
		fresh := `lower(hex(randomblob(6)))`
		if t.isPostgres() {
			fresh = `substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)`
		}
		set, values := `id = `+fresh, []any(nil)
		if at != (logPlace{}) {
			set, values = set+`, place = ?, server_timeline = ?`, []any{at.place, at.timeline}
		}
		if n, err := t.exec(ctx, `UPDATE timelines SET `+set+` WHERE `+where, append(values, args...)...); err != nil || n == 0 {
			return err
		}
		t.dirty = true
		if _, err := t.exec(ctx, `UPDATE readers SET holder = '', epoch = epoch + 1, expires_at = ?`, time.Unix(0, 0).UTC()); err != nil {
			return err
		}
		if !t.isPostgres() {
			return nil
		}
		_, err := t.exec(ctx, `UPDATE sequencer SET holder = '', epoch = epoch + 1, expires_at = 'epoch', low_seq = 0 WHERE id = 1`)
		return err
	})
	if err != nil {
		return fmt.Errorf("renew the timeline: %w", err)
	}
	return nil
}
