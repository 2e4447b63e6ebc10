// Package pgserver opens connections to the PostgreSQL server that a node writes to, and keeps
// track of which server that is.
//
// A connection is more than a socket. Its session has settings, which are set after connecting,
// so that a connection pooler in session mode need not know them; and its server has a role.
// Connections that may not write are lost ones: those to a standby, those to a server that became
// read-only, and all that are older than one to another server. They carry the server epoch in
// which they were opened; once that has passed, no pool hands them out, and no read returns
// what the former server last knew. Connections also end when their peer is dead or silent,
// and when they have reached their maximum age.
//
// Invariants: all connections of an epoch lead to one server, which could write when each was
// opened. A Pool repeats a statement only if the server cannot have executed it, or if it only
// reads.
//
// The package knows no tables. Which statements run, and what callers are told of an error,
// is up to package store.
package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// connectTime is how long connecting to one address may take, unless the URL says otherwise.
const connectTime = 5 * time.Second

// Server is the server that the connections of a node lead to. It is safe for concurrent use.
type Server struct {
	base     *pgx.ConnConfig   // of the URL, without settings of sessions
	settings map[string]string // of every session
	log      *slog.Logger
	lost     atomic.Int64 // when a connection was last found dead, as monotime.Nanos: connections last read before are replaced
	suspect  atomic.Int64 // when a new connection last met a server that cannot write: others last read before are looked at before use
	pooled   atomic.Bool  // a connection pooler stands between

	mu       sync.Mutex
	epoch    int64
	identity string // of the server of this epoch; empty until a connection is open
	conns    map[*monitoredConn]struct{}
}

// New returns the server of the URL. Settings are those of every session, by name; a value that the
// URL sets takes precedence.
func New(url string, settings map[string]string, log *slog.Logger) (*Server, error) {
	base, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("this is not a PostgreSQL URL such as postgres://user:password@host:5432/database") // the error of pgx may contain the password
	}
	if base.ConnectTimeout == 0 {
		base.ConnectTimeout = connectTime
	}
	s := &Server{base: base, settings: maps.Clone(settings), log: log, conns: make(map[*monitoredConn]struct{})}
	for name, value := range base.RuntimeParams {
		if name != optionsParam {
			s.settings[name] = value
			delete(base.RuntimeParams, name)
		}
	}
	return s, nil
}

// optionsParam is the one parameter that stays in the startup message if a URL has it: it is no
// setting, but command-line arguments for the server.
const optionsParam = "options"

// Addresses returns the hosts and ports of the URL, as its client reads it: all that are given, and
// those of the environment if none is. Sockets that are files have none.
func (s *Server) Addresses() (all []string) {
	add := func(host string, port uint16) {
		if !strings.HasPrefix(host, "/") {
			all = append(all, net.JoinHostPort(host, strconv.Itoa(int(port))))
		}
	}
	add(s.base.Host, s.base.Port)
	for _, f := range s.base.Fallbacks {
		add(f.Host, f.Port)
	}
	return all
}

// Epoch returns the number of the server epoch. It grows when the server is replaced, or can no longer
// write.
func (s *Server) Epoch() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// Connect opens a single connection with further settings of its session, e.g. to listen on. It
// is closed when another server takes over. The caller closes it.
func (s *Server) Connect(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, s.config(PoolConfig{Settings: settings}))
}

// config returns how to connect. The settings of the pool take precedence over those of the server.
func (s *Server) config(pool PoolConfig) *pgx.ConnConfig {
	all := maps.Clone(s.settings)
	maps.Copy(all, pool.Settings)
	silence := responseLimit(all["statement_timeout"])
	cfg := s.base.Copy()
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &monitoredConn{Conn: conn, server: s, silence: silence, expires: time.Now().Add(backoff.Jitter(cmp.Or(pool.MaxAge, maxAge)))}
		s.addConn(c)
		return c, nil
	}
	cfg.ValidateConnect = func(ctx context.Context, pc *pgconn.PgConn) error { return s.prepareSession(ctx, pc, all) }
	cfg.OnPgError = s.onError
	return cfg
}

// onError reports whether a connection can be used after an error of the server.
func (s *Server) onError(pc *pgconn.PgConn, err *pgconn.PgError) (usable bool) {
	switch err.Code {
	case readOnlyTransaction:
		s.loseEpoch(connOf(pc.Conn()), "it refused a write: it is read-only")
		return false
	case adminShutdown, crashShutdown:
		s.ReplaceIdle()
		return false
	case unknownStatement:
		return false // its prepared statements are gone, and with them what pgx knows of the session
	}
	return !strings.EqualFold(err.Severity, "FATAL") && !strings.EqualFold(err.Severity, "PANIC")
}

// admit adds a connection whose server can write to the epoch. A connection to another server than that
// of the epoch begins the next one, unless that began while the connection was being opened.
func (s *Server) admit(c *monitoredConn, identity string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.identity == identity:
	case s.identity == "":
		s.identity = identity
	case c.epoch.Load() != s.epoch:
		return errReplaced
	default:
		s.epoch++
		s.identity = identity
		s.log.Warn("the database is another server than before: its older connections are closed", "epoch", s.epoch)
	}
	c.epoch.Store(s.epoch)
	for old := range s.conns {
		if old.admitted.Load() && old.epoch.Load() != s.epoch {
			_ = old.Conn.Close() // statements that wait for the former server fail; a COMMIT among them has an unknown outcome
		}
	}
	c.admitted.Store(true)
	return nil
}

// loseEpoch ends the epoch of a connection that cannot write. Idle connections are not used
// again; statements under way go on until a connection to a server that can write is open.
func (s *Server) loseEpoch(c *monitoredConn, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil || c.epoch.Load() != s.epoch {
		return // known already
	}
	s.epoch++
	s.identity = ""
	s.log.Warn("the database server cannot write any more: its connections are replaced", "reason", reason, "epoch", s.epoch)
}

// isCurrent reports whether a connection belongs to the epoch.
func (s *Server) isCurrent(c *monitoredConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.epoch.Load() == s.epoch
}

// ReplaceIdle has connections replaced that were last read from before now, after one turned out dead: the
// others most likely are, too.
func (s *Server) ReplaceIdle() { s.lost.Store(monotime.Now()) }

func (s *Server) addConn(c *monitoredConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.epoch.Store(s.epoch)
	s.conns[c] = struct{}{}
}

func (s *Server) removeConn(c *monitoredConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// RefusedError says why a database cannot be used, and what the operator must change.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// ErrCannotWrite says that a server is a standby or read-only.
var ErrCannotWrite = errors.New("the server cannot write: it is a standby, or read-only (default_transaction_read_only)")

// errReplaced says that another server took over while a connection was being opened.
var errReplaced = fmt.Errorf("%w any more: another server took over", ErrCannotWrite)
