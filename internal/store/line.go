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

// Times after which a line to PostgreSQL is dead.
const (
	unackedTime = 10 * time.Second // without a sign of the other end's kernel, on Linux also while bytes wait to be acknowledged
	trustTime   = time.Second      // a line that was heard of within it is used without asking
	pingTime    = time.Second      // for the answer of one that is asked
)

// errSilent says that PostgreSQL did not answer within a time in which it would
// have said at least that the statement took too long.
var errSilent = errors.New("the database has not said a word for longer than a statement may take")

// lines opens the connections of a pool and drops those that lead nowhere. A
// connection that a firewall forgot, or whose server froze, ends by itself after
// a quarter of an hour or never; whoever waits for its answer would do so too,
// and the next one would be given the next dead connection of the pool.
type lines struct {
	silence time.Duration // after which a statement is given up; 0: never, as it may take as long as it does
	trust   time.Duration
	lost    atomic.Int64 // when a line was found dead, in Unix nanoseconds: no older sign of another counts
}

// openLines returns a pool of at most so many connections. It leaves cfg to it.
func openLines(cfg *pgx.ConnConfig, conns int) (*sql.DB, *lines) {
	l := &lines{silence: silenceAfter(cfg.RuntimeParams["statement_timeout"]), trust: trustTime}
	cfg.DialFunc = l.dial
	pool := stdlib.OpenDB(*cfg, stdlib.OptionResetSession(l.check),
		stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })) // check does, and not without a limit
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return pool, l
}

// silenceAfter returns how long a server may be silent that ends statements after
// the milliseconds of its setting; 0 if it does not, or the setting of a URL is
// written in another unit.
func silenceAfter(setting string) time.Duration {
	ms, err := strconv.Atoi(setting)
	if err != nil || ms <= 0 {
		return 0
	}
	return time.Duration(ms) * time.Millisecond * 7 / 6 // the answer is on its way for a while
}

func (l *lines) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Control:         boundUnacked,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: unackedTime / 2, Interval: unackedTime / 4, Count: 2},
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &line{Conn: conn, all: l}, nil
}

// check is called before a connection is used again. It asks those that have not
// been heard of for a while whether they still lead anywhere. Once one does not,
// the others are most likely lost as well, and are replaced unasked: a call that
// is given them one after the other would wait for each.
func (l *lines) check(ctx context.Context, conn *pgx.Conn) error {
	now, heard := time.Now(), heardOn(conn.PgConn().Conn())
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

// heardOn returns when something last came over a connection, also one that TLS
// is spoken on.
func heardOn(conn net.Conn) time.Time {
	for {
		switch c := conn.(type) {
		case *line:
			return time.Unix(0, c.heard.Load())
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return time.Time{}
		}
	}
}

// line is a connection that is given up when nothing moves on it for too long
// while somebody waits. Deadlines that pgx sets go before.
type line struct {
	net.Conn

	all   *lines
	heard atomic.Int64 // when something last came, in Unix nanoseconds

	mu    sync.Mutex
	bound bool // pgx has set a deadline
}

// Read implements net.Conn.
func (l *line) Read(b []byte) (int, error) {
	began := l.extend()
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(time.Now().UnixNano())
	}
	return n, l.explain(err, began)
}

// Write implements net.Conn. It also gives who reads meanwhile more time: as
// long as something is sent there need be no answer.
func (l *line) Write(b []byte) (int, error) {
	began := l.extend()
	n, err := l.Conn.Write(b)
	return n, l.explain(err, began)
}

func (l *line) extend() (now time.Time) {
	now = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all.silence > 0 && !l.bound {
		_ = l.Conn.SetDeadline(now.Add(l.all.silence)) // fails only on a connection that is closed
	}
	return now
}

// explain turns the end of our own deadline into an error after which the
// connection is not used again; after a timeout pgx would.
func (l *line) explain(err error, began time.Time) error {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bound {
		return err
	}
	l.all.lost.Store(began.UnixNano())
	return errSilent
}

// SetDeadline implements net.Conn.
func (l *line) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bound = !t.IsZero()
	return l.Conn.SetDeadline(t)
}
