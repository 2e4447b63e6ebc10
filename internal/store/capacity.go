package store

import (
	"context"
	"fmt"
)

// Connections of a node to PostgreSQL besides those of its two pools.
const (
	ownConns      = 2 // of the sequencer and the monitor
	notifierConns = 2 // to listen and to notify, where Redis does not carry notifications
)

// Capacity compares the connections of all nodes with those that the server allows.
type Capacity struct {
	PerNode int // most connections of a node with the settings of this process
	Nodes   int // that run now, at least one
	Allowed int // by the server, the database and the user, without those that it reserves for superusers
}

// IsExceeded reports whether the nodes may open more connections than are allowed.
func (c Capacity) IsExceeded() bool { return c.PerNode*c.Nodes > c.Allowed }

// Capacity returns the numbers of connections; notifies says that PostgreSQL carries the notifications between
// nodes. An SQLite file needs none: there it returns zero.
func (db *DB) Capacity(ctx context.Context, notifies bool) (Capacity, error) {
	if !db.isPostgres() {
		return Capacity{}, nil
	}
	all := db.Connections()
	c := Capacity{PerNode: all["write"].Max + all["credentials"].Max + all["log reader"].Max + ownConns}
	if notifies {
		c.PerNode += notifierConns
	}
	found, err := db.readConn().queryRow(ctx, `SELECT GREATEST(1, (SELECT COUNT(*) FROM pickers WHERE expires_at > clock_timestamp())), LEAST(
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - COALESCE(current_setting('reserved_connections', true)::int, 0),
		(SELECT NULLIF(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user AND NOT rolsuper),
		(SELECT NULLIF(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))`, nil, &c.Nodes, &c.Allowed)
	if err := orNoRow(found, err); err != nil {
		return c, fmt.Errorf("compare the numbers of connections: %w", db.translateError(ctx, err))
	}
	return c, nil
}
