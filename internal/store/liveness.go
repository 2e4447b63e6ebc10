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
	pingTime    = time.Second      // for the answer to a ping
)

// errNoResponse is the error that PostgreSQL sent nothing within a time in which it
// would at least have cancelled the statement by its statement_timeout.
var errNoResponse = errors.New("the database sent nothing for longer than its statement_timeout")

// liveness opens the connections of a pool and detects dead peers. A connection that a
// firewall dropped, or whose server froze, ends by itself after a quarter of an hour or
// never; its caller would wait as long, and the next caller would get the next dead
// connection of the pool.
type liveness struct {
	silence time.Duration // after which a statement is given up; 0: never, as it may take as long as it does
	trust   time.Duration
	lost    atomic.Int64 // when a connection was found dead, in Unix nanoseconds: a connection last read before is replaced
}

// openMonitoredPool returns a pool of at most so many connections. It leaves cfg to it.
func openMonitoredPool(cfg *pgx.ConnConfig, conns int) (*sql.DB, *liveness) {
	l := &liveness{silence: responseLimit(cfg.RuntimeParams["statement_timeout"]), trust: trustTime}
	cfg.DialFunc = l.dial
	pool := stdlib.OpenDB(*cfg, stdlib.OptionResetSession(l.checkConn),
		stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })) // check does, and not without a limit
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return pool, l
}

// responseLimit returns how long to wait for a server that cancels statements after
// the milliseconds of its setting; 0 if it does not, or the setting of a URL is
// written in another unit.
func responseLimit(setting string) time.Duration {
	ms, err := strconv.Atoi(setting)
	if err != nil || ms <= 0 {
		return 0
	}
	return time.Duration(ms) * time.Millisecond * 7 / 6 // the answer is on its way for a while
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

// checkConn is called before a connection is used again. It pings those that were not read
// from for a while. Once one is dead the others most likely are as well, and are replaced
// without a ping: a call that got them one after the other would wait for each.
func (l *liveness) checkConn(ctx context.Context, conn *pgx.Conn) error {
	now, heard := time.Now(), lastReadOn(conn.PgConn().Conn())
	switch {
	case heard.Before(time.Unix(0, l.lost.Load())):
		return driver.ErrBadConn
	case now.Sub(heard) < l.trust:
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

// lastReadOn returns when something last came over a connection, also one that TLS
// is spoken on.
func lastReadOn(conn net.Conn) time.Time {
	for {
		switch c := conn.(type) {
		case *monitoredConn:
			return time.Unix(0, c.heard.Load())
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return time.Time{}
		}
	}
}

// monitoredConn is a connection that is closed when nothing moves on it for too long while a
// caller waits. Deadlines that pgx sets take precedence.
type monitoredConn struct {
	net.Conn

	all   *liveness
	heard atomic.Int64 // when something last came, in Unix nanoseconds

	mu    sync.Mutex
	bound bool // pgx has set a deadline
}

// Read implements net.Conn.
func (l *monitoredConn) Read(b []byte) (int, error) {
	began := l.extendDeadline()
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(time.Now().UnixNano())
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

// explainTimeout turns the end of our own deadline into an error after which the
// connection is not used again; after a timeout pgx would.
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
