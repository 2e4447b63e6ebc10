package store

import (
	"cmp"
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"
	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/store/pgserver"
)

// openPostgres opens the pools.
func openPostgres(cfg Config) (*DB, error) {
	server, err := newPostgresServer(cfg)
	if err != nil {
		return nil, err
	}
	conns, own := cmp.Or(cfg.MaxConns, postgresConns), cmp.Or(cfg.CredentialConns, postgresCredentialConns)
	pool := server.OpenPool(pgserver.PoolConfig{Conns: conns, Wary: cfg.WaryReads})
	shared := newPermits(conns, callerPart)
	return &DB{
		cfg: cfg, dialect: dialect.Postgres, server: server, closed: new(atomic.Bool), storing: new(storing),
		read: pool, write: pool, readers: shared, writers: shared,
		credentials: reservedPool{read: server.OpenPool(pgserver.PoolConfig{Conns: own, Wary: cfg.WaryReads}), readers: newPermits(own, credentialPart)},
		logReader:   reservedPool{read: server.OpenPool(pgserver.PoolConfig{Conns: 1, Wary: cfg.WaryReads}), readers: newPermits(1, 1)},
	}, nil
}

// newPostgresServer returns the server of the URL, with the settings of every session: time-outs, so that
// a frozen node loses its locks and no statement waits for ever, and what statements of this
// package rely on. Without statistics of its tables the planner overestimates and would compile short
// statements for most of a second each, so there is no JIT. A value that the URL sets takes precedence.
func newPostgresServer(cfg Config) (*pgserver.Server, error) {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return pgserver.New(cfg.URL, map[string]string{
		"application_name":                    "backplane",
		"client_encoding":                     "UTF8",
		"timezone":                            "UTC",
		"datestyle":                           "ISO",
		"standard_conforming_strings":         "on",
		"default_transaction_isolation":       "read committed",
		"lock_timeout":                        ms(cfg.LockTimeout),
		"statement_timeout":                   ms(cfg.StatementTime),
		"idle_in_transaction_session_timeout": ms(cfg.IdleInTx),
		"jit":                                 "off",
	}, cfg.Log)
}

// Limits of a session that some work goes without.
const (
	lockLimit      = "lock_timeout"
	statementLimit = "statement_timeout"
	idleLimit      = "idle_in_transaction_session_timeout"
)

// openWithoutLimits opens a separate connection without the given limits of PostgreSQL, for
// work of any duration.
func (db *DB) openWithoutLimits(without ...string) *pgserver.Pool {
	settings := make(map[string]string, len(without))
	for _, name := range without {
		settings[name] = "0"
	}
	return db.server.OpenPool(pgserver.PoolConfig{Conns: 1, Settings: settings})
}

// migratorAge is the maximum age of the connection for migrations, which holds a lock: more than an index takes.
const migratorAge = 7 * 24 * time.Hour

// openMigrator opens a separate connection for migrations, which may take long but wait only shortly for a lock.
func (db *DB) openMigrator() *pgserver.Pool {
	return db.server.OpenPool(pgserver.PoolConfig{Conns: 1, MaxAge: migratorAge, Settings: map[string]string{
		lockLimit: strconv.FormatInt(ddlLockTimeout.Milliseconds(), 10), statementLimit: "0", idleLimit: "0",
	}})
}

// Connect opens a single connection to PostgreSQL, under the name for its statistics. It is closed when
// another server takes over. The caller closes it.
func (db *DB) Connect(ctx context.Context, name string) (*pgx.Conn, error) {
	return db.server.Connect(ctx, map[string]string{"application_name": name, statementLimit: "0"}) // a listener is silent for long
}

// Addresses returns the hosts and ports of a PostgreSQL URL, as its client reads it: all
// that are given, and those of the environment if none is. Sockets that are files have none.
func Addresses(url string) (all []string, err error) {
	server, err := newPostgresServer(Config{URL: url})
	if err != nil {
		return nil, err
	}
	return server.Addresses(), nil
}
