package app

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/store"
)

// OpenFeed builds the node's part in the event log: the sequencer (the writer
// itself on SQLite), the notifier between nodes, and the hub that the readers on
// this node subscribe to. The caller runs the feed, and closes it after that.
func OpenFeed(env Env, db *store.DB) (_ *eventlog.Pipeline, closeFeed func() error, err error) {
	var open closers
	defer func() {
		if err != nil {
			err = errors.Join(err, open.close())
		}
	}()
	numbering, err := openNumbering(db, &open)
	if err != nil {
		return nil, nil, err
	}
	notifier, err := openNotifier(env, db, &open)
	if err != nil {
		return nil, nil, err
	}
	feed, err := eventlog.NewPipeline(eventlog.NewLog(db.Events()), numbering, notifier, env.Log, eventlog.PipelineConfig{
		Hub: eventlog.HubConfig{Reader: eventlog.NewLog(db.LogReader())},
	})
	return feed, open.close, err
}

// NewLogRecord returns what keeps the head of the log next to an SQLite file; it does nothing on PostgreSQL.
func NewLogRecord(db *store.DB) Runner {
	if r := db.NewLogRecord(); r != nil {
		return r
	}
	return RunFunc(func(context.Context) error { return nil })
}

// openNumbering returns what gives positions to events, nil on SQLite.
func openNumbering(db *store.DB, open *closers) (eventlog.PositionStore, error) {
	seq, err := db.Sequence()
	if seq == nil || err != nil {
		return nil, err
	}
	*open = append(*open, seq)
	return seq, nil
}

// openNotifier returns the notifier between nodes: Redis if there is one, else
// PostgreSQL. An SQLite file has only one node.
func openNotifier(env Env, db *store.DB, open *closers) (eventlog.Notifier, error) {
	switch {
	case env.Config.RedisURL != "":
		b, err := notify.NewRedis(string(env.Config.RedisURL))
		if err != nil {
			return nil, err
		}
		*open = append(*open, b)
		return b, nil
	case db.Dialect() == "postgres":
		return notify.NewPostgres(db.Connect, env.Log), nil
	default:
		return (&notify.Memory{}).Join(), nil
	}
}

// closers are closed in the reverse order of their opening.
type closers []io.Closer

func (c *closers) close() error {
	var errs []error
	for _, one := range slices.Backward(*c) {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
