package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
)

// Leases implements lease.Store.
type Leases struct{ db *DB }

var _ lease.Store = Leases{}

// Leases returns the leases and offsets of the readers of the log.
func (db *DB) Leases() Leases { return Leases{db} }

// writer is a connection whose statements commit by themselves.
func (db *DB) writer() conn {
	return conn{ExecQuerier: statementObserver{db.write, db.cfg.OnStatement}, dialect: db.dialect, permits: db.writers}
}

// Acquire implements lease.Store. A lease with more than ttl left was written by a clock that was
// ahead, and is void.
func (s Leases) Acquire(ctx context.Context, name, owner string, start event.Position, ttl time.Duration) (lease.Lease, bool, error) {
	t := lease.Lease{Name: name, Owner: owner}
	now, until := s.db.timeIn(0), s.db.timeIn(ttl)
	args := slices.Concat([]any{name, int64(start), owner}, until.args, now.args, now.args, until.args)
	taken, err := s.db.writer().queryRow(ctx, `INSERT INTO readers (name, position, holder, epoch, expires_at, updated_at)
		VALUES (?, ?, ?, 1, `+until.sql+`, `+now.sql+`)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = readers.epoch + 1, expires_at = excluded.expires_at
		WHERE readers.holder = excluded.holder OR readers.expires_at <= `+now.sql+` OR readers.expires_at > `+until.sql+`
		RETURNING epoch, position`, args, &t.Epoch, &t.Position)
	if err != nil {
		return t, false, fmt.Errorf("acquire the lease of reader %s: %w", name, s.db.translateError(ctx, err))
	}
	return t, taken, nil
}

// Renew implements lease.Store.
func (s Leases) Renew(ctx context.Context, t lease.Lease, done event.Position, ttl time.Duration) (lease.Lease, error) {
	now, until := s.db.timeIn(0), s.db.timeIn(ttl)
	args := slices.Concat([]any{int64(done), int64(done), int64(done)}, now.args, until.args, []any{t.Name, t.Owner, t.Epoch}, now.args)
	held, err := s.db.writer().queryRow(ctx, `UPDATE readers SET position = CASE WHEN position < ? THEN CAST(? AS bigint) ELSE position END,
			updated_at = CASE WHEN position < ? THEN `+now.sql+` ELSE updated_at END, expires_at = `+until.sql+`
		WHERE name = ? AND holder = ? AND epoch = ? AND expires_at > `+now.sql+` RETURNING position`, args, &t.Position)
	switch {
	case err != nil:
		return t, fmt.Errorf("save the offset of reader %s: %w", t.Name, s.db.translateError(ctx, err))
	case !held:
		return t, lease.ErrLost
	}
	return t, nil
}

// Release implements lease.Store.
func (s Leases) Release(ctx context.Context, t lease.Lease) error {
	now := s.db.timeIn(0)
	_, err := s.db.writer().exec(ctx, `UPDATE readers SET expires_at = `+now.sql+` WHERE name = ? AND holder = ? AND epoch = ?`,
		append(now.args, t.Name, t.Owner, t.Epoch)...)
	return s.db.translateError(ctx, err)
}

// Delete implements lease.Store.
func (s Leases) Delete(ctx context.Context, name string) (bool, error) {
	now := s.db.timeIn(0)
	n, err := s.db.writer().exec(ctx, `DELETE FROM readers WHERE name = ? AND expires_at <= `+now.sql, append([]any{name}, now.args...)...)
	if err != nil {
		return false, fmt.Errorf("delete reader %s: %w", name, s.db.translateError(ctx, err))
	}
	return n > 0, nil
}

// Rewind moves the offset of a reader without an owner back, and fences its former owners; ok is false if
// there is none, it has an owner, or its offset is not after the position.
func (s Leases) Rewind(ctx context.Context, name string, to event.Position) (ok bool, err error) {
	now := s.db.timeIn(0)
	n, err := s.db.writer().exec(ctx, `UPDATE readers SET position = ?, epoch = epoch + 1 WHERE name = ? AND position > ? AND expires_at <= `+now.sql,
		append([]any{int64(to), name, int64(to)}, now.args...)...)
	if err != nil {
		return false, fmt.Errorf("rewind reader %s: %w", name, s.db.translateError(ctx, err))
	}
	return n > 0, nil
}

// List implements lease.Store.
func (s Leases) List(ctx context.Context) ([]lease.Offset, error) {
	var all []lease.Offset
	err := s.db.readConn().eachRow(ctx, `SELECT name, position, holder, epoch, expires_at, updated_at FROM readers ORDER BY name`, nil,
		func(scan func(...any) error) error {
			var o lease.Offset
			var expires, moved instant
			err := scan(&o.Name, &o.Position, &o.Owner, &o.Epoch, &expires, &moved)
			o.ExpiresAt, o.MovedAt = expires.Time, moved.Time
			all = append(all, o)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list the readers of the log: %w", s.db.translateError(ctx, err))
	}
	return all, nil
}
