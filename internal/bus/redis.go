package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"backplane/internal/event"
)

// Redis carries hints by publish and subscribe.
type Redis struct{ client *redis.Client }

var _ event.Bus = (*Redis)(nil)

// NewRedis returns a bus of the nodes that share the Redis of the URL. It
// connects when it is used; the caller closes it.
func NewRedis(url string) (*Redis, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("this is not a Redis URL such as redis://user:password@host:6379/0") // its own text may hold the password
	}
	opts.DialTimeout, opts.WriteTimeout, opts.ReadTimeout = connectTime, connectTime, connectTime
	return &Redis{redis.NewClient(opts)}, nil
}

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

// Send implements event.Bus. It is safe for concurrent use.
func (b *Redis) Send(ctx context.Context, h event.Hint) error {
	if err := b.client.Publish(ctx, channel, encode(h)).Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// Run implements event.Bus. The library connects again when the connection
// breaks, and then says that it has subscribed anew.
func (b *Redis) Run(ctx context.Context, receive func(event.Hint)) error {
	sub := b.client.Subscribe(ctx, channel)
	defer sub.Close()
	messages := sub.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			switch m := m.(type) {
			case *redis.Message:
				receive(decode(m.Payload))
			case *redis.Subscription:
				receive(event.Hint{})
			}
		}
	}
}
