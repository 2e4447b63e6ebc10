package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// LogRecord keeps the head of the log in a file next to an SQLite database. An older copy of the database that takes its place is noticed
// by it, also by a file system that gives it the same identity.
type LogRecord struct {
	db      *DB
	written event.Cursor
}

// recordInterval is the time between two looks at the head: what happened since the last one before a crash is not in the record.
const recordInterval = time.Second

// NewLogRecord returns the record of the database; nil on PostgreSQL, where Sequence.VerifyPlace looks.
func (db *DB) NewLogRecord() *LogRecord {
	if db.isPostgres() {
		return nil
	}
	return &LogRecord{db: db}
}

func (r *LogRecord) path() string {
	path := r.db.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // every path to a file leads to one record
	}
	return path + ".head"
}

// Verify begins another timeline if the log ends before the head in the record: the database is an older copy. A record that cannot be read is
// as none.
func (r *LogRecord) Verify(ctx context.Context) error {
	had, err := r.read()
	if err != nil {
		r.db.cfg.Log.WarnContext(ctx, "an older copy of the database would not be noticed", "error", err)
		return nil
	}
	state, err := r.db.Events().State(ctx)
	if err != nil {
		return err
	}
	if had.Timeline != state.Timeline || had.Position <= state.Head {
		return nil
	}
	r.db.cfg.Log.ErrorContext(ctx, "the database is an older copy of the one that was served: another timeline begins, and cursors of before are refused",
		"head", int64(state.Head), "had", int64(had.Position))
	return r.db.RenewTimeline(ctx)
}

func (r *LogRecord) read() (event.Cursor, error) {
	text, err := os.ReadFile(r.path())
	if errors.Is(err, fs.ErrNotExist) {
		return event.Cursor{}, nil
	}
	if err != nil {
		return event.Cursor{}, fmt.Errorf("read the head of the log: %w", err)
	}
	at, err := event.ParseCursor(strings.TrimSpace(string(text)))
	if err != nil {
		return event.Cursor{}, fmt.Errorf("read the head of the log in %s: %w", r.path(), err)
	}
	return at, nil
}

// Write stores the head of the log, if it has changed. It fails if another file has taken the place of the database: that file would be compared
// with the head of this one.
func (r *LogRecord) Write(ctx context.Context) error {
	if err := r.db.file.check(); err != nil {
		return err
	}
	state, err := r.db.Events().State(ctx)
	if err != nil {
		return err
	}
	at := event.Cursor{Timeline: state.Timeline, Position: state.Head}
	if at == r.written {
		return nil
	}
	if err := r.replace(at.String() + "\n"); err != nil {
		return fmt.Errorf("store the head of the log: %w", err)
	}
	r.written = at
	return nil
}

// replace writes the file whole or not at all.
func (r *LogRecord) replace(text string) error {
	if err := os.WriteFile(r.path()+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(r.path()+".new", r.path())
}

// Run writes the record every recordInterval until ctx is cancelled. A write that fails is logged once.
func (r *LogRecord) Run(ctx context.Context) error {
	tick := time.NewTicker(recordInterval)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := r.Write(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			r.db.cfg.Log.WarnContext(ctx, "an older copy of the database would not be noticed", "error", err)
		}
		failed = err != nil
	}
}
