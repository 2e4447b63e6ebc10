package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
)

// Redis sends notifications by publish and subscribe.
type Redis struct {
	client      *redis.Client
	idleTimeout time.Duration // without a notification, after which the connection is probed
}

// NewRedis returns a notifier of the nodes that share the Redis of the URL. It
// connects when it is used; the caller closes it.
func NewRedis(url string) (*Redis, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errRedisURL
	}
	opts.DialTimeout, opts.WriteTimeout, opts.ReadTimeout = connectTimeout, connectTimeout, connectTimeout
	return &Redis{redis.NewClient(opts), idleTimeout}, nil
}

// errRedisURL replaces the client's own error, whose text may hold the password.
var errRedisURL = errors.New("this is not a Redis URL such as redis://user:password@host:6379/0")

// LogRedis makes the Redis client log failed attempts at debug level instead of writing them to
// standard error: its callers log the errors that matter.
func LogRedis(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

// Printf implements the logger of the client.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "message of the Redis client", "text", fmt.Sprintf(format, args...))
}

// Close closes the connections. Listen must have returned.
func (b *Redis) Close() error { return b.client.Close() }

// Notify implements eventlog.Notifier. It is safe for concurrent use.
func (b *Redis) Notify(ctx context.Context, h event.Notification) error {
	if err := b.client.Publish(ctx, channel, encodeNotification(h)).Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// Listen implements eventlog.Notifier. When the connection breaks it connects again.
func (b *Redis) Listen(ctx context.Context, receive func(event.Notification)) error {
	for try := 0; ctx.Err() == nil; try++ {
		b.listenOnce(ctx, func(h event.Notification) {
			try = 0
			receive(h)
		})
		backoff.Sleep(ctx, reconnects.Delay(try+1))
	}
	return nil
}

// listenOnce receives until the connection breaks. The library probes an idle connection,
// too, but accepts a write that is not refused: it would wait for ever on a
// connection whose peer is gone.
func (b *Redis) listenOnce(ctx context.Context, receive func(event.Notification)) {
	sub := b.client.Subscribe(ctx, channel)
	defer sub.Close()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()
	wait := b.idleTimeout
	for {
		m, err := sub.ReceiveTimeout(ctx, wait)
		if isTimeout(err) && wait == b.idleTimeout && sub.Ping(ctx) == nil {
			wait = min(connectTimeout, b.idleTimeout/2)
			continue
		}
		if err != nil {
			return
		}
		wait = b.idleTimeout
		switch m := m.(type) {
		case *redis.Message:
			receive(decodeNotification(m.Payload))
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
