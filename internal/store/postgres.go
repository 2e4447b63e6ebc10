package store

import (
	"cmp"
	"database/sql"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"
	"github.com/jackc/pgx/v5"
)

// maxIdleTime is how long PostgreSQL keeps a process for a connection that is not used.
const maxIdleTime = 5 * time.Minute

// openPostgres opens the pools. The startup message of a connection sets its timeouts, so that
// a frozen node loses its locks and no statement waits for ever; a value that the URL
// sets takes precedence.
func openPostgres(cfg Config) (*DB, error) {
	pgc, err := postgresConfig(cfg)
	if err != nil {
		return nil, err
	}
	conns := cmp.Or(cfg.MaxConns, 20)
	monitor := newLiveness(pgc)
	pool, own := monitor.openPool(pgc, conns), monitor.openPool(pgc, postgresCredentialConns)
	pool.SetConnMaxIdleTime(maxIdleTime)
	own.SetConnMaxIdleTime(maxIdleTime)
	shared := newPermits(conns / callerPart)
	return &DB{
		cfg: cfg, dialect: dialect.Postgres, liveness: monitor, closed: new(atomic.Bool),
		read: pool, write: pool, readers: shared, writers: shared,
		credentials: credentialPool{read: own, readers: newPermits(postgresCredentialConns / credentialPart)},
	}, nil
}

// openWithoutLimits opens a separate connection without the given limits of PostgreSQL, for
// work of any duration.
func openWithoutLimits(cfg Config, without ...string) (*sql.DB, error) {
	pgc, err := postgresConfig(cfg)
	if err != nil {
		return nil, err
	}
	for _, name := range without {
		pgc.RuntimeParams[name] = "0"
	}
	return newLiveness(pgc).openPool(pgc, 1), nil
}

// Addresses returns the hosts and ports of a PostgreSQL URL, as its client reads it: all
// that are given, and those of the environment if none is. Sockets that are files have none.
func Addresses(url string) (all []string, err error) {
	pgc, err := postgresConfig(Config{URL: url})
	if err != nil {
		return nil, err
	}
	add := func(host string, port uint16) {
		if !strings.HasPrefix(host, "/") {
			all = append(all, net.JoinHostPort(host, strconv.Itoa(int(port))))
		}
	}
	add(pgc.Host, pgc.Port)
	for _, f := range pgc.Fallbacks {
		add(f.Host, f.Port)
	}
	return all, nil
}

func postgresConfig(cfg Config) (*pgx.ConnConfig, error) {
	pgc, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New("this is not a PostgreSQL URL such as postgres://user:password@host:5432/database") // the error of pgx may contain the password
	}
	pgc.ConnectTimeout = cmp.Or(pgc.ConnectTimeout, 5*time.Second)
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	for name, value := range map[string]string{
		"application_name":                    "backplane",
		"timezone":                            "UTC",
		"lock_timeout":                        ms(cfg.LockTimeout),
		"statement_timeout":                   ms(cfg.StatementTime),
		"idle_in_transaction_session_timeout": ms(cfg.IdleInTx),
	} {
		if _, set := pgc.RuntimeParams[name]; !set {
			pgc.RuntimeParams[name] = value
		}
	}
	return pgc, nil
}
