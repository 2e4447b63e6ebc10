package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/event"
)

// channel is the name that the nodes of a database notify and listen on. Names
// of PostgreSQL belong to one database, those of Redis to the whole server: an
// installation that shares one hears the hints of others, and looks in vain.
const channel = "backplane_events"

// Postgres carries hints by NOTIFY. It listens on one connection and sends on
// another, both its own: a NOTIFY inside a transaction that changes data would
// make all such commits wait for one another.
type Postgres struct {
	cfg *pgx.ConnConfig
	log *slog.Logger

	mu     sync.Mutex
	sender *pgx.Conn // nil until the first Send and after an error
}

// NewPostgres returns a bus of the nodes that share the database of the URL. It
// connects when it is used.
func NewPostgres(url string, log *slog.Logger) (*Postgres, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("this is not a PostgreSQL URL") // its own text may hold the password
	}
	cfg.ConnectTimeout = connectTime
	cfg.RuntimeParams["application_name"] = "backplane bus"
	return &Postgres{cfg: cfg, log: log}, nil
}

// Notify implements eventlog.Notifier. It is safe for concurrent use; hints go one by one.
func (b *Postgres) Notify(ctx context.Context, h event.Notification) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sender == nil {
		conn, err := pgx.ConnectConfig(ctx, b.cfg)
		if err != nil {
			return fmt.Errorf("connect to notify: %w", err)
		}
		b.sender = conn
	}
	if _, err := b.sender.Exec(ctx, "SELECT pg_notify($1, $2)", channel, encode(h)); err != nil {
		b.drop()
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

func (b *Postgres) drop() {
	if b.sender != nil {
		hangUp(b.sender)
		b.sender = nil
	}
}

// Listen implements eventlog.Notifier. When the connection breaks it connects again.
func (b *Postgres) Listen(ctx context.Context, receive func(event.Notification)) error {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drop()
	}()
	for try := 0; ctx.Err() == nil; try++ {
		err := b.listen(ctx, func(h event.Notification) {
			try = 0
			receive(h)
		})
		if ctx.Err() != nil {
			break
		}
		if try == 0 {
			b.log.WarnContext(ctx, "listening for events of other nodes was cut off", "error", err)
		}
		pause(ctx, try)
	}
	return nil
}

// listen receives until the connection breaks. It begins with the zero Hint, as
// nobody knows what was said before.
func (b *Postgres) listen(ctx context.Context, receive func(event.Notification)) error {
	conn, err := pgx.ConnectConfig(ctx, b.cfg)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer hangUp(conn)
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	receive(event.Notification{})
	for {
		h, err := b.await(ctx, conn)
		if err != nil {
			return err
		}
		if h != nil {
			receive(*h)
		}
	}
}

// await waits for a hint. If there is none for a while it tries the connection:
// one whose other end is gone would keep quiet for ever.
func (b *Postgres) await(ctx context.Context, conn *pgx.Conn) (*event.Notification, error) {
	quiet, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	n, err := conn.WaitForNotification(quiet)
	if err == nil {
		h := decode(n.Payload)
		return &h, nil
	}
	if quiet.Err() == nil || ctx.Err() != nil {
		return nil, err
	}
	ping, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	return nil, conn.Ping(ping)
}

// hangUp closes a connection that may be broken, without waiting long for the
// other end to say goodbye.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), firstPause)
	defer cancel()
	_ = conn.Close(ctx)
}
