package main

import (
	"errors"
	"io"
	"slices"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/store"
)

// openFeed builds the node's part in the event log: what numbers events, where
// the writer does not, what tells other nodes of them, and the hub that readers
// on this node follow. The caller runs the feed, and closes it after that.
func (n *node) openFeed(a *app) (_ *event.Feed, closeFeed func() error, err error) {
	var open closers
	defer func() {
		if err != nil {
			err = errors.Join(err, open.close())
		}
	}()
	numbering, err := openNumbering(n.db, &open)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := openBus(a, n.db, &open)
	if err != nil {
		return nil, nil, err
	}
	feed, err := event.NewFeed(event.NewLog(n.db.Events()), numbering, nodes, a.log, event.FeedConfig{})
	if err != nil {
		return nil, nil, err
	}
	n.db.OnAppend(feed.Appended)
	n.cache.Follow(feed.Hub)
	open = append(open, n.cache)
	return feed, func() error { return open.close() }, nil
}

// openNumbering returns what gives positions to events, nil on SQLite.
func openNumbering(db *store.DB, open *closers) (event.Numbering, error) {
	seq, err := db.Sequence()
	if seq == nil || err != nil {
		return nil, err
	}
	*open = append(*open, seq)
	return seq, nil
}

// openBus returns how this node and others hear of events: through Redis if there
// is one, else through PostgreSQL; an SQLite file has only one node.
func openBus(a *app, db *store.DB, open *closers) (event.Bus, error) {
	switch {
	case a.cfg.RedisURL != "":
		b, err := notify.NewRedis(string(a.cfg.RedisURL))
		if err != nil {
			return nil, err
		}
		*open = append(*open, b)
		return b, nil
	case db.Dialect() == "postgres":
		return notify.NewPostgres(string(a.cfg.Database), a.log)
	default:
		return (&notify.Memory{}).Join(), nil
	}
}

// closers are closed in the reverse order of their opening.
type closers []io.Closer

func (c closers) close() error {
	var errs []error
	for _, one := range slices.Backward(c) {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
