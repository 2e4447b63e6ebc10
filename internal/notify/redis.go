package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/event"
)

// Redis carries hints by publish and subscribe.
type Redis struct {
	client *redis.Client
	quiet  time.Duration // without a hint, after which the connection is tried
}

// NewRedis returns a bus of the nodes that share the Redis of the URL. It
// connects when it is used; the caller closes it.
func NewRedis(url string) (*Redis, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errRedisURL
	}
	opts.DialTimeout, opts.WriteTimeout, opts.ReadTimeout = connectTime, connectTime, connectTime
	return &Redis{redis.NewClient(opts), quietTime}, nil
}

// errRedisURL replaces the client's own error, whose text may hold the password.
var errRedisURL = errors.New("this is not a Redis URL such as redis://user:password@host:6379/0")

// LogRedis makes the Redis client, which else writes a line to standard error for
// each failed try, log them as details: what matters is said by whoever tries.
func LogRedis(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf implements the logger of the client.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "the Redis client says", "text", fmt.Sprintf(format, args...))
}

// Close closes the connections. Run ends before it.
func (b *Redis) Close() error { return b.client.Close() }

// Notify implements eventlog.Notifier. It is safe for concurrent use.
func (b *Redis) Notify(ctx context.Context, h event.Notification) error {
	if err := b.client.Publish(ctx, channel, encode(h)).Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// Listen implements eventlog.Notifier. When the connection breaks it connects again.
func (b *Redis) Listen(ctx context.Context, receive func(event.Notification)) error {
	for try := 0; ctx.Err() == nil; try++ {
		b.listen(ctx, func(h event.Notification) {
			try = 0
			receive(h)
		})
		pause(ctx, try)
	}
	return nil
}

// listen receives until the connection is no good any more. The library tries a
// quiet connection, too, but is content when what it sends is not refused: of
// one whose other end is gone it would keep waiting for hints.
func (b *Redis) listen(ctx context.Context, receive func(event.Notification)) {
	sub := b.client.Subscribe(ctx, channel)
	defer sub.Close()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()
	wait := b.quiet
	for {
		m, err := sub.ReceiveTimeout(ctx, wait)
		if isTimeout(err) && wait == b.quiet && sub.Ping(ctx) == nil {
			wait = min(connectTime, b.quiet/2)
			continue
		}
		if err != nil {
			return
		}
		wait = b.quiet
		switch m := m.(type) {
		case *redis.Message:
			receive(decode(m.Payload))
		case *redis.Subscription:
			receive(event.Notification{})
		}
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// RedisAddress returns the host and port of a Redis URL, as its client reads it.
func RedisAddress(url string) (string, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return "", errRedisURL
	}
	return opts.Addr, nil
}
