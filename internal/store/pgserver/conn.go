package pgserver

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/monotime"
)

// Times of dead peer detection, and of connections in general.
const (
	userTimeout = 10 * time.Second // TCP user timeout: without an acknowledgement of the peer, on Linux also while bytes are unacknowledged
	trustTime   = time.Second      // a connection that was read from within it is used without a look at its role
	lookTime    = time.Second      // limit of such a look
	maxAge      = 30 * time.Minute // of a connection, with jitter: so that connections follow the URL where it leads
)

// errNoResponse says that PostgreSQL sent nothing for longer than statement_timeout, after
// which a live server would at least have cancelled the statement.
var errNoResponse = errors.New("the database sent nothing for longer than its statement_timeout")

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

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Control:         setUserTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: userTimeout / 2, Interval: userTimeout / 4, Count: 2},
	}
	return d.DialContext(ctx, network, addr)
}

// checkConn is called before a connection is used again. One of a former epoch or beyond its age
// is replaced. One that was not read from for longer than trust is asked for the role of its
// server, which is a ping, too. Once one connection is dead, the others most likely are
// too, and are replaced without a question: a call would wait for the answer of each.
func (s *Server) checkConn(ctx context.Context, conn *pgx.Conn, trust time.Duration) error {
	c := connOf(conn.PgConn().Conn())
	now := time.Now()
	if c == nil || !s.isCurrent(c) || now.After(c.expires) {
		return driver.ErrBadConn
	}
	lastRead := c.lastRead.Load()
	switch {
	case lastRead < s.lost.Load():
		return driver.ErrBadConn
	case now.Sub(monotime.Time(lastRead)) < trust && lastRead > s.suspect.Load():
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	res, err := conn.PgConn().Exec(limited, `SELECT `+isReadOnly).ReadAll()
	if err != nil {
		if ctx.Err() == nil {
			s.lost.Store(monotime.Nanos(now))
		}
		return driver.ErrBadConn
	}
	if string(res[0].Rows[0][0]) == "t" {
		s.loseEpoch(c, "it became a standby or read-only")
		return driver.ErrBadConn
	}
	return nil
}

// connOf returns the monitored connection, also below TLS; nil if there is none.
func connOf(conn net.Conn) *monitoredConn {
	for {
		switch c := conn.(type) {
		case *monitoredConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// monitoredConn is a connection with an idle deadline while a caller reads or writes.
// Deadlines that pgx sets take precedence.
type monitoredConn struct {
	net.Conn

	server   *Server
	silence  time.Duration // after which a statement without an answer fails; 0: never
	expires  time.Time     // end of its age
	epoch    atomic.Int64
	admitted atomic.Bool  // its server could write when it was opened
	lastRead atomic.Int64 // when bytes last arrived, as monotime.Nanos

	mu    sync.Mutex
	bound bool // pgx has set a deadline
}

// Read implements net.Conn.
func (c *monitoredConn) Read(b []byte) (int, error) {
	began := c.extendDeadline()
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.lastRead.Store(monotime.Now())
	}
	return n, c.explainTimeout(err, began)
}

// Write implements net.Conn. It also extends the deadline of a concurrent Read: while
// bytes are sent no answer is due.
func (c *monitoredConn) Write(b []byte) (int, error) {
	began := c.extendDeadline()
	n, err := c.Conn.Write(b)
	return n, c.explainTimeout(err, began)
}

// Close implements net.Conn.
func (c *monitoredConn) Close() error {
	c.server.removeConn(c)
	if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) { // the end of its epoch may have closed it
		return err
	}
	return nil
}

func (c *monitoredConn) extendDeadline() (now time.Time) {
	now = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silence > 0 && c.admitted.Load() && !c.bound { // connecting has a limit of its own
		_ = c.Conn.SetDeadline(now.Add(c.silence)) // fails only on a connection that is closed
	}
	return now
}

// explainTimeout replaces the timeout of the idle deadline with errNoResponse, after which
// pgx discards the connection; after a timeout it would use it again.
func (c *monitoredConn) explainTimeout(err error, began time.Time) error {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bound {
		return err
	}
	c.server.lost.Store(monotime.Nanos(began))
	return errNoResponse
}

// SetDeadline implements net.Conn.
func (c *monitoredConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = !t.IsZero()
	return c.Conn.SetDeadline(t)
}
