package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Times of dead peer detection on connections to PostgreSQL.
const (
	userTimeout = 10 * time.Second // TCP user timeout: without an acknowledgement of the peer, on Linux also while bytes are unacknowledged
	trustTime   = time.Second      // a connection that was read from within it is used without a ping
	pingTime    = time.Second      // limit of a ping
)

// errNoResponse says that PostgreSQL sent nothing for longer than statement_timeout, after
// which a live server would at least have cancelled the statement.
var errNoResponse = errors.New("the database sent nothing for longer than its statement_timeout")

// liveness opens the connections of a pool and detects dead peers. Without it, a connection
// that a firewall dropped, or whose server froze, ends after a quarter of an hour or never;
// its caller waits as long, and the next caller gets the next dead connection of the pool.
type liveness struct {
	silence time.Duration // after which a statement without an answer fails; 0: never
	trust   time.Duration
	lost    atomic.Int64 // when a connection was last found dead, in Unix nanoseconds: connections last read before are replaced
}

// newLiveness returns the liveness of connections with cfg, which it changes to dial them.
func newLiveness(cfg *pgx.ConnConfig) *liveness {
	l := &liveness{silence: responseLimit(cfg.RuntimeParams["statement_timeout"]), trust: trustTime}
	cfg.DialFunc = l.dial
	return l
}

// openPool returns a pool of at most conns connections. Pools of one liveness share what it
// detects: a dead connection of one replaces those of all.
func (l *liveness) openPool(cfg *pgx.ConnConfig, conns int) *sql.DB {
	pool := stdlib.OpenDB(*cfg, stdlib.OptionResetSession(l.checkConn),
		stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })) // checkConn pings, with a limit
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return pool
}

// responseLimit returns how long to wait for a server that cancels statements after
// the milliseconds of its statement_timeout; 0 if it does not, or if a URL sets it in
// another unit.
func responseLimit(setting string) time.Duration {
	ms, err := strconv.Atoi(setting)
	if err != nil || ms <= 0 {
		return 0
	}
	return time.Duration(ms) * time.Millisecond * 7 / 6 // leaves time for the answer to arrive
}

func (l *liveness) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Control:         setUserTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: userTimeout / 2, Interval: userTimeout / 4, Count: 2},
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &monitoredConn{Conn: conn, all: l}, nil
}

// checkConn is called before a connection is used again. It pings a connection that was not
// read from for longer than trust. Once one connection is dead, the others most likely are
// too, and are replaced without a ping: a call would wait for the ping of each.
func (l *liveness) checkConn(ctx context.Context, conn *pgx.Conn) error {
	now, lastRead := time.Now(), lastReadOn(conn.PgConn().Conn())
	switch {
	case lastRead.Before(time.Unix(0, l.lost.Load())):
		return driver.ErrBadConn
	case now.Sub(lastRead) < l.trust:
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	if err := conn.Ping(limited); err != nil {
		if ctx.Err() == nil {
			l.lost.Store(now.UnixNano())
		}
		return driver.ErrBadConn
	}
	return nil
}

// lastReadOn returns when bytes last arrived on a connection, also below TLS.
func lastReadOn(conn net.Conn) time.Time {
	for {
		switch c := conn.(type) {
		case *monitoredConn:
			return time.Unix(0, c.lastRead.Load())
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return time.Time{}
		}
	}
}

// monitoredConn is a connection with an idle deadline while a caller reads or writes.
// Deadlines that pgx sets take precedence.
type monitoredConn struct {
	net.Conn

	all      *liveness
	lastRead atomic.Int64 // when bytes last arrived, in Unix nanoseconds

	mu    sync.Mutex
	bound bool // pgx has set a deadline
}

// Read implements net.Conn.
func (l *monitoredConn) Read(b []byte) (int, error) {
	began := l.extendDeadline()
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.lastRead.Store(time.Now().UnixNano())
	}
	return n, l.explainTimeout(err, began)
}

// Write implements net.Conn. It also extends the deadline of a concurrent Read: while
// bytes are sent no answer is due.
func (l *monitoredConn) Write(b []byte) (int, error) {
	began := l.extendDeadline()
	n, err := l.Conn.Write(b)
	return n, l.explainTimeout(err, began)
}

func (l *monitoredConn) extendDeadline() (now time.Time) {
	now = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all.silence > 0 && !l.bound {
		_ = l.Conn.SetDeadline(now.Add(l.all.silence)) // fails only on a connection that is closed
	}
	return now
}

// explainTimeout replaces the timeout of the idle deadline with errNoResponse, after which
// pgx discards the connection; after a timeout it would use it again.
func (l *monitoredConn) explainTimeout(err error, began time.Time) error {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bound {
		return err
	}
	l.all.lost.Store(began.UnixNano())
	return errNoResponse
}

// SetDeadline implements net.Conn.
func (l *monitoredConn) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bound = !t.IsZero()
	return l.Conn.SetDeadline(t)
}
