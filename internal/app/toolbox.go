package app

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
)

// Toolbox is what a command other than serve works with: it reads the database
// without a cache. Running servers learn of its writes from the event log.
type Toolbox struct {
	DB            *store.DB
	Log           *eventlog.Log
	ConsumerAdmin *consumer.Admin
}

// OpenToolbox opens the database, which must exist and be up to date. It changes nothing. The
// caller closes it.
func OpenToolbox(ctx context.Context, env Env) (*Toolbox, error) {
	db, err := OpenExistingDatabase(ctx, env)
	return newToolbox(db), err
}

// OpenWritableToolbox opens the database for a command that writes: an SQLite file is made, and
// migrated, if it has to be. The caller closes it.
func OpenWritableToolbox(ctx context.Context, env Env) (*Toolbox, error) {
	db, err := OpenDatabase(ctx, env, false)
	return newToolbox(db), err
}

func newToolbox(db *store.DB) *Toolbox {
	if db == nil {
		return nil
	}
	log := eventlog.NewLog(db.Events())
	return &Toolbox{DB: db, Log: log, ConsumerAdmin: consumer.NewAdmin(log, db.Leases(), db.DeadLetters(), db.Clock().Now)}
}

// OpenSessions opens the domain of sessions and keys, with the secrets in the database as they
// are protected now.
func (t *Toolbox) OpenSessions(ctx context.Context, env Env) (*session.Service, error) {
	sealer, err := t.joinSealer(ctx, env)
	if err != nil {
		return nil, err
	}
	return NewSessions(env, t.DB, sealer, nil, nil)
}

// ParseCursor reads a cursor of the event log, as clients get it or in its plain form.
func (t *Toolbox) ParseCursor(ctx context.Context, env Env, text string) (event.Cursor, error) {
	if at, err := event.ParseCursor(text); err == nil {
		return at, nil // needs no key
	}
	if err := cursor.Check(text); err != nil {
		return event.Cursor{}, err
	}
	sealer, err := t.joinSealer(ctx, env)
	if err != nil {
		return event.Cursor{}, err
	}
	return NewCursors(sealer).Decode(text)
}

func (t *Toolbox) joinSealer(ctx context.Context, env Env) (*secrets.Sealer, error) {
	key, former, err := masterKeys(env, true)
	if err != nil {
		return nil, err
	}
	return secrets.JoinSealer(ctx, t.DB.Secrets(), key, former...)
}

// Close closes the database.
func (t *Toolbox) Close() error { return t.DB.Close() }

// LoadDirectory returns the registry as it is stored.
func (t *Toolbox) LoadDirectory(ctx context.Context, env Env) (*registry.Directory, error) {
	d := registry.NewDirectory(t.DB.Registry(), loadedLog{}, t.DB.Clock().Now, env.Log)
	return d, d.Load(ctx)
}

// loadedLog is the reading of the log of a directory that was just loaded: it
// lags behind nothing.
type loadedLog struct{}

func (loadedLog) Lag() time.Duration { return 0 }

func (loadedLog) Head() event.Cursor { return event.Cursor{} }
