package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// Offsets implements event.Offsets.
type Offsets struct{ db *DB }

var _ event.Offsets = Offsets{}

// Offsets returns the places of named readers of the log.
func (db *DB) Offsets() Offsets { return Offsets{db} }

// instantOf is a moment as part of a statement: by the clock of PostgreSQL, or
// on SQLite by that of this process.
type instantOf struct {
	sql  string
	args []any
}

// in is the moment so long from now.
func (db *DB) in(d time.Duration) instantOf {
	if db.isPostgres() {
		return instantOf{later, []any{d.Microseconds()}}
	}
	return instantOf{"?", []any{micro(db.cfg.Now().Add(d))}}
}

// writer is a connection whose statements commit by themselves.
func (db *DB) writer() conn { return conn{observed{db.write, db.cfg.OnStatement}, db.dialect} }

// Take implements event.Offsets.
func (s Offsets) Take(ctx context.Context, name, holder string, start event.Position, ttl time.Duration) (event.Tenure, bool, error) {
	t := event.Tenure{Name: name, Holder: holder}
	now, until := s.db.in(0), s.db.in(ttl)
	args := slices.Concat([]any{name, int64(start), holder}, until.args, now.args, now.args)
	taken, err := s.db.writer().one(ctx, `INSERT INTO readers (name, position, holder, epoch, expires_at, updated_at)
		VALUES (?, ?, ?, 1, `+until.sql+`, `+now.sql+`)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = readers.epoch + 1, expires_at = excluded.expires_at
		WHERE readers.holder = excluded.holder OR readers.expires_at <= `+now.sql+`
		RETURNING epoch, position`, args, &t.Epoch, &t.Position)
	if err != nil {
		return t, false, fmt.Errorf("take reader %s: %w", name, s.db.translate(ctx, err))
	}
	return t, taken, nil
}

// Save implements event.Offsets.
func (s Offsets) Save(ctx context.Context, t event.Tenure, done event.Position, ttl time.Duration) (event.Tenure, error) {
	now, until := s.db.in(0), s.db.in(ttl)
	args := slices.Concat([]any{int64(done), int64(done), int64(done)}, now.args, until.args, []any{t.Name, t.Holder, t.Epoch}, now.args)
	held, err := s.db.writer().one(ctx, `UPDATE readers SET position = CASE WHEN position < ? THEN CAST(? AS bigint) ELSE position END,
			updated_at = CASE WHEN position < ? THEN `+now.sql+` ELSE updated_at END, expires_at = `+until.sql+`
		WHERE name = ? AND holder = ? AND epoch = ? AND expires_at > `+now.sql+` RETURNING position`, args, &t.Position)
	switch {
	case err != nil:
		return t, fmt.Errorf("save the place of reader %s: %w", t.Name, s.db.translate(ctx, err))
	case !held:
		return t, event.ErrLeaseLost
	}
	return t, nil
}

// Release implements event.Offsets.
func (s Offsets) Release(ctx context.Context, t event.Tenure) error {
	now := s.db.in(0)
	_, err := s.db.writer().exec(ctx, `UPDATE readers SET expires_at = `+now.sql+` WHERE name = ? AND holder = ? AND epoch = ?`,
		append(now.args, t.Name, t.Holder, t.Epoch)...)
	return s.db.translate(ctx, err)
}

// Forget implements event.Offsets.
func (s Offsets) Forget(ctx context.Context, name string) (bool, error) {
	now := s.db.in(0)
	n, err := s.db.writer().exec(ctx, `DELETE FROM readers WHERE name = ? AND expires_at <= `+now.sql, append([]any{name}, now.args...)...)
	if err != nil {
		return false, fmt.Errorf("forget reader %s: %w", name, s.db.translate(ctx, err))
	}
	return n > 0, nil
}

// List implements event.Offsets.
func (s Offsets) List(ctx context.Context) ([]event.Offset, error) {
	var all []event.Offset
	err := s.db.reader().each(ctx, `SELECT name, position, holder, epoch, expires_at, updated_at FROM readers ORDER BY name`, nil,
		func(scan func(...any) error) error {
			var o event.Offset
			var expires, moved instant
			err := scan(&o.Name, &o.Position, &o.Holder, &o.Epoch, &expires, &moved)
			o.Expires, o.Moved = expires.Time, moved.Time
			all = append(all, o)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list the readers of the log: %w", s.db.translate(ctx, err))
	}
	return all, nil
}
