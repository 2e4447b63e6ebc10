package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
)

// Runner is a background task. Run works until ctx is cancelled, then returns nil.
type Runner interface {
	Run(ctx context.Context) error
}

// NewOwner returns the name under which this process owns leases: its node id
// and a random part, so that no later process on the node has the same.
func NewOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return event.Holder(fmt.Sprintf("%s:%d", host, os.Getpid()))
}

// NewConsumers builds the consumers inside the server.
func NewConsumers(env Env, db *store.DB, hub *event.Hub, sessions *session.Service, owner string) ([]Runner, error) {
	desk := event.Desk{Hub: hub, Offsets: db.Offsets(), Letters: db.Letters(), Holder: owner, Logger: env.Log}
	access, err := event.NewConsumer("access", sessions.RevokeCredentials, desk, event.ConsumerConfig{Types: session.CredentialEventTypes()})
	return []Runner{access}, err
}

// NewRetention builds the removal of the oldest events.
func NewRetention(env Env, db *store.DB, owner string) (Runner, error) {
	return event.NewCleaner(db.Events(), db.Offsets(), owner, Now, env.Log, env.Config.Retention)
}

// NewExporters builds the exporter of each sink. None connects before it runs, so
// that a broker that is down does not keep the server from starting.
func NewExporters(env Env, db *store.DB, log *event.Log, hub *event.Hub, owner string) ([]Runner, error) {
	var exporters []Runner
	for _, cfg := range env.Config.Sinks {
		sink, err := newSink(env, cfg)
		if err != nil {
			return nil, fmt.Errorf("sink %s (BACKPLANE_SINKS): %w", cfg.Name, err)
		}
		x, err := event.NewExporter(cfg.Name, log, hub, db.Offsets(), sink, env.Log, event.ExporterConfig{Holder: owner, FromHead: cfg.FromHead})
		if err != nil {
			return nil, err
		}
		exporters = append(exporters, x)
	}
	return exporters, nil
}

func newSink(env Env, cfg config.Sink) (event.Sink, error) {
	switch url := string(cfg.URL); cfg.Kind {
	case config.RedisSink:
		return notify.NewRedisSink(url, notify.RedisSinkConfig{Source: cfg.Source, Stream: cfg.Stream, MaxLen: cfg.MaxLen})
	case config.RabbitMQSink:
		return notify.NewRabbitMQSink(url, notify.RabbitMQSinkConfig{Source: cfg.Source, Exchange: cfg.Exchange, Mandatory: cfg.Mandatory}, env.Log.With("sink", cfg.Name))
	case config.NATSSink:
		return notify.NewNATSSink(url, notify.NATSSinkConfig{Source: cfg.Source, Stream: cfg.Stream, Subject: cfg.Subject})
	}
	return nil, fmt.Errorf("unknown kind of sink %q", cfg.Kind)
}

// purgeInterval is the time between two purges of expired rows.
const purgeInterval = 10 * time.Minute

// Purger removes expired idempotency keys, claims of consumers that are past their
// events, and dead letters that were replayed long ago.
type Purger struct {
	DB  *store.DB
	Log *slog.Logger
}

// Run implements Runner. A purge that fails is logged and tried again.
func (p Purger) Run(ctx context.Context) error {
	tick := time.NewTicker(purgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := p.DB.PurgeExpired(ctx); err != nil && ctx.Err() == nil {
				p.Log.ErrorContext(ctx, "purge of expired rows failed", "error", err)
			}
		}
	}
}
