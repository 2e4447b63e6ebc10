package notify

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
)

// channel is the name that the nodes of a database notify and listen on. Names
// of PostgreSQL belong to one database, those of Redis to the whole server:
// installations that share one receive each other's notifications, and read the log in vain.
const channel = "backplane_events"

// Postgres sends notifications by NOTIFY. It listens on one connection and sends on
// another, both its own: a NOTIFY inside a transaction that changes data would
// make all such commits wait for one another.
type Postgres struct {
	connect Connect
	log     *slog.Logger

	mu     sync.Mutex
	sender *pgx.Conn // nil until the first Send and after an error
}

// Connect opens a connection to the server that the node writes to, under the name for its statistics. The
// connection is closed when another server takes over: only that one knows of new events.
type Connect func(ctx context.Context, name string) (*pgx.Conn, error)

// NewPostgres returns a notifier of the nodes that share the database. It connects when it is
// used.
func NewPostgres(connect Connect, log *slog.Logger) *Postgres {
	return &Postgres{connect: connect, log: log}
}

// connectionName is the application_name of the connections.
const connectionName = "backplane bus"

// open connects within connectTimeout.
func (b *Postgres) open(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return b.connect(ctx, connectionName)
}

// Notify implements eventlog.Notifier. It is safe for concurrent use and sends one at a time.
func (b *Postgres) Notify(ctx context.Context, h event.Notification) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sender == nil {
		conn, err := b.open(ctx)
		if err != nil {
			return fmt.Errorf("connect to notify: %w", err)
		}
		b.sender = conn
	}
	if _, err := b.sender.Exec(ctx, "SELECT pg_notify($1, $2)", channel, encodeNotification(h)); err != nil {
		b.closeSender()
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

func (b *Postgres) closeSender() {
	if b.sender != nil {
		closeConnection(b.sender)
		b.sender = nil
	}
}

// Listen implements eventlog.Notifier. When the connection breaks it connects again.
func (b *Postgres) Listen(ctx context.Context, receive func(event.Notification)) error {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.closeSender()
	}()
	for try := 0; ctx.Err() == nil; try++ {
		err := b.listenOnce(ctx, func(h event.Notification) {
			try = 0
			receive(h)
		})
		if ctx.Err() != nil {
			break
		}
		if try == 0 {
			b.log.WarnContext(ctx, "connection for notifications of other nodes lost; reconnecting", "error", err)
		}
		backoff.Sleep(ctx, reconnects.Delay(try+1))
	}
	return nil
}

// listenOnce receives until the connection breaks. It begins with the zero notification,
// because earlier ones may be lost.
func (b *Postgres) listenOnce(ctx context.Context, receive func(event.Notification)) error {
	conn, err := b.open(ctx)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer closeConnection(conn)
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	receive(event.Notification{})
	for {
		h, err := b.awaitNotification(ctx, conn)
		if err != nil {
			return err
		}
		if h != nil {
			receive(*h)
		}
	}
}

// awaitNotification waits for a notification. After idleTimeout it probes the connection:
// one whose peer is gone would report no error.
func (b *Postgres) awaitNotification(ctx context.Context, conn *pgx.Conn) (*event.Notification, error) {
	quiet, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	n, err := conn.WaitForNotification(quiet)
	if err == nil {
		h := decodeNotification(n.Payload)
		return &h, nil
	}
	if quiet.Err() == nil || ctx.Err() != nil {
		return nil, err
	}
	ping, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return nil, conn.Ping(ping)
}

// closeConnection closes a connection that may be broken, without waiting long for the
// peer's answer.
func closeConnection(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}
