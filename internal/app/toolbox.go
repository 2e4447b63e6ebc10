package app

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/consumer"
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
	Secrets       *secrets.Sealer
	Sessions      *session.Service
	Log           *eventlog.Log
	ConsumerAdmin *consumer.Admin
}

// OpenToolbox opens the database, which must be up to date. The caller closes it.
func OpenToolbox(ctx context.Context, env Env) (*Toolbox, error) {
	db, err := OpenDatabase(ctx, env, false)
	if err != nil {
		return nil, err
	}
	t := &Toolbox{DB: db, Log: eventlog.NewLog(db.Events())}
	t.ConsumerAdmin = consumer.NewAdmin(t.Log, db.Leases(), db.DeadLetters(), Now)
	if t.Secrets, err = OpenSecrets(ctx, env, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if t.Sessions, err = NewSessions(env, db, t.Secrets, nil); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return t, nil
}

// Close closes the database.
func (t *Toolbox) Close() error { return t.DB.Close() }

// LoadDirectory returns the registry as it is stored.
func (t *Toolbox) LoadDirectory(ctx context.Context, env Env) (*registry.Directory, error) {
	d := registry.NewDirectory(t.DB.Registry(), loadedLog{}, Now, env.Log)
	return d, d.Load(ctx)
}

// loadedLog is the reading of the log of a directory that was just loaded: it
// lags behind nothing.
type loadedLog struct{}

func (loadedLog) Lag() time.Duration { return 0 }

func (loadedLog) Head() event.Cursor { return event.Cursor{} }
